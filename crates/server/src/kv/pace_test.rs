use super::*;
use futures::FutureExt;

#[tokio::test]
async fn a_read_gives_way_at_each_pause_and_ends_at_the_bound() {
    let large = LargeAnswers::default();
    let mut pace = large.read_pace();
    assert!(pace.pause(0).now_or_never().is_none(), "others come first");
    pace.pause(ANSWER_BYTES_MAX).await.expect("the bound itself is allowed");
    let KeyError::Abort(text) = pace.pause(ANSWER_BYTES_MAX + 1).await.expect_err("one more") else {
        panic!("a plain error");
    };
    assert!(text.starts_with(ANSWER_TOO_LARGE) && text.contains("fewer keys"), "{text}");
}

#[tokio::test]
async fn few_large_answers_are_made_at_a_time_and_small_ones_always() {
    let large = LargeAnswers::default();
    let mut held = Vec::new();
    for _ in 0..LARGE_ANSWERS_MAX {
        let mut pace = large.read_pace();
        pace.pause(LARGE_BYTES + 1).await.expect("permitted");
        held.push(pace);
    }
    let mut waiting = large.read_pace();
    let mut small = large.read_pace();
    small.pause(LARGE_BYTES).await.expect("it does not wait");
    {
        let mut pause = Box::pin(waiting.pause(LARGE_BYTES + 1));
        for _ in 0..10 {
            assert!(futures::poll!(&mut pause).is_pending());
        }
        held.pop();
        pause.await.expect("a permit is free");
    }
    held[0].pause(2 * LARGE_BYTES).await.expect("it has its permit already");
}
