use super::*;
use futures::FutureExt;

#[tokio::test]
async fn a_read_lets_others_run_at_each_yield_and_ends_at_the_bound() {
    let large = LargeAnswers::default();
    let mut budget = large.budget();
    assert!(budget.yield_now(0).now_or_never().is_none(), "others come first");
    budget.yield_now(ANSWER_BYTES_MAX).await.expect("the bound itself is allowed");
    let KeyError::Abort(text) = budget.yield_now(ANSWER_BYTES_MAX + 1).await.expect_err("one more") else {
        panic!("a plain error");
    };
    assert!(text.starts_with(ANSWER_TOO_LARGE) && text.contains("fewer keys"), "{text}");
}

#[tokio::test]
async fn few_large_answers_are_made_at_a_time_and_small_ones_always() {
    let large = LargeAnswers::default();
    let mut held = Vec::new();
    for _ in 0..LARGE_ANSWERS_MAX {
        let mut budget = large.budget();
        budget.yield_now(LARGE_BYTES + 1).await.expect("permitted");
        held.push(budget);
    }
    let mut waiting = large.budget();
    let mut small = large.budget();
    small.yield_now(LARGE_BYTES).await.expect("it does not wait");
    {
        let mut permitted = Box::pin(waiting.yield_now(LARGE_BYTES + 1));
        for _ in 0..10 {
            assert!(futures::poll!(&mut permitted).is_pending());
        }
        held.pop();
        permitted.await.expect("a permit is free");
    }
    held[0].yield_now(2 * LARGE_BYTES).await.expect("it has its permit already");
}
