use super::*;
use kontiki_env::rng::Rng;

fn half(times: impl IntoIterator<Item = Option<u64>>) -> u64 {
    let mut sample = ExpirySample::default();
    times.into_iter().for_each(|time| sample.note(time));
    assert!(sample.times.len() <= SAMPLE_MAX);
    sample.half_expired_at_ms()
}

#[test]
fn half_of_the_versions_have_expired_then() {
    assert_eq!(half([]), u64::MAX);
    assert_eq!(half([Some(7)]), 7);
    assert_eq!(half([Some(3), Some(1), Some(2), Some(9)]), 2);
    assert_eq!(half([Some(3), None, None]), u64::MAX);
    assert_eq!(half([Some(3), Some(4), None]), 4);
}

#[test]
fn a_sample_of_many_is_about_right() {
    let mut rng = Rng::new(1);
    let found = half((0..100_000).map(|_| Some(rng.below(1000))));
    assert!((350..650).contains(&found), "{found}");
    let found = half((0..100_000).map(|i| (i % 10 == 0).then_some(5)));
    assert!(found == u64::MAX || found == 5, "a regular pattern may fool the sample, but not make up a time: {found}");
}
