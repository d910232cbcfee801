use super::*;

#[tokio::test(start_paused = true)]
async fn it_gives_up_at_the_deadline_and_says_why() {
    let mut backoff = Backoff::new(Duration::from_secs(2));
    let mut tries = 0;
    let error = loop {
        tries += 1;
        match backoff.pause("no leader").await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert!(tries > 5, "{tries}");
    assert!(matches!(&error, Error::Timeout { after, last } if last == "no leader" && after.as_secs() < 2));
    backoff.mark_uncertain();
    assert!(matches!(backoff.give_up("x"), Error::Undetermined { .. }));
    assert!(matches!(backoff.fork().give_up("x"), Error::Timeout { .. }), "a part has a separate history");
}

#[tokio::test(start_paused = true)]
async fn hints_are_followed_at_once_but_not_for_ever() {
    let mut backoff = Backoff::new(Duration::from_secs(2));
    let started = Instant::now();
    for _ in 0..HINTS_MAX {
        backoff.hinted("moved").await.unwrap();
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
    backoff.hinted("moved").await.unwrap();
    assert!(started.elapsed() > Duration::ZERO);
}

#[test]
fn fractions_lie_in_their_range() {
    assert!((0..1000).map(|_| random_fraction()).all(|fraction| (0.0..1.0).contains(&fraction)));
}
