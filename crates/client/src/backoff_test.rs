use super::*;
use crate::transport::Grpc;

fn backoff(budget: Duration) -> Backoff<Grpc> {
    Backoff::new(Grpc::new(Duration::from_secs(1)), budget, Duration::from_millis(400))
}

#[tokio::test(start_paused = true)]
async fn it_gives_up_at_the_deadline_and_says_why() {
    const BUDGET: Duration = Duration::from_secs(2);
    // Tokio's timers fire at whole milliseconds, so the last sleep may end this much later than asked.
    const TIMER_STEP: Duration = Duration::from_millis(1);
    let mut backoff = backoff(BUDGET);
    let mut tries = 0;
    let error = loop {
        tries += 1;
        match backoff.pause("no leader").await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert!(tries > 5, "{tries}");
    let Error::Timeout { after, last } = &error else { panic!("{error}") };
    assert_eq!(last, "no leader");
    assert!(*after <= BUDGET + TIMER_STEP, "{after:?}");
    backoff.mark_uncertain();
    assert!(matches!(backoff.give_up("x"), Error::Undetermined { .. }));
    assert!(matches!(backoff.fork().give_up("x"), Error::Timeout { .. }), "a part has a separate history");
}

#[tokio::test(start_paused = true)]
async fn hints_are_followed_at_once_but_not_for_ever() {
    let mut backoff = backoff(Duration::from_secs(2));
    let started = backoff.transport.now();
    for _ in 0..HINTS_MAX {
        backoff.hinted("moved").await.unwrap();
    }
    assert_eq!(backoff.transport.now(), started);
    backoff.hinted("moved").await.unwrap();
    assert!(backoff.transport.now() > started);
}

/// A try that begins just before the deadline has little time, so its silence explains nothing.
#[tokio::test(start_paused = true)]
async fn a_try_that_the_deadline_ends_does_not_hide_what_was_in_the_way() {
    let mut backoff = backoff(Duration::from_secs(2));
    assert_eq!(backoff.unanswered("no answer".to_string()), "no answer");
    backoff.pause("key a is locked").await.unwrap();
    assert_eq!(backoff.unanswered("no answer".to_string()), "no answer", "it had its whole time");
    tokio::time::sleep(Duration::from_secs(2)).await;
    for backoff in [backoff.fork(), backoff] {
        assert_eq!(backoff.unanswered("no answer".to_string()), "key a is locked; in the rest of the time no answer");
    }
}

#[test]
fn fractions_lie_in_their_range() {
    assert!([0, 1, u64::MAX / 2, u64::MAX].map(fraction).iter().all(|fraction| (0.0..1.0).contains(fraction)));
}

#[tokio::test]
async fn only_a_lost_answer_that_may_have_decided_the_outcome_leaves_it_unknown() {
    let lost = |decides: bool, effect| {
        let mut backoff = backoff(Duration::from_secs(2));
        if decides {
            backoff.begin_decision();
        }
        backoff.answer_lost(effect);
        backoff.is_uncertain()
    };
    assert_eq!([false, true].map(|decides| lost(decides, Effect::NoSideEffects)), [false, false]);
    assert_eq!([false, true].map(|decides| lost(decides, Effect::Idempotent)), [false, true]);
    assert_eq!([false, true].map(|decides| lost(decides, Effect::IdempotencyUnknown)), [true, true]);
    let mut backoff = backoff(Duration::from_secs(2));
    backoff.begin_decision();
    let mut part = backoff.fork();
    part.answer_lost(Effect::Idempotent);
    assert!(part.is_uncertain(), "a part of a decision decides, too");
}

#[tokio::test(start_paused = true)]
async fn without_a_wait_between_tries_they_still_end() {
    let mut backoff = Backoff::new(Grpc::new(Duration::from_secs(1)), Duration::from_millis(20), Duration::ZERO);
    let mut tries = 0;
    while backoff.pause("busy").await.is_ok() {
        tries += 1;
    }
    assert!((1..=40).contains(&tries), "{tries}");
}
