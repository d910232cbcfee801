//! The guarantees of the timestamp oracle and of the ids, under everything that can happen between nodes: any node may
//! become leader at any time, writes are lost or take effect without a report, clocks of nodes differ and jump.

use crate::test_view::MapView;
use crate::{
    AllocateIds, CallId, Command, Config, CreateKeyspace, Epoch, Keyspaces, Now, Outcome, Output, Peer, Placement,
    RefusalCode, Region, Store, Timestamps, UpdateGcSafePoint, WriteId, bootstrap,
};
use kontiki_engine::WriteBatch;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const NODES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Timestamps(u32),
    Ids(u32),
    SafePoint(u64),
    Keyspace(u8),
    Tick,
    /// Time passes on every node.
    Pass(u64),
    /// A node's wall clock jumps by so many milliseconds.
    Jump(usize, i64),
    /// The write in flight is applied and reported.
    Applied,
    /// It is reported as unknown; it may take effect later.
    Unknown {
        takes_effect: bool,
    },
    /// Another leader. The write in flight takes effect first, or never.
    Lead {
        node: usize,
        takes_effect: bool,
    },
    Abdicate,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop_oneof![1u32..5, Just(262_143u32), 1u32..200_000].prop_map(Step::Timestamps),
        3 => prop_oneof![1u32..5, 900u32..2_000].prop_map(Step::Ids),
        1 => (0u64..1_000).prop_map(Step::SafePoint),
        2 => (0u8..6).prop_map(Step::Keyspace),
        3 => Just(Step::Tick),
        4 => prop_oneof![0u64..20, 500u64..9_000].prop_map(Step::Pass),
        1 => (0..NODES, prop_oneof![-20_000i64..20_000, -100_000_000i64..100_000_000]).prop_map(|(n, d)| Step::Jump(n, d)),
        6 => Just(Step::Applied),
        2 => any::<bool>().prop_map(|takes_effect| Step::Unknown { takes_effect }),
        2 => (0..NODES, any::<bool>()).prop_map(|(node, takes_effect)| Step::Lead { node, takes_effect }),
        1 => Just(Step::Abdicate),
    ]
}

struct World {
    nodes: Vec<Placement>,
    wall_ms: [i64; NODES],
    elapsed_ms: u64,
    leader: Option<usize>,
    /// What every replica has applied.
    state: MapView,
    in_flight: Option<(WriteId, WriteBatch)>,
    /// Reported as unknown, will take effect before anything written later.
    limbo: Vec<WriteBatch>,
    calls: u64,
    unanswered: BTreeSet<u64>,
    last_timestamp: u64,
    last_id: u64,
    last_safe_point: u64,
    /// Those that were acknowledged.
    keyspaces: BTreeMap<String, u32>,
}

impl World {
    fn new() -> World {
        let peers = (1..=3).map(|store_id| Peer { id: store_id, store_id, role: 0 }).collect();
        let epoch = Epoch { conf_ver: 1, version: 1 };
        let region = Region { id: 1, epoch, peers, system: true, ..Region::default() };
        let stores = [1, 2, 3].map(|id| Store { id, address: format!("n{id}:1"), ..Store::default() });
        let mut state = MapView::default();
        state.apply(&bootstrap(&stores, &[region]));
        World {
            nodes: (1..=NODES as u64).map(|id| Placement::new(Config::new(9, id))).collect(),
            wall_ms: [1_800_000_000_000, 1_800_000_004_000, 1_799_999_000_000],
            elapsed_ms: 0,
            leader: None,
            state,
            in_flight: None,
            limbo: Vec::new(),
            calls: 0,
            unanswered: BTreeSet::new(),
            last_timestamp: 0,
            last_id: 0,
            last_safe_point: 0,
            keyspaces: BTreeMap::new(),
        }
    }

    fn now(&self, node: usize) -> Now {
        Now { monotonic: Duration::from_millis(self.elapsed_ms), wall_ms: self.wall_ms[node] as u64 }
    }

    fn call(&mut self, command: Command) {
        self.calls += 1;
        self.unanswered.insert(self.calls);
        let node = self.leader.unwrap_or(0);
        let now = self.now(node);
        self.nodes[node].call(CallId(self.calls), command.into(), now);
        self.drain(node);
    }

    fn drain(&mut self, node: usize) {
        for output in self.nodes[node].poll() {
            match output {
                Output::Write { id, batch } => {
                    assert!(self.in_flight.is_none(), "one write at a time");
                    assert_eq!(self.leader, Some(node), "only the leader writes");
                    self.in_flight = Some((id, batch));
                }
                Output::Reply { id, response } => {
                    assert!(self.unanswered.remove(&id.0), "call {} is answered once", id.0);
                    match response.into_result() {
                        Ok(outcome) => self.check(node, outcome),
                        Err(refusal) => {
                            let is_expected = match refusal.code() {
                                RefusalCode::NotLeader => true,
                                // Only keyspaces are in each other's way.
                                RefusalCode::Busy | RefusalCode::KeyspaceExists => refusal.message.contains("keyspace"),
                                _ => false,
                            };
                            assert!(is_expected, "{refusal}");
                        }
                    }
                }
            }
        }
    }

    fn check(&mut self, node: usize, outcome: Outcome) {
        assert_eq!(self.leader, Some(node), "only the leader grants");
        match outcome {
            Outcome::Timestamps(granted) => {
                assert!(granted.first() > self.last_timestamp, "{granted:?} after {}", self.last_timestamp);
                assert!(granted.logical < 1 << 18 && granted.logical + 1 >= u64::from(granted.count));
                self.last_timestamp = granted.last();
            }
            Outcome::Ids(granted) => {
                assert!(granted.first > self.last_id, "{granted:?} after {}", self.last_id);
                self.last_id = granted.first + u64::from(granted.count) - 1;
            }
            Outcome::SafePoint(point) => {
                assert!(point.safe_point >= self.last_safe_point, "{point:?} after {}", self.last_safe_point);
                self.last_safe_point = point.safe_point;
            }
            Outcome::Keyspace(created) => {
                assert!(!self.keyspaces.values().any(|id| *id == created.id), "{created:?} has an id that was given");
                assert!(self.keyspaces.insert(created.name, created.id).is_none(), "a name is given once");
            }
            Outcome::Keyspaces(list) => {
                let found: BTreeMap<_, _> = list.keyspaces.into_iter().map(|found| (found.name, found.id)).collect();
                for (name, id) in &self.keyspaces {
                    assert_eq!(found.get(name), Some(id), "keyspace {name} was acknowledged");
                }
            }
            other => panic!("no call asked for {other:?}"),
        }
    }

    fn settle_limbo(&mut self) {
        for batch in std::mem::take(&mut self.limbo) {
            self.state.apply(&batch);
        }
    }

    fn report(&mut self, ok: bool, takes_effect: bool) {
        let (Some(node), Some((id, batch))) = (self.leader, self.in_flight.take()) else { return };
        if takes_effect {
            self.limbo.push(batch);
        }
        if ok {
            self.settle_limbo();
        }
        let now = self.now(node);
        self.nodes[node].written(id, ok, now);
        self.drain(node);
    }

    fn step_down(&mut self, takes_effect: bool) {
        if let Some(node) = self.leader {
            self.nodes[node].step_down();
            self.drain(node);
            self.leader = None;
        }
        if let Some((_, batch)) = self.in_flight.take()
            && takes_effect
        {
            self.limbo.push(batch);
        }
        assert!(self.unanswered.is_empty(), "every waiting call was answered");
    }

    fn lead(&mut self, node: usize, takes_effect: bool) {
        self.step_down(takes_effect);
        self.settle_limbo();
        self.leader = Some(node);
        let now = self.now(node);
        self.nodes[node].lead(&self.state, now).unwrap();
        self.drain(node);
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Timestamps(count) => self.call(Command::Timestamps(Timestamps { count })),
            Step::Ids(count) => self.call(Command::AllocateIds(AllocateIds { count })),
            Step::SafePoint(safe_point) => self.call(Command::UpdateGcSafePoint(UpdateGcSafePoint { safe_point })),
            Step::Keyspace(number) => {
                self.call(Command::CreateKeyspace(CreateKeyspace { name: format!("k{number}"), nonce: 0 }));
                self.call(Command::Keyspaces(Keyspaces::default()));
            }
            Step::Tick => {
                for node in 0..NODES {
                    let now = self.now(node);
                    self.nodes[node].tick(now);
                    self.drain(node);
                }
            }
            Step::Pass(ms) => {
                self.elapsed_ms += ms;
                for wall_ms in &mut self.wall_ms {
                    *wall_ms += ms as i64;
                }
            }
            Step::Jump(node, by_ms) => self.wall_ms[node] += by_ms,
            Step::Applied => self.report(true, true),
            Step::Unknown { takes_effect } => self.report(false, takes_effect),
            Step::Lead { node, takes_effect } => self.lead(node, takes_effect),
            Step::Abdicate => self.step_down(false),
        }
    }

    /// With a leader and writes that succeed, every call is answered within a few writes.
    fn heal(&mut self) {
        self.lead(1, true);
        for command in [
            Command::Timestamps(Timestamps { count: 262_143 }),
            Command::AllocateIds(AllocateIds { count: 50_000 }),
            Command::UpdateGcSafePoint(UpdateGcSafePoint { safe_point: 1_001 }),
            Command::CreateKeyspace(CreateKeyspace { name: "last".into(), nonce: 0 }),
        ] {
            self.call(command);
        }
        for _ in 0..4 {
            self.report(true, true);
        }
        assert!(self.unanswered.is_empty(), "calls {:?} wait forever", self.unanswered);
        assert_eq!(self.last_safe_point, 1_001);
        self.call(Command::Keyspaces(Keyspaces::default()));
        assert!(self.keyspaces.contains_key("last"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nothing_is_handed_out_twice_or_backward(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        world.lead(0, false);
        for step in steps {
            world.run(step);
        }
        world.heal();
    }
}
