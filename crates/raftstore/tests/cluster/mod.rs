//! A cluster of stores in one thread, from one seed: clocks that drift, disks that lose what is not synced, a network
//! that loses, duplicates, delays, reorders and partitions. Everything it checks after each step is in `check.rs`.

pub mod check;
pub mod disk;
pub mod families;
pub mod node;
pub mod view;

use bytes::Bytes;
use check::Checker;
use kontiki_engine::{View, WriteBatch};
use kontiki_env::rng::Rng;
use kontiki_raftstore::command::{Action, Command, SplitChild};
use kontiki_raftstore::{
    Answer, Config, Epoch, Event, MemberChange, Peer, PeerId, PeerRole, ReadRefusal, Region, RegionId, RegionStatus,
    RoleChange, Space, StoreId, Ticket, meta, replica_id,
};
use node::{Job, Node};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const REGION: RegionId = RegionId(2);
pub const EPOCH: Epoch = Epoch { conf_version: 1, version: 1 };
/// Time between two schedulings of a node.
pub const STEP: Duration = Duration::from_millis(10);

/// The failure rates of the network, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub struct NetworkFaults {
    pub loss: u64,
    pub duplication: u64,
    pub delay_ms_max: u64,
    /// No snapshot arrives.
    pub snapshots_fail: bool,
    /// Every snapshot that arrives does so once more within a second.
    pub snapshots_repeat: bool,
}

/// What a ticket is for.
struct Asked {
    region: RegionId,
    written: Option<(Vec<u8>, u64)>,
}

pub struct Cluster {
    pub now: Duration,
    pub rng: Rng,
    pub config: Config,
    pub nodes: BTreeMap<StoreId, Node>,
    /// One-way links that are cut.
    pub cut: BTreeSet<(StoreId, StoreId)>,
    pub network_faults: NetworkFaults,
    messages: Vec<(Duration, StoreId, StoreId, Bytes)>,
    /// Snapshots that arrive once more.
    repeated_snapshots: Vec<(Duration, StoreId, Bytes, Vec<u8>)>,
    /// How many did.
    pub snapshots_repeated: usize,
    next_ticket: u64,
    /// Of each ticket; of a put also its key and the version of its region.
    asked: BTreeMap<Ticket, Asked>,
    pub checker: Checker,
    pub answers: BTreeMap<Ticket, Answer>,
    /// The oracle: the last timestamp that was handed out, and how many stores asked for.
    pub last_ts: u64,
    pub timestamps_asked: usize,
    /// Messages to this store are recorded.
    recorded: Option<(StoreId, Vec<Bytes>)>,
}

pub fn region(stores: u64) -> Region {
    Region {
        id: REGION,
        start_key: Bytes::new(),
        end_key: Bytes::from_static(b"y"),
        epoch: EPOCH,
        peers: (1..=stores).map(|store| Peer { id: PeerId(2000 + store), store: StoreId(store) }).collect(),
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    }
}

pub fn small_config() -> Config {
    Config {
        truncate_ticks: 3,
        truncate_entries_min: 8,
        snapshot_idle_ticks: 50,
        hibernate_ticks: 0,
        gather_round_max: Duration::ZERO,
        announce_commits: true,
        ..Config::default()
    }
}

impl Cluster {
    /// `stores` stores with one region on all of them, all started.
    pub fn new(seed: u64, stores: u64) -> Cluster {
        Cluster::with_config(seed, stores, small_config())
    }

    pub fn with_config(seed: u64, stores: u64, config: Config) -> Cluster {
        Cluster::with_members(seed, stores, stores, config)
    }

    /// `stores` stores with one region on the first `members` of them, all started.
    pub fn with_members(seed: u64, stores: u64, members: u64, config: Config) -> Cluster {
        let memory_slack =
            config.append_bytes_max + config.proposal_bytes_max + config.applying_bytes_max + config.apply_bytes_max;
        let rng = Rng::new(seed);
        let regions = [region(members)];
        let mut nodes: BTreeMap<_, _> =
            (1..=stores).map(|id| (StoreId(id), Node::new(StoreId(id), &regions))).collect();
        for node in nodes.values_mut() {
            node.start(&config, &rng);
        }
        Cluster {
            now: Duration::ZERO,
            rng: rng.child("world"),
            config,
            nodes,
            cut: BTreeSet::new(),
            network_faults: NetworkFaults { delay_ms_max: 5, ..NetworkFaults::default() },
            messages: Vec::new(),
            repeated_snapshots: Vec::new(),
            snapshots_repeated: 0,
            next_ticket: 0,
            asked: BTreeMap::new(),
            checker: Checker::new(memory_slack),
            answers: BTreeMap::new(),
            last_ts: 0,
            timestamps_asked: 0,
            recorded: None,
        }
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&StoreId(id)).expect("a store of the cluster")
    }

    pub fn start(&mut self, id: u64) {
        let (config, rng) = (self.config.clone(), self.rng.clone());
        self.node(id).start(&config, &rng);
        self.checker.restarted(StoreId(id));
    }

    /// A crash after which the received snapshot files are lost or damaged. This may happen to at most one store: the
    /// others must have what it lost.
    pub fn crash_and_lose_files(&mut self, id: u64) {
        self.crash(id);
        let damaged = self.rng.chance(1, 2);
        let node = self.node(id);
        let lost = node.disk.files.keys().map(|file| file.snapshot.index).max();
        node.lost_through = node.lost_through.max(lost.unwrap_or(0));
        let files = &mut node.disk.files;
        if damaged {
            files.values_mut().filter_map(|bytes| bytes.last_mut()).for_each(|last| *last ^= 1);
        } else {
            files.clear();
        }
    }

    /// A write of the log fails: the store gives its last orders, and crashes.
    pub fn fail_disk(&mut self, id: u64) {
        let orders = self.node(id).store.as_mut().expect("it is up").abdicate();
        self.node(id).outbound = orders;
        self.send_out(StoreId(id));
        self.node(id).crash(0);
        self.collect_answers();
    }

    pub fn crash(&mut self, id: u64) {
        let in_flight = self.node(id).persists.len() as u64;
        let survivors = self.rng.below(in_flight + 1) as usize;
        self.node(id).crash(survivors);
        self.collect_answers();
    }

    /// Records the messages to a store from now on.
    pub fn record(&mut self, store: u64) {
        self.recorded = Some((StoreId(store), Vec::new()));
    }

    /// What was recorded.
    pub fn recorded(&mut self) -> Vec<Bytes> {
        self.recorded.take().map(|(_, messages)| messages).unwrap_or_default()
    }

    /// Cuts both directions between the two sides.
    pub fn partition(&mut self, side: &[u64]) {
        let side: BTreeSet<StoreId> = side.iter().copied().map(StoreId).collect();
        let ids: Vec<StoreId> = self.nodes.keys().copied().collect();
        for a in &ids {
            for b in &ids {
                if side.contains(a) != side.contains(b) {
                    self.cut.insert((*a, *b));
                }
            }
        }
    }

    /// Cuts both directions between two stores.
    pub fn separate(&mut self, a: u64, b: u64) {
        self.cut.extend([(StoreId(a), StoreId(b)), (StoreId(b), StoreId(a))]);
    }

    /// Restores both directions between two stores.
    pub fn join(&mut self, a: u64, b: u64) {
        self.cut.retain(|link| *link != (StoreId(a), StoreId(b)) && *link != (StoreId(b), StoreId(a)));
    }

    pub fn heal(&mut self) {
        self.cut.clear();
    }

    pub fn status(&self, id: u64) -> RegionStatus {
        self.replica(id).expect("the region is here")
    }

    /// The replica on a store that is up, if it has one.
    pub fn replica(&self, id: u64) -> Option<RegionStatus> {
        self.replica_of(REGION, id)
    }

    /// The same, of any region.
    pub fn replica_of(&self, region: RegionId, id: u64) -> Option<RegionStatus> {
        let status = self.nodes[&StoreId(id)].store.as_ref()?.status();
        status.into_iter().find(|status| status.region.id == region)
    }

    /// The one leader that has applied an entry of its own term and holds a lease, or did before it hibernated.
    pub fn leader(&self) -> Option<u64> {
        self.leader_of(REGION)
    }

    /// The same, of any region.
    pub fn leader_of(&self, region: RegionId) -> Option<u64> {
        let holds = |node: &&Node| node.is_up() && node.readers.holds_lease(region, node.local(self.now));
        let leases = self.nodes.values().find(holds).map(|node| node.id.0);
        leases.or_else(|| self.hibernating_leader_of(region))
    }

    fn hibernating_leader_of(&self, region: RegionId) -> Option<u64> {
        let replicas = (1..=self.nodes.len() as u64).filter_map(|id| Some((id, self.replica_of(region, id)?)));
        let leaders = replicas.filter(|(_, status)| status.leads && status.hibernates);
        leaders.max_by_key(|(_, status)| status.term).map(|(id, _)| id)
    }

    /// Every region of which a store that is up has a replica.
    pub fn regions(&self) -> BTreeSet<RegionId> {
        let stores = self.nodes.values().filter_map(|node| node.store.as_ref());
        stores.flat_map(|store| store.status()).map(|status| status.region.id).collect()
    }

    /// The descriptor with this key, in its newest version, of the stores that are up.
    pub fn region_at(&self, key: &[u8]) -> Region {
        let up = || self.nodes.values().filter(|node| node.is_up());
        let replicas = up().filter_map(|node| node.store.as_ref()).flat_map(|store| store.status());
        // A region that is being merged has no replica any more before its range is another one's.
        let published = up().flat_map(|node| node.readers.regions()).map(|(region, _)| region);
        let here = replicas.map(|status| status.region).chain(published).filter(|region| region.contains(key));
        let newest = here.max_by_key(|region| region.epoch.version).expect("every key has a region");
        Region::clone(&newest)
    }

    /// Advances by one step: every node that is not paused is scheduled once, in random order.
    pub fn step(&mut self) {
        self.now += STEP;
        self.deliver();
        self.deliver_again();
        let mut ids: Vec<StoreId> = self.nodes.keys().copied().collect();
        self.rng.shuffle(&mut ids);
        for id in ids {
            let now = self.now;
            let node = self.nodes.get_mut(&id).expect("known");
            if node.is_up() && now >= node.paused_until {
                node.step(now, &mut self.rng);
                if node.fault.is_some() {
                    // A node that stops sends nothing more.
                    self.crash(id.0);
                    continue;
                }
                self.send_out(id);
                self.move_snapshots(id);
                self.hand_out_timestamp(id);
            }
        }
        self.collect_answers();
        self.checker.check(self.now, &self.nodes);
    }

    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step();
        }
    }

    /// Steps until the condition holds; fails after `seconds`.
    #[track_caller]
    pub fn until(&mut self, seconds: u64, what: &str, mut condition: impl FnMut(&mut Cluster) -> bool) {
        let end = self.now + Duration::from_secs(seconds);
        while !condition(self) {
            assert!(self.now < end, "not within {seconds} s: {what}");
            self.step();
        }
    }

    #[track_caller]
    pub fn wait_leader(&mut self) -> u64 {
        self.until(20, "a leader", |cluster| cluster.leader().is_some());
        self.leader().expect("just seen")
    }

    fn deliver(&mut self) {
        let due: Vec<_> = self.messages.extract_if(.., |(at, ..)| *at <= self.now).collect();
        for (_, from, to, bytes) in due {
            let node = self.nodes.get_mut(&to).expect("known");
            if node.is_up() && !self.cut.contains(&(from, to)) {
                node.inbox.push_back(Event::Message(bytes));
            }
        }
    }

    fn deliver_again(&mut self) {
        let now = self.now;
        let due: Vec<_> = self.repeated_snapshots.extract_if(.., |(at, ..)| *at <= now).collect();
        for (_, to, message, bytes) in due {
            let receiver = self.nodes.get_mut(&to).expect("known");
            if receiver.is_up() {
                receiver.receive_snapshot(message, bytes);
                self.snapshots_repeated += 1;
            }
        }
    }

    /// Removes the messages in flight from one store to another from the network.
    pub fn take_messages(&mut self, from: u64, to: u64) -> Vec<Bytes> {
        let own = |message: &mut (Duration, StoreId, StoreId, Bytes)| (message.1.0, message.2.0) == (from, to);
        self.messages.extract_if(.., own).map(|(.., bytes)| bytes).collect()
    }

    fn send_out(&mut self, from: StoreId) {
        let outbound = std::mem::take(&mut self.nodes.get_mut(&from).expect("known").outbound);
        for (to, bytes) in outbound {
            if let Some((_, recorded)) = self.recorded.as_mut().filter(|(store, _)| *store == to) {
                recorded.push(bytes.clone());
            }
            if !self.rng.chance(self.network_faults.loss, 100) {
                let copies = if self.rng.chance(self.network_faults.duplication, 100) { 2 } else { 1 };
                for _ in 0..copies {
                    let delay = Duration::from_millis(self.rng.below(self.network_faults.delay_ms_max + 1));
                    self.messages.push((self.now + delay, from, to, bytes.clone()));
                }
            }
        }
    }

    /// A timestamp that was never handed out before.
    pub fn next_ts(&mut self) -> u64 {
        self.last_ts += 1;
        self.last_ts
    }

    fn hand_out_timestamp(&mut self, id: StoreId) {
        if std::mem::take(&mut self.nodes.get_mut(&id).expect("known").wants_timestamp) {
            self.timestamps_asked += 1;
            let ts = self.next_ts();
            self.node(id.0).inbox.push_back(Event::Timestamp { ts });
        }
    }

    /// Puts messages that were taken back into the network, to arrive at once.
    pub fn bring(&mut self, from: u64, to: u64, messages: Vec<Bytes>) {
        let now = self.now;
        self.messages.extend(messages.into_iter().map(|bytes| (now, StoreId(from), StoreId(to), bytes)));
    }

    fn move_snapshots(&mut self, from: StoreId) {
        let now = self.now;
        let jobs = &mut self.nodes.get_mut(&from).expect("known").jobs;
        let sends: Vec<_> = jobs.extract_if(.., |(due, job)| matches!(job, Job::Send { .. }) && *due <= now).collect();
        for (_, job) in sends {
            let Job::Send { region, to, message, view, bytes } = job else { unreachable!("filtered") };
            let reachable = !self.cut.contains(&(from, to)) && !self.rng.chance(self.network_faults.loss, 100);
            let receiver = self.nodes.get_mut(&to).expect("known");
            let ok = reachable && receiver.is_up() && !self.network_faults.snapshots_fail;
            if ok && self.network_faults.snapshots_repeat {
                let again = now + Duration::from_millis(self.rng.below(1_000));
                self.repeated_snapshots.push((again, to, message.clone(), bytes.clone()));
            }
            if ok {
                receiver.receive_snapshot(message, bytes);
            }
            let sender = self.nodes.get_mut(&from).expect("known");
            sender.inbox.push_back(Event::SnapshotSent { region, to, view, ok });
        }
    }

    fn collect_answers(&mut self) {
        for node in self.nodes.values_mut() {
            for (ticket, answer) in node.answers.drain(..) {
                let asked = self.asked.remove(&ticket);
                let region = asked.as_ref().map_or(REGION, |asked| asked.region);
                self.checker.answered(region, ticket, &answer);
                if let (Answer::Ok { .. }, Some((key, version))) = (&answer, asked.and_then(|asked| asked.written)) {
                    self.checker.written(&key, version);
                }
                assert!(self.answers.insert(ticket, answer).is_none(), "{ticket:?} is answered once");
            }
        }
    }

    /// Proposes a put at a store.
    pub fn put(&mut self, at: u64, key: &[u8], value: &[u8]) -> Ticket {
        let mut batch = WriteBatch::new();
        batch.put(families::DEFAULT, key, value);
        self.propose(at, EPOCH, batch)
    }

    pub fn propose(&mut self, at: u64, epoch: Epoch, batch: WriteBatch) -> Ticket {
        self.propose_in(at, REGION, epoch, batch)
    }

    /// Proposes a batch with one key in a region.
    pub fn propose_in(&mut self, at: u64, region: RegionId, epoch: Epoch, batch: WriteBatch) -> Ticket {
        let written = batch.ops().next().map(|op| (op.key().to_vec(), epoch.version));
        let ticket = self.ticket(region, written);
        self.node(at).ask(ticket, Event::Propose { region, epoch, batch, ticket });
        ticket
    }

    /// A ticket of a request other than a write.
    pub fn new_ticket(&mut self) -> Ticket {
        self.ticket(REGION, None)
    }

    /// A ticket of a read, whose answer has to be at or above what is acknowledged now.
    pub fn new_read(&mut self) -> Ticket {
        let ticket = self.ticket(REGION, None);
        self.checker.read_begins(REGION, ticket);
        ticket
    }

    fn ticket(&mut self, region: RegionId, written: Option<(Vec<u8>, u64)>) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.asked.insert(ticket, Asked { region, written });
        ticket
    }

    /// Proposes a command at a store.
    pub fn command(&mut self, at: u64, region: RegionId, command: Command) -> Ticket {
        let ticket = self.ticket(region, None);
        self.node(at).ask(ticket, Event::Command { region, command, ticket });
        ticket
    }

    /// Proposes a split of a region, as it is in `region`, at these keys, at a store.
    pub fn split(&mut self, at: u64, region: &Region, children: &[(RegionId, &[u8])]) -> Ticket {
        let child = |(id, key): &(RegionId, &[u8])| SplitChild {
            start_key: Bytes::copy_from_slice(key),
            id: *id,
            peers: region.peers.iter().map(|peer| replica_id(peer.store.0, *id)).collect(),
        };
        let action = Action::Split(children.iter().map(child).collect());
        self.command(at, region.id, Command { epoch: region.epoch, action })
    }

    /// Proposes a merge of two regions, as they are in these descriptors, at a store.
    pub fn merge(&mut self, at: u64, source: &Region, target: &Region) -> Ticket {
        let action = Action::PrepareMerge { target: target.clone(), replicated_index: 0 };
        self.command(at, source.id, Command { epoch: source.epoch, action })
    }

    /// Merges the region of the first key into that of the second until that has happened.
    #[track_caller]
    pub fn merge_surely(&mut self, source: &[u8], target: &[u8]) {
        let mut last = String::new();
        for _ in 0..60 {
            let (source, target) = (self.region_at(source), self.region_at(target));
            if source.id == target.id {
                return;
            }
            if let Some(leader) = self.leader_of(source.id) {
                let ticket = self.merge(leader, &source, &target);
                self.run(Duration::from_millis(200));
                last = format!("{:?}", self.answers.get(&ticket));
            }
            self.run(Duration::from_millis(100));
        }
        panic!("no merge succeeds: {last}");
    }

    /// Splits at the leader until that has happened: the region that has the first child's key becomes several.
    #[track_caller]
    pub fn split_surely(&mut self, children: &[(RegionId, &[u8])]) {
        for _ in 0..40 {
            let region = self.region_at(children[0].1);
            if region.id == children[0].0 {
                return;
            }
            if let Some(leader) = self.leader_of(region.id) {
                self.split(leader, &region, children);
            }
            self.run(Duration::from_millis(100));
        }
        panic!("no split succeeds");
    }

    /// Puts a key in the region that has it, at that one's leader, until it succeeds.
    #[track_caller]
    pub fn put_anywhere(&mut self, key: &[u8], value: &[u8]) {
        for _ in 0..200 {
            let region = self.region_at(key);
            if let Some(leader) = self.leader_of(region.id) {
                let mut batch = WriteBatch::new();
                batch.put(families::DEFAULT, key, value);
                let ticket = self.propose_in(leader, region.id, region.epoch, batch);
                self.until(20, "an answer", |cluster| cluster.answers.contains_key(&ticket));
                if matches!(self.answers[&ticket], Answer::Ok { .. }) {
                    return;
                }
            }
            self.run(Duration::from_millis(100));
        }
        let replicas: Vec<_> = (1..=self.nodes.len() as u64)
            .map(|id| (id, self.nodes[&StoreId(id)].store.as_ref().map(|store| store.status())))
            .collect();
        panic!("no put of {key:?} succeeds: {replicas:#?}");
    }

    /// Changes the region's members at the leader until that succeeds, or is found to have happened.
    #[track_caller]
    pub fn change_surely(&mut self, change: MemberChange) {
        let mut last = String::new();
        for _ in 0..40 {
            let leader = self.wait_leader();
            let region = self.status(leader).region;
            if is_done(&change, &region) {
                return;
            }
            let ticket = self.change(leader, region.epoch, change.clone());
            self.run(Duration::from_millis(300));
            last = format!("{:?} at {leader}, whose region is {region:?}", self.answers.get(&ticket));
        }
        panic!("{change:?} does not succeed: {last}");
    }

    /// Proposes a change of the members at a store.
    pub fn change(&mut self, at: u64, epoch: Epoch, change: MemberChange) -> Ticket {
        self.command(at, REGION, Command { epoch, action: Action::ChangeMembers(change) })
    }

    /// Asks for a read barrier at a store.
    pub fn barrier(&mut self, at: u64) -> Ticket {
        self.barrier_in(at, REGION, EPOCH)
    }

    pub fn barrier_in(&mut self, at: u64, region: RegionId, epoch: Epoch) -> Ticket {
        let ticket = self.ticket(region, None);
        self.checker.read_begins(region, ticket);
        self.node(at).ask(ticket, Event::ReadBarrier { region, epoch, ticket });
        ticket
    }

    /// Reads by lease; checks that the view is fresh.
    pub fn lease_read(&mut self, at: u64, key: &[u8]) -> Result<Option<Bytes>, ReadRefusal> {
        self.lease_read_in(at, REGION, EPOCH, key)
    }

    pub fn lease_read_in(
        &mut self,
        at: u64,
        region: RegionId,
        epoch: Epoch,
        key: &[u8],
    ) -> Result<Option<Bytes>, ReadRefusal> {
        let now = self.now;
        let acknowledged = self.checker.acknowledged(region);
        let node = self.node(at);
        let (local, visible) = (node.local(now), node.visible.clone());
        let view = node.readers.read(region, epoch, || local, || visible)?.view;
        let index = meta::applied_index(families::META, &view, region).expect("readable").expect("there");
        self.checker.read_ended(at, (region, epoch.version), key, index, acknowledged);
        Ok(view.get(families::DEFAULT, key).expect("readable"))
    }

    /// Reads by lease, at whichever store has one.
    #[track_caller]
    pub fn lease_read_surely(&mut self, key: &[u8]) -> Option<Bytes> {
        for _ in 0..200 {
            let leader = self.wait_leader();
            if let Ok(value) = self.lease_read(leader, key) {
                return value;
            }
            self.run(Duration::from_millis(100));
        }
        panic!("no read succeeds");
    }

    /// Puts at the leader until it succeeds; returns the index.
    #[track_caller]
    pub fn put_surely(&mut self, key: &[u8], value: &[u8]) -> u64 {
        for _ in 0..20 {
            let leader = self.wait_leader();
            let ticket = self.put(leader, key, value);
            self.until(20, "an answer", |cluster| cluster.answers.contains_key(&ticket));
            if let Answer::Ok { index } = self.answers[&ticket] {
                return index;
            }
            // A transfer of leadership may be in progress: it is given up after an election timeout.
            self.run(Duration::from_millis(200));
        }
        panic!("no put succeeds");
    }

    /// The replicas of a region that are not equal, or have not applied everything, or are those of stores that are not
    /// its members, if there are any.
    fn unequal(&self) -> Option<Vec<Option<RegionStatus>>> {
        let ids = || 1..=self.nodes.len() as u64;
        let replicas = |region| ids().map(|id| self.replica_of(region, id)).collect::<Vec<_>>();
        let are_equal = |replicas: &Vec<Option<RegionStatus>>| {
            let newest = replicas.iter().flatten().max_by_key(|status| status.region.epoch.conf_version);
            let Some(region) = newest.map(|status| status.region.clone()) else { return false };
            let expected = newest.map(|status| (status.last_index, status.last_index));
            replicas.iter().zip(ids()).all(|(replica, id)| {
                let is_member = region.peer_on(StoreId(id)).is_some();
                let indices = replica.as_ref().map(|status| (status.applied_index, status.last_index));
                indices == expected.filter(|_| is_member)
            })
        };
        self.regions().into_iter().map(replicas).find(|replicas| !are_equal(replicas))
    }

    /// A line for each replica of each store.
    fn overview(&self) -> String {
        let stores = self.nodes.values().filter_map(|node| Some((node.id, node.store.as_ref()?)));
        let lines = stores.flat_map(|(id, store)| {
            store.status().into_iter().map(move |status| {
                let region = &status.region;
                format!(
                    "store {} {} {:?}..{:?} version {} {:?}, leads {}, applied {} committed {} last {}",
                    id.0,
                    region.id,
                    region.start_key,
                    region.end_key,
                    region.epoch.version,
                    region.merges,
                    status.leads,
                    status.applied_index,
                    status.committed_index,
                    status.last_index
                )
            })
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Heals everything, waits until all replicas have applied everything, and compares them.
    #[track_caller]
    pub fn settle(&mut self) {
        self.heal();
        self.network_faults = NetworkFaults { delay_ms_max: 5, ..NetworkFaults::default() };
        for id in 1..=self.nodes.len() as u64 {
            let node = self.node(id);
            node.paused_until = Duration::ZERO;
            node.disk_stalled_until = Duration::ZERO;
            node.disk_slower_by = Duration::ZERO;
            node.apply_delay = Duration::ZERO;
            (node.read_delay_ms_max, node.read_failures_percent) = (20, 0);
            if !node.is_up() {
                self.start(id);
            }
        }
        self.put_anywhere(b"settled", b"yes");
        let end = self.now + Duration::from_secs(30);
        while let Some(replicas) = self.unequal() {
            assert!(self.now < end, "replicas do not become equal: {replicas:#?}, of\n{}", self.overview());
            self.step();
        }
        let regions = self.regions().len();
        let has_all = |node: &&Node| node.store.as_ref().is_some_and(|store| store.status().len() == regions);
        let states = self.nodes.values().filter(has_all).map(|node| check::region_state(&node.visible));
        let states: Vec<_> = states.collect();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "replicas differ");
        self.until(10, "every ticket is answered", |cluster| {
            let open = |node: &Node| node.open.len() + node.store.as_ref().expect("up").open_tickets();
            cluster.nodes.values().map(open).sum::<usize>() == 0
        });
    }
}

/// Whether a region is as a change makes it.
fn is_done(change: &MemberChange, region: &Region) -> bool {
    let votes = |id: &PeerId| region.role(*id) == PeerRole::Voter;
    match change {
        MemberChange::Add(peer) => region.peer(peer.id).is_some() && votes(&peer.id),
        MemberChange::AddLearner(peer) => region.peer(peer.id).is_some(),
        MemberChange::Remove(id) => region.peer(*id).is_none(),
        MemberChange::Promote(id) => votes(id),
        MemberChange::Demote(id) => region.role(*id) == PeerRole::Learner,
        MemberChange::Jointly(changes) => {
            let is_done = |change: &RoleChange| match change {
                RoleChange::Promote(id) => votes(id),
                RoleChange::Demote(id) => region.role(*id) == PeerRole::Learner,
            };
            !region.is_joint() && changes.iter().all(is_done)
        }
        MemberChange::LeaveJoint => !region.is_joint(),
    }
}
