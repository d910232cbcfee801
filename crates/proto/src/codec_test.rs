use super::*;

thread_local! {
    static TIMES: Cell<u64> = const { Cell::new(0) };
}

fn counting(work: &mut dyn FnMut()) {
    TIMES.set(TIMES.get() + 1);
    work();
}

#[test]
fn large_work_goes_through_what_the_thread_has_named_and_small_work_does_not() {
    assert_eq!(run_if_large(true, || 1), 1, "a thread that has registered nothing does it itself");
    run_large_by(counting);
    assert_eq!((run_if_large(false, || 2), TIMES.get()), (2, 0));
    assert_eq!((run_if_large(true, || 3), TIMES.get()), (3, 1));
}

#[test]
fn generated_services_use_this_codec() {
    for generated in [
        include_str!(concat!(env!("OUT_DIR"), "/tikvpb.rs")),
        include_str!(concat!(env!("OUT_DIR"), "/kontiki.internal.rs")),
    ] {
        assert!(generated.contains("crate::codec::Codec") && !generated.contains("tonic_prost::ProstCodec"));
    }
}
