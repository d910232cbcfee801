use super::*;
use kontiki_env::SimMachine;
use kontiki_env::clock::VirtualTime;
use kontiki_env::rng::Rng;

fn pace(bytes_per_second: u64) -> (VirtualTime, Pace) {
    let time = VirtualTime::default();
    let machine = SimMachine::new(&Rng::new(1), time.clone());
    (time, Pace::new(bytes_per_second, Arc::new(machine.clock.clone()), Counter::default()))
}

#[test]
fn all_together_keep_to_the_limit() {
    let (time, pace) = pace(1000);
    let waits: Vec<_> = (0..4).map(|_| pace.begin(250).as_millis()).collect();
    assert_eq!(waits, [0, 250, 500, 750], "each one waits for those before it");
    time.advance_to(time.now() + Duration::from_millis(600));
    assert_eq!(pace.begin(100).as_millis(), 400);

    // An idle time is no credit.
    time.advance_to(time.now() + Duration::from_secs(100));
    assert_eq!([pace.begin(500), pace.begin(500)].map(|wait| wait.as_millis()), [0, 500]);
}

#[test]
fn without_a_limit_nothing_waits() {
    let (_, pace) = pace(0);
    assert!((0..100).all(|_| pace.begin(u64::MAX).is_zero()));
}
