use super::*;

fn follower(store_id: u64, needs_snapshot: bool) -> FollowerLog {
    FollowerLog { region_id: 12, store_id, entries: 34, bytes: 5_678, needs_snapshot, seconds: 90 }
}

fn logs(answer: RaftLogsResponse) -> RaftLogs {
    [(1, Ok(answer))].into()
}

#[test]
fn a_cluster_in_order_gets_no_line() {
    let fine = RaftLogsResponse { entries: 9, replay_bytes: 5, replay_bytes_max: 7, ..Default::default() };
    assert_eq!(outstanding(&logs(fine)), "");
}

#[test]
fn followers_that_lag_are_named_with_what_they_lack() {
    let lagging = vec![follower(2, false), follower(3, true)];
    let text = outstanding(&logs(RaftLogsResponse { followers_lagging: 40, lagging, ..Default::default() }));
    assert!(text.contains("followers that lag: 40; the worst 2"), "{text}");
    let row = |words: &[&str]| text.lines().any(|line| line.split_whitespace().eq(words.iter().copied()));
    assert!(row(&["12", "1", "2", "34", "5678", "90", "s"]), "{text}");
    assert!(row(&["12", "1", "3", "snapshot", "snapshot", "90", "s"]), "{text}");
}

#[test]
fn a_log_beyond_its_bound_and_a_node_without_an_answer_stand_out() {
    let mut logs = logs(RaftLogsResponse { replay_bytes: 9, replay_bytes_max: 7, ..Default::default() });
    logs.insert(2, Err("its version does not report them".into()));
    let text = outstanding(&logs);
    assert!(text.contains("store 1: a restart reads 9 bytes of log, more than the bound of 7"), "{text}");
    assert!(text.contains("store 2: the state of its raft logs is not known: its version"), "{text}");
}

#[test]
fn the_replicas_of_a_region_are_shown_by_store() {
    let replica = |leads, followers| {
        let replica =
            ReplicaLog { region_id: 12, leads, entries: 7, unflushed_entries: 2, followers, ..Default::default() };
        Ok(RaftLogsResponse { replica: Some(replica), ..Default::default() })
    };
    let logs: RaftLogs = [
        (1, replica(true, vec![follower(2, false), follower(3, true)])),
        (2, replica(false, vec![])),
        (3, replica(false, vec![])),
        (4, Ok(RaftLogsResponse::default())),
    ]
    .into();
    let text = region_table(&logs);
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [
            vec!["1", "leader", "7", "0", "0", "2", "-", "-"],
            vec!["2", "follower", "7", "0", "0", "2", "34", "5678"],
            vec!["3", "follower", "7", "0", "0", "2", "snapshot", "snapshot"],
        ]
    );
    let json = to_json(&logs);
    assert_eq!(
        (json[0]["replica"]["followers"][1]["needs_snapshot"].as_bool(), &json[3]["replica"]),
        (Some(true), &Value::Null)
    );
}
