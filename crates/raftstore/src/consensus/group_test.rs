use super::step::Stepped;
use super::*;
use crate::meta::INITIAL;
use crate::model::region_of_three as region;
use kontiki_env::rng::Rng;
use proptest::prelude::*;

fn entry(index: u64, term: u64) -> wire::Entry {
    wire::Entry { index, term, data: Bytes::from_static(b"d"), ..wire::Entry::default() }
}

/// A follower in term 3 with entries 2 to 9 of which 5 are committed.
fn follower() -> Group {
    let state = GroupState {
        term: 3,
        vote: 0,
        commit: 5,
        truncated_index: INITIAL.index,
        truncated_term: INITIAL.term,
        ..GroupState::default()
    };
    let entries: Vec<Entry> =
        (2..10).map(|index| entry_from_wire(entry(index, 2 + index / 8)).expect("valid")).collect();
    Group::new(&Config::default(), PeerId(1), &region(), &state, entries, 1, Rng::new(1)).expect("valid")
}

/// A leader, of term 4, with the same log.
fn leader() -> Group {
    let mut group = follower();
    group.campaign();
    for term in [4, 4] {
        while let Some(ready_batch) = group.ready(Duration::ZERO, 0) {
            group.persisted(ready_batch.number);
        }
        for kind in [18, 6] {
            let message = RaftMessage { kind, term, ..RaftMessage::default() };
            group.step(PeerId(2), message, &region(), Duration::ZERO);
        }
    }
    assert_eq!((group.role(), group.term()), (Role::Leader, 4));
    group
}

fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..14, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

prop_compose! {
    fn messages()(
        kind in prop_oneof![8 => 3u32..20, 1 => any::<u32>()],
        term in prop_oneof![6 => 2u64..6, 1 => numbers()],
        (log_term, index, commit, commit_term) in (numbers(), numbers(), numbers(), numbers()),
        (request_snapshot, reject, reject_hint) in (Just(0u64), any::<bool>(), numbers()),
        (first, count, entry_term) in (numbers(), 0u64..4, 0u64..6),
        consecutive in prop::bool::weighted(0.8),
        snapshot in prop::option::of((numbers(), numbers())),
        context in prop::collection::vec(any::<u8>(), 0..20),
        from in 2u64..4,
    ) -> (u64, RaftMessage) {
        let first = if consecutive { index.wrapping_add(1) } else { first };
        let entries = (0..count).map(|i| entry(first.wrapping_add(i), entry_term)).collect();
        let snapshot = snapshot.map(|(index, term)| SnapshotInfo { index, term, ..SnapshotInfo::default() });
        (from, RaftMessage {
            kind, term, log_term, index, entries, commit, commit_term, snapshot, request_snapshot, reject, reject_hint,
            context: context.into(), priority: 0, transfer: 0,
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The core does not panic on any input: a message that no correct peer sends is refused before it reaches the
    /// core.
    #[test]
    fn messages_of_any_content_are_survived(list in prop::collection::vec(messages(), 1..12), lead in any::<bool>()) {
        let mut group = if lead { leader() } else { follower() };
        for (from, message) in list {
            group.step(PeerId(from), message, &region(), Duration::ZERO);
            while let Some(ready_batch) = group.ready(Duration::ZERO, 0) {
                group.persisted(ready_batch.number);
                if let Some(last) = ready_batch.committed.last() {
                    group.applied(last.index);
                }
            }
            group.tick(true);
        }
    }
}

#[test]
fn what_is_for_the_inside_of_a_node_is_refused_from_outside() {
    let mut group = leader();
    // MsgHup, MsgBeat, MsgPropose, MsgUnreachable, MsgSnapStatus, MsgCheckQuorum, MsgTransferLeader, MsgReadIndex.
    for kind in [0, 1, 2, 10, 11, 12, 13, 15, 16, 19, 1000] {
        let message = RaftMessage { kind, term: 4, ..RaftMessage::default() };
        assert!(matches!(group.step(PeerId(2), message, &region(), Duration::ZERO), Stepped::Refused(_)), "{kind}");
    }
}

#[test]
fn a_leader_that_counts_on_lost_entries_is_refused() {
    let mut group = follower();
    let heartbeat = RaftMessage { kind: 8, term: 3, commit: 10, ..RaftMessage::default() };
    let Stepped::Refused(why) = group.step(PeerId(2), heartbeat, &region(), Duration::ZERO) else { panic!("refused") };
    assert!(why.contains("lost"), "{why}");
    assert_eq!(group.committed(), 5);
}

#[test]
fn a_state_that_contradicts_the_log_does_not_start() {
    let state = GroupState { term: 3, commit: 12, truncated_index: 1, truncated_term: 1, ..GroupState::default() };
    let start = |state: &GroupState, applied| {
        Group::new(&Config::default(), PeerId(1), &region(), state, Vec::new(), applied, Rng::new(1)).map(|_| ())
    };
    assert!(start(&state, 1).expect_err("committed beyond the log").contains("12"));
    let state = GroupState { commit: 1, ..state };
    assert!(start(&state, 7).expect_err("applied beyond the log").contains("applied 7"));
    assert!(start(&state, 0).is_err(), "applied below what the log still holds");
    assert!(start(&state, 1).is_ok());
}

#[test]
fn time_outs_come_from_our_own_generator() {
    let campaign_ticks = |seed| {
        let state = GroupState { term: 1, commit: 1, truncated_index: 1, truncated_term: 1, ..GroupState::default() };
        let group = Group::new(&Config::default(), PeerId(1), &region(), &state, Vec::new(), 1, Rng::new(seed));
        let mut group = group.expect("valid");
        let mut ticks = 0;
        while group.role() == Role::Follower {
            group.tick(true);
            ticks += 1;
        }
        ticks
    };
    let drawn: Vec<usize> = (0..50).map(campaign_ticks).collect();
    assert_eq!(drawn, (0..50).map(campaign_ticks).collect::<Vec<_>>(), "the same seed gives the same timeout");
    assert!(drawn.iter().all(|ticks| (10..20).contains(ticks)));
    assert!(drawn.iter().any(|ticks| ticks != &drawn[0]), "different seeds differ");
}

#[test]
fn a_tick_that_would_begin_an_election_waits_for_leave() {
    let mut group = follower();
    for _ in 0..100 {
        group.tick(false);
    }
    assert_eq!(group.role(), Role::Follower);
    group.tick(true);
    assert_eq!(group.role(), Role::Candidate, "the wait was not forgotten");
}

#[test]
fn a_quorums_time_is_that_of_the_slowest_of_its_fastest() {
    let group = leader();
    let time = |a: u64, b: u64, c: u64| {
        group.quorum_time(|peer| Duration::from_secs([a, b, c][peer.0 as usize - 1])).as_secs()
    };
    assert_eq!((time(9, 0, 0), time(9, 5, 0), time(9, 5, 7), time(3, 3, 3)), (0, 5, 7, 3));
}

/// The appends with entries that a group sends now: to whom, and the indices.
fn appends(group: &mut Group) -> Vec<(PeerId, Vec<u64>)> {
    let mut found = Vec::new();
    while let Some(ready_batch) = group.ready(Duration::ZERO, 0) {
        let sent = ready_batch.messages.into_iter().filter(|outgoing| outgoing.message.has_entries());
        found.extend(sent.map(|sent| (sent.to, sent.message.entries.iter().map(|entry| entry.index).collect())));
        group.persisted(ready_batch.number);
    }
    found
}

#[test]
fn a_follower_gets_evicted_entries_when_they_were_read_and_only_those_of_the_log() {
    let mut group = leader();
    appends(&mut group);
    group.applied(5);
    group.evict(5, usize::MAX);
    // A follower's log ends at 2.
    let refusal =
        RaftMessage { kind: 4, term: 4, index: 9, reject: true, reject_hint: 2, log_term: 2, ..RaftMessage::default() };
    group.step(PeerId(2), refusal, &region(), Duration::ZERO);
    assert_eq!(appends(&mut group), [], "they are not there");
    assert_eq!(group.take_entries_wanted().into_iter().collect::<Vec<_>>(), [3]);
    assert_eq!(group.followers_at(3).collect::<Vec<_>>(), [PeerId(2)]);
    let (indices, _) = group.evicted_from(3, 1 << 20).expect("it is evicted");
    assert_eq!(indices, 3..6);
    let read = |indices: std::ops::Range<u64>, term: u64| {
        indices.map(|index| entry_from_wire(entry(index, term)).expect("valid")).collect::<Vec<_>>()
    };
    assert!(group.entries_fetched(3, read(3..6, 3)).is_err(), "those of another term");
    assert!(group.entries_fetched(3, read(4..6, 2)).is_err(), "those of other indices");
    assert_eq!(appends(&mut group), []);
    assert_eq!(group.entries_fetched(3, read(3..5, 2)), Ok(()));
    assert_eq!(appends(&mut group), [(PeerId(2), vec![3, 4])]);
    assert_eq!(group.entries_fetched(3, read(3..5, 2)), Ok(()));
    assert_eq!(appends(&mut group), [], "the follower is probed: it has to answer first");
    let answer = RaftMessage { kind: 4, term: 4, index: 4, ..RaftMessage::default() };
    group.step(PeerId(2), answer, &region(), Duration::ZERO);
    assert_eq!(group.take_entries_wanted().into_iter().collect::<Vec<_>>(), [5]);
    group.truncate(5);
    assert_eq!(group.entries_fetched(5, read(5..6, 2)), Ok(()), "too late");
    assert_eq!(appends(&mut group), []);
}
