use super::*;
use crate::test_view::MapView;
use crate::{
    AllStores, AllocateIds, Cluster, Command, Epoch, FIRST_ID, GcSafePoint, PENDING_CALLS_MAX, Peer, Region,
    RegionByKey, Store, StoreHeartbeat, Timestamps, TimestampsGranted, UpdateGcSafePoint, bootstrap,
};
use std::time::Duration;

const START_MS: u64 = 1_800_000_000_000;

fn at(elapsed_ms: u64) -> Now {
    Now { monotonic: Duration::from_millis(elapsed_ms), wall_ms: START_MS + elapsed_ms }
}

fn store(id: u64) -> Store {
    Store { id, address: format!("n{id}:20160"), ..Store::default() }
}

fn region(id: u64, system: bool) -> Region {
    let peer = |store_id| Peer { id: id * 1000 + store_id, store_id, role: 0 };
    let epoch = Epoch { conf_ver: 1, version: 1 };
    Region { id, epoch, peers: vec![peer(1), peer(2)], system, ..Region::default() }
}

fn state() -> MapView {
    let mut state = MapView::default();
    state.apply(&bootstrap(&[store(1), store(2), store(3)], &[region(1, true), region(2, false)]));
    state
}

#[test]
fn a_new_leader_begins_at_its_minimums_whatever_it_finds() {
    let mut placement = Placement::new(Config::new(77, 1));
    placement.begin_above(START_MS + 60_000, FIRST_ID + 5_000);
    placement.lead(&state(), at(0)).unwrap();
    let mut bench = Bench { placement, state: state(), replies: Vec::new(), writes: Vec::new() };
    bench.drain();
    bench.call(1, Command::Timestamps(Timestamps { count: 1 }), 1);
    assert!(bench.replies.is_empty(), "not before a bound above the minimum is durable");
    bench.finish(true, 2);
    let (_, Ok(Outcome::Timestamps(TimestampsGranted { physical_ms, .. }))) = bench.reply() else {
        panic!("it is granted")
    };
    assert!(physical_ms >= START_MS + 60_000);
    assert!(crate::bounds(&bench.state).unwrap().timestamp_ms > physical_ms);
    bench.call(2, Command::AllocateIds(AllocateIds { count: 1 }), 3);
    bench.finish(true, 4);
    let (_, Ok(Outcome::Ids(granted))) = bench.reply() else { panic!("it is granted") };
    assert!(granted.first >= FIRST_ID + 5_000);
}

/// A leader, the replicated state, and what it has put out so far.
struct Bench {
    placement: Placement,
    state: MapView,
    replies: Vec<(u64, std::result::Result<Outcome, Refusal>)>,
    writes: Vec<(WriteId, WriteBatch)>,
}

impl Bench {
    fn new(state: MapView) -> Bench {
        let mut placement = Placement::new(Config::new(77, 1));
        placement.lead(&state, at(0)).unwrap();
        let mut bench = Bench { placement, state, replies: Vec::new(), writes: Vec::new() };
        bench.drain();
        bench
    }

    /// A leader with its first window open.
    fn ready() -> Bench {
        let mut bench = Bench::new(state());
        bench.finish(true, 0);
        bench
    }

    fn drain(&mut self) {
        for output in self.placement.poll() {
            match output {
                Output::Reply { id, response } => self.replies.push((id.0, response.into_result())),
                Output::Write { id, batch } => self.writes.push((id, batch)),
            }
        }
    }

    fn call(&mut self, id: u64, command: Command, now_ms: u64) {
        self.placement.call(CallId(id), command.into(), at(now_ms));
        self.drain();
    }

    fn finish(&mut self, ok: bool, now_ms: u64) {
        let (id, batch) = self.writes.remove(0);
        if ok {
            self.state.apply(&batch);
        }
        self.placement.written(id, ok, at(now_ms));
        self.drain();
    }

    fn reply(&mut self) -> (u64, std::result::Result<Outcome, Refusal>) {
        assert_eq!(self.replies.len(), 1, "{:?}", self.replies);
        self.replies.remove(0)
    }

    fn refusal(&mut self) -> RefusalCode {
        self.reply().1.unwrap_err().code()
    }
}

fn timestamps(count: u32) -> Command {
    Command::Timestamps(Timestamps { count })
}

fn granted(outcome: Outcome) -> TimestampsGranted {
    match outcome {
        Outcome::Timestamps(granted) => granted,
        other => panic!("timestamps expected, got {other:?}"),
    }
}

#[test]
fn a_node_that_does_not_lead_refuses() {
    let mut placement = Placement::new(Config::new(77, 1));
    placement.call(CallId(5), timestamps(1).into(), at(0));
    let Some(Output::Reply { id: CallId(5), response }) = placement.poll().pop() else { panic!("no reply") };
    assert_eq!(response.into_result().unwrap_err().code(), RefusalCode::NotLeader);
}

#[test]
fn a_cluster_without_state_is_not_bootstrapped_and_nothing_is_written() {
    let mut bench = Bench::new(MapView::default());
    bench.call(1, timestamps(1), 0);
    assert_eq!(bench.refusal(), RefusalCode::NotBootstrapped);
    assert!(bench.writes.is_empty());
}

#[test]
fn the_first_call_waits_for_the_window_and_later_ones_do_not() {
    let mut bench = Bench::new(state());
    assert_eq!(bench.writes.len(), 1, "a new leader opens its window unasked");
    bench.call(1, timestamps(1), 0);
    assert!(bench.replies.is_empty());
    bench.finish(true, 5);
    let (id, outcome) = bench.reply();
    assert_eq!((id, granted(outcome.unwrap()).physical_ms), (1, START_MS + 5));
    bench.call(2, timestamps(10), 6);
    assert_eq!(granted(bench.reply().1.unwrap()).count, 10);
    assert!(bench.writes.is_empty(), "most of the window is left");
}

#[test]
fn the_window_is_extended_under_load_only() {
    let mut bench = Bench::ready();
    bench.placement.tick(at(2_000));
    bench.drain();
    assert!(bench.writes.is_empty(), "an idle cluster writes nothing");
    bench.call(1, timestamps(1), 2_000);
    bench.reply().1.unwrap();
    assert_eq!(bench.writes.len(), 1, "extended before a call has to wait");
    bench.call(2, timestamps(1), 2_500);
    bench.reply().1.unwrap();
    assert_eq!(bench.writes.len(), 1, "one write at a time");
}

#[test]
fn a_failed_write_is_tried_again_at_the_next_tick() {
    let mut bench = Bench::new(state());
    bench.call(1, timestamps(1), 0);
    bench.finish(false, 1);
    assert!(bench.writes.is_empty(), "no hot loop");
    bench.placement.tick(at(100));
    bench.drain();
    bench.finish(true, 101);
    bench.reply().1.unwrap();
}

#[test]
fn stepping_down_answers_everybody_once() {
    let mut bench = Bench::new(state());
    bench.call(1, timestamps(1), 0);
    bench.call(2, Command::AllocateIds(AllocateIds { count: 1 }), 0);
    bench.call(3, Command::UpdateGcSafePoint(UpdateGcSafePoint { safe_point: 9 }), 0);
    bench.placement.step_down();
    bench.drain();
    let mut answered: Vec<u64> = bench.replies.iter().map(|(id, _)| *id).collect();
    answered.sort();
    assert_eq!(answered, [1, 2, 3]);
    assert!(bench.replies.iter().all(|(_, r)| r.as_ref().unwrap_err().code() == RefusalCode::NotLeader));
    bench.replies.clear();
    bench.finish(true, 10);
    assert!(bench.replies.is_empty(), "a late report on a write of the old leadership");
    assert!(!bench.placement.is_leader());
}

#[test]
fn ids_are_reserved_in_batches() {
    let mut bench = Bench::ready();
    let ids = |count| Command::AllocateIds(AllocateIds { count });
    bench.call(1, ids(2), 0);
    bench.finish(true, 0);
    let (_, outcome) = bench.reply();
    assert!(matches!(outcome.unwrap(), Outcome::Ids(ids) if ids.first == FIRST_ID && ids.count == 2));
    bench.call(2, ids(1_000), 0);
    let (_, outcome) = bench.reply();
    assert!(matches!(outcome.unwrap(), Outcome::Ids(ids) if ids.first == FIRST_ID + 2));
}

#[test]
fn counts_outside_their_range_are_refused_with_both_named() {
    let mut bench = Bench::ready();
    for command in [timestamps(0), timestamps(1 << 18), Command::AllocateIds(AllocateIds { count: 0 })] {
        bench.call(1, command, 0);
        let refusal = bench.reply().1.unwrap_err();
        assert_eq!(refusal.code(), RefusalCode::Invalid);
        assert!(refusal.message.contains("the count of"), "{refusal}");
    }
}

#[test]
fn the_safe_point_only_grows_and_is_durable_before_the_answer() {
    let mut bench = Bench::ready();
    let update = |safe_point| Command::UpdateGcSafePoint(UpdateGcSafePoint { safe_point });
    bench.call(1, update(50), 0);
    bench.call(2, Command::GcSafePoint(GcSafePoint {}), 0);
    let (id, outcome) = bench.reply();
    assert_eq!(id, 2);
    assert!(matches!(outcome.unwrap(), Outcome::SafePoint(p) if p.safe_point == 0), "not durable yet");
    bench.finish(true, 1);
    assert!(matches!(bench.reply(), (1, Ok(Outcome::SafePoint(p))) if p.safe_point == 50));
    bench.call(3, update(40), 1);
    assert!(matches!(bench.reply(), (3, Ok(Outcome::SafePoint(p))) if p.safe_point == 50));
    bench.call(4, update(u64::MAX), 1);
    assert_eq!(bench.refusal(), RefusalCode::Invalid);
}

#[test]
fn store_records_are_written_at_a_bounded_rate() {
    let mut bench = Bench::ready();
    let mut writes = 0;
    for ms in 0..3_000 {
        let store = Store { id: 3, address: format!("flapping:{ms}"), ..Store::default() };
        bench.call(ms, Command::StoreHeartbeat(StoreHeartbeat { store, ..StoreHeartbeat::default() }), ms);
        bench.reply().1.unwrap();
        while !bench.writes.is_empty() {
            writes += 1;
            bench.finish(true, ms);
        }
    }
    assert_eq!(writes, 3, "one per second");
    let mut next = Placement::new(Config::new(77, 2));
    next.lead(&bench.state, at(0)).unwrap();
    next.call(CallId(1), Command::AllStores(AllStores {}).into(), at(0));
    let reply = next.poll().into_iter().find_map(|o| match o {
        Output::Reply { response, .. } => Some(response.into_result().unwrap()),
        Output::Write { .. } => None,
    });
    let Some(Outcome::Stores(list)) = reply else { panic!("{reply:?}") };
    assert_eq!(list.stores[2].store.address, "flapping:2000", "the last one written");
}

#[test]
fn a_new_leader_routes_and_names_the_members_at_once() {
    let mut bench = Bench::ready();
    bench.call(1, Command::RegionByKey(RegionByKey { key: "k".into() }), 0);
    assert!(matches!(bench.reply().1.unwrap(), Outcome::Region(info) if info.region.id == 2));
    bench.call(2, Command::Cluster(Cluster {}), 0);
    let Outcome::Cluster(cluster) = bench.reply().1.unwrap() else { panic!("cluster expected") };
    assert_eq!((cluster.cluster_id, cluster.leader_store_id), (77, 1));
    assert_eq!(cluster.members.iter().map(|m| m.store.id).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((cluster.region_count, cluster.store_count), (2, 3));
}

#[test]
fn an_unknown_command_is_refused() {
    let mut bench = Bench::ready();
    bench.placement.call(CallId(1), Request { command: None }, at(0));
    bench.drain();
    assert_eq!(bench.refusal(), RefusalCode::Unsupported);
}

#[test]
fn waiting_calls_are_bounded() {
    let mut bench = Bench::new(state());
    for id in 0..PENDING_CALLS_MAX as u64 {
        bench.call(id, timestamps(1), 0);
    }
    assert!(bench.replies.is_empty());
    bench.call(u64::MAX, timestamps(1), 0);
    assert_eq!(bench.refusal(), RefusalCode::Busy);
    bench.finish(true, 1);
    assert_eq!(bench.replies.len(), PENDING_CALLS_MAX);
}

#[test]
fn a_corrupt_state_leaves_the_node_a_follower() {
    let mut broken = state();
    broken.0.remove([2].as_slice());
    let mut placement = Placement::new(Config::new(77, 1));
    assert!(placement.lead(&broken, at(0)).is_err());
    assert!(!placement.is_leader());
}

#[test]
fn requests_and_answers_survive_the_wire() {
    use prost::Message;
    let request = Request::from(Command::RegionByKey(RegionByKey { key: vec![0, 255].into() }));
    assert_eq!(Request::decode(request.encode_to_vec().as_slice()).unwrap(), request);
    let response = Response::from(Refusal::new(RefusalCode::UnknownStore, "x"));
    assert_eq!(Response::decode(response.encode_to_vec().as_slice()).unwrap(), response);
    // A command of a newer version: tag 99, an empty message.
    assert_eq!(Request::decode([0x9a, 0x06, 0x00].as_slice()).unwrap().command, None);
}

#[test]
fn keyspaces_and_the_external_timestamp_survive_a_change_of_leader() {
    use crate::{CreateKeyspace, ExternalTimestamp, Keyspaces, SetExternalTimestamp};
    let mut bench = Bench::ready();
    let timestamp = (START_MS - 1) << 18;
    let create = || Command::CreateKeyspace(CreateKeyspace { name: "raft".into(), nonce: 7 });
    bench.call(1, create(), 1);
    bench.call(2, Command::SetExternalTimestamp(SetExternalTimestamp { timestamp }), 1);
    assert!(bench.replies.is_empty(), "not before they are durable");
    while !bench.writes.is_empty() {
        bench.finish(true, 2);
    }
    assert!(bench.replies.iter().all(|(_, reply)| reply.is_ok()) && bench.replies.len() == 2, "{:?}", bench.replies);

    let mut bench = Bench::new(bench.state);
    bench.call(3, Command::Keyspaces(Keyspaces::default()), 3);
    let (_, Ok(Outcome::Keyspaces(list))) = bench.reply() else { panic!("a list") };
    let names: Vec<_> = list.keyspaces.iter().map(|found| (found.id, found.name.as_str())).collect();
    assert_eq!(names, [(0, "DEFAULT"), (1, "raft")]);
    bench.call(4, Command::ExternalTimestamp(ExternalTimestamp {}), 3);
    let (_, Ok(Outcome::ExternalTimestamp(set))) = bench.reply() else { panic!("a timestamp") };
    assert_eq!(set.timestamp, timestamp);
    // The same calls again, as after answers that were lost with the leader: answered before any write.
    bench.call(6, create(), 3);
    let (_, Ok(Outcome::Keyspace(found))) = bench.reply() else { panic!("the keyspace") };
    assert_eq!(found.id, 1);
    bench.call(7, Command::SetExternalTimestamp(SetExternalTimestamp { timestamp }), 3);
    assert!(matches!(bench.reply(), (_, Ok(Outcome::ExternalTimestamp(_)))));
    for refused in [timestamp - 1, (START_MS + 60_000) << 18] {
        bench.call(5, Command::SetExternalTimestamp(SetExternalTimestamp { timestamp: refused }), 3);
        assert_eq!(bench.refusal(), RefusalCode::Invalid);
    }
}

/// The clock of the leader that set it may have been ahead of this one's.
#[test]
fn the_external_timestamp_that_is_set_is_not_refused_as_one_of_the_future() {
    use crate::SetExternalTimestamp;
    let mut bench = Bench::ready();
    let timestamp = (START_MS + 5_000) << 18;
    let set = || Command::SetExternalTimestamp(SetExternalTimestamp { timestamp });
    let mut batch = WriteBatch::new();
    crate::state::put_external_timestamp(&mut batch, timestamp);
    bench.state.apply(&batch);
    let mut bench = Bench::new(bench.state);
    bench.call(1, set(), 1);
    let (_, Ok(Outcome::ExternalTimestamp(found))) = bench.reply() else { panic!("a timestamp") };
    assert_eq!(found.timestamp, timestamp);
}
