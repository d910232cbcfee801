use super::*;

#[test]
fn a_sampler_chooses_its_share() {
    for one_in in [1_u64, 2, 7, 32, 1000] {
        let sampler = Sampler::new(one_in);
        let chosen = (0..100_000).filter(|_| sampler.hit()).count() as u64;
        let due = 100_000 / one_in;
        assert!(chosen.abs_diff(due) <= 2 + due / 100, "one in {one_in}: {chosen}");
    }
    let never = Sampler::new(0);
    assert!((0..100_000).all(|_| !never.hit()));
}

#[test]
fn a_workload_that_repeats_itself_is_sampled_fairly() {
    let sampler = Sampler::new(32);
    for period in 2..=16 {
        let mut chosen = vec![0_u64; period];
        for i in 0..320_000 {
            chosen[i % period] += u64::from(sampler.hit());
        }
        let due = 320_000 / 32 / period as u64;
        assert!(chosen.iter().all(|count| count.abs_diff(due) <= 2 + due / 50), "period {period}: {chosen:?}");
    }
}

#[test]
fn a_stepped_sampler_chooses_the_same_each_time() {
    let run = || {
        let sampler = Sampler::stepped(7);
        (0..1000).map(|_| sampler.hit()).collect::<Vec<_>>()
    };
    let first = run();
    (0..5).for_each(|_| _ = Sampler::new(3).hit());
    assert_eq!(first, run());
    assert!((140..=146).contains(&first.iter().filter(|hit| **hit).count()));
}

#[test]
fn each_thread_has_one_number() {
    let mine = stripe_of_thread();
    let other = std::thread::scope(|scope| scope.spawn(|| (stripe_of_thread(), stripe_of_thread())).join().unwrap());
    assert_eq!(mine, stripe_of_thread());
    assert_eq!(other.0, other.1);
    assert_ne!(mine, other.0);
}
