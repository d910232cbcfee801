use super::super::tests::{answering, header};
use super::*;
use kontiki_placement::{ExternalTimestampSet, Refusal, TimestampsGranted};

#[tokio::test]
async fn the_lowest_timestamp_is_a_new_one() {
    let (_, pd) = answering([Outcome::Timestamps(TimestampsGranted { physical_ms: 9, logical: 3, count: 1 })]);
    let answer = pd.get_min_ts(Default::default()).await.unwrap();
    assert_eq!(answer.header, header());
    assert_eq!(answer.timestamp.map(|ts| (ts.physical, ts.logical)), Some((9, 3)));
}

#[tokio::test]
async fn an_external_timestamp_that_is_refused_is_an_error_in_the_header() {
    let set = || Outcome::ExternalTimestamp(ExternalTimestampSet { timestamp: 7 });
    let refused = Outcome::Refused(Refusal::new(RefusalCode::Invalid, "external timestamp 6 is below"));
    let (_, pd) = answering([set(), set(), refused]);
    assert_eq!(pd.get_external_timestamp(Default::default()).await.unwrap().timestamp, 7);
    let ask = |timestamp| pdpb::SetExternalTimestampRequest { timestamp, ..Default::default() };
    assert_eq!(pd.set_external_timestamp(ask(7)).await.unwrap().header, header());
    let error = pd.set_external_timestamp(ask(6)).await.unwrap().header.unwrap().error.unwrap();
    assert_eq!(error.r#type(), pdpb::ErrorType::InvalidValue);
    assert!(error.message.contains("below"));
}
