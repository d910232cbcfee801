use super::*;
use crate::kv::fake::FakeNode;
use crate::stopping::StopControl;
use kontiki_env::clock::{SimClock, VirtualTime};
use kontiki_placement::{Keyspace, KeyspaceList, Outcome, Response as Answer};
use std::sync::Arc;

fn list(names: &[&str]) -> Outcome {
    let keyspaces = names.iter().zip(0..).map(|(name, id)| Keyspace { id, name: (*name).into(), ..Default::default() });
    Outcome::Keyspaces(KeyspaceList { keyspaces: keyspaces.collect() })
}

#[tokio::test(start_paused = true)]
async fn a_watch_sends_everything_first_and_then_what_changes() {
    let node = FakeNode::new();
    let outcomes = [list(&["DEFAULT"]), list(&["DEFAULT"]), list(&["DEFAULT", "raft"])];
    node.state.lock().placement.extend(outcomes.into_iter().map(|outcome| Ok(Answer::from(outcome))));
    let pd = Pd::new(node.clone(), node.retry_budget(), Arc::new(|_| true));
    let clock = Arc::new(SimClock::new(VirtualTime::default()));
    let stop = StopControl::default();
    let service = KeyspaceService::new(pd, RequestMetrics::new(clock), stop.stopping());
    let mut news = service.watch_keyspaces(Request::new(Default::default())).await.unwrap().into_inner();
    let mut names = async || -> Vec<String> {
        let message = news.next().await.unwrap().unwrap();
        assert!(message.header.is_some_and(|header| header.cluster_id != 0 && header.error.is_none()));
        message.keyspaces.into_iter().map(|keyspace| keyspace.name).collect()
    };
    assert_eq!(names().await, ["DEFAULT"]);
    assert_eq!(names().await, ["raft"]);
    stop.end(Stage::Clients);
    assert!(news.next().await.is_none(), "it ends when the node stops");
}
