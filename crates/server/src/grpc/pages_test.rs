use super::*;

#[test]
fn who_asks_during_another_page_of_regions_is_sent_away_for_a_while() {
    let refused = refusal(&PageError::Busy("later".into()));
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()[RETRY_AFTER], "5");
}
