//! One replica of one region: the layer between the events of a store and its raft group.
//!
//! The path of a proposal: admitted and queued ([`propose`]) -> all that queued since the last poll appended at once ->
//! persisted and sent ([`ready`]) -> committed -> checked again and put into the apply batch ([`apply`]) -> visible ->
//! answered. Its ticket moves along and is answered exactly once in every case.
//!
//! Invariants, asserted where they could break: entries are handed to apply in order without gap or repetition;
//! applied <= handed <= committed <= last; truncated <= flushed applied, or an unflushed snapshot's file holds the
//! difference.

mod apply;
mod changes;
mod consistency;
mod entries;
mod flow;
mod gather;
mod hibernate;
mod lag;
mod leader_transfer;
mod lease;
mod members;
mod merge;
mod message;
pub(crate) mod noted;
mod promise;
mod propose;
mod reads;
mod ready;
pub(crate) mod receive;
mod removed;
mod replica_reads;
mod safe_ts;
mod serve;
mod split;
mod truncate;

pub use lag::{FollowerLag, ReplicaLag};
pub use lease::LeaseStatus;

use crate::config::Config;
use crate::consensus::log::Position;
use crate::consensus::step::Transfer;
use crate::consensus::{Entry, Group, Role};
use crate::effect::{Observation, PersistId};
use crate::error::RegionError;
use crate::families::Families;
use crate::outbox::Outbox;
use crate::readers::{Publication, Slot};
use crate::region::{self, Absorber, PeerId, Region, StoreId, Ticket};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A proposal that is not in the log yet.
struct Queued {
    ticket: Ticket,
    context: Bytes,
    data: Bytes,
    bytes: usize,
}

/// A proposal in the log, recognised at apply by (index, term).
struct Proposed {
    index: u64,
    term: u64,
    /// `None` only with the planted bug that answers early.
    ticket: Option<Ticket>,
    bytes: usize,
}

/// Ready batches in flight to disk.
struct Outstanding {
    persist: PersistId,
    /// The last Ready that is durable with this persist.
    number: u64,
    vote_changed: bool,
    /// Sent when it is durable.
    messages: Vec<(StoreId, Bytes)>,
}

/// This replica's time as leader.
struct Leading {
    term: u64,
    since_tick: u64,
    /// The own-term entry is applied, and this is reported.
    announced: bool,
}

/// One replica.
pub(crate) struct Peer {
    config: Arc<Config>,
    families: &'static Families,
    /// As far as it is visible to readers.
    region: Arc<Region>,
    /// As of `handed`: the core counts quorums over these replicas.
    members: Arc<Region>,
    /// By which entry they became these, or an earlier or later one that was applied before the start.
    members_since: u64,
    /// The persist that records that the change to these is committed, until it is durable.
    members_unrecorded: Option<PersistId>,
    /// Entries of the log that are not handed out and matter before.
    noted: Vec<(u64, noted::Noted)>,
    /// Descriptors that become visible with the applied index.
    changes: VecDeque<(u64, Arc<Region>)>,
    /// Earlier descriptors with another range, and the index from which on tables do not have them.
    replaced: VecDeque<(u64, Arc<Region>)>,
    /// Peers of descriptors newer than `members`, as their messages say.
    strangers: BTreeMap<PeerId, region::Peer>,
    me: region::Peer,
    group: Group,
    slot: Arc<Slot>,
    published: Option<Publication>,

    queue: Vec<Queued>,
    gathering: gather::Gathering,
    proposals: VecDeque<Proposed>,
    /// Bytes of `queue`, `proposals`, and of proposals whose apply is not visible yet.
    unapplied_bytes: usize,

    outstanding: VecDeque<Outstanding>,
    /// The stream's state blob must be written with the next persist.
    state_dirty: bool,

    /// Visible to readers.
    applied: Position,
    /// Given out for apply (or to be, by `deferred`).
    handed: u64,
    applies_in_flight: usize,
    /// Committed entries that wait for a snapshot's install, or for earlier ones in flight to the engine.
    deferred: VecDeque<Entry>,
    flow: flow::Flow,

    leading: Option<Leading>,
    lease: lease::Lease,
    leader_transfer: leader_transfer::LeaderTransfer,
    /// The promise to the leader that this replica follows.
    promise: promise::Promise,
    /// The transfer for which it campaigns, or did last.
    campaigned_for: Option<Transfer>,
    reads: reads::Reads,
    replica_reads: replica_reads::ReplicaReads,
    safe_ts: safe_ts::SafeTs,
    hibernation: hibernate::Hibernation,

    incoming: Option<receive::Incoming>,
    serving: serve::Serving,
    entry_reads: entries::EntryReads,

    flushed: u64,
    /// As reported by the leader: every live replica has the log through here.
    replicated: u64,
    truncations: VecDeque<u64>,
    splitting: split::Splitting,
    merge: merge::Merge,
    consistency: consistency::Consistency,

    ticks: u64,

    /// A membership change that was handed out for apply has removed this replica, or a merge.
    removed: bool,
    /// This merge did, without it.
    left_over: Option<Absorber>,
    /// The region whose command made this one, until tables hold the descriptor.
    made_by: u64,
}

/// What recovery found of a replica.
pub(crate) struct Recovered {
    pub region: Arc<Region>,
    pub me: region::Peer,
    pub group: Group,
    pub applied: Position,
    pub incoming: Option<receive::Incoming>,
    /// The longest promise that earlier processes may have made.
    pub promised: Duration,
    /// The region whose command made this one, if tables do not hold the descriptor.
    pub made_by: u64,
    /// Entries of the log above `applied` that matter before they are handed out.
    pub noted: Vec<(u64, noted::Noted)>,
    /// Another number at each start.
    pub random: u64,
}

impl Peer {
    pub fn new(config: Arc<Config>, families: &'static Families, recovered: Recovered, slot: Arc<Slot>) -> Peer {
        assert!(recovered.region.peers.contains(&recovered.me), "a replica is one of its region's peers");
        let handed = recovered.incoming.as_ref().map_or(recovered.applied.index, |incoming| incoming.file.id.index);
        let planted = config.planted();
        let incoming = recovered.incoming.as_ref().map(|incoming| Arc::new(incoming.file.region.clone()));
        let members = incoming.unwrap_or_else(|| recovered.region.clone());
        Peer {
            config,
            families,
            region: recovered.region,
            members,
            members_since: handed,
            members_unrecorded: None,
            noted: recovered.noted,
            changes: VecDeque::new(),
            replaced: VecDeque::new(),
            strangers: BTreeMap::new(),
            me: recovered.me,
            group: recovered.group,
            slot,
            published: None,
            queue: Vec::new(),
            gathering: gather::Gathering::default(),
            proposals: VecDeque::new(),
            unapplied_bytes: 0,
            outstanding: VecDeque::new(),
            state_dirty: false,
            applied: recovered.applied,
            handed,
            applies_in_flight: 0,
            deferred: VecDeque::new(),
            flow: flow::Flow::default(),
            leading: None,
            lease: lease::Lease::default(),
            leader_transfer: leader_transfer::LeaderTransfer::default(),
            promise: promise::Promise::recovered(recovered.promised, planted),
            campaigned_for: None,
            reads: reads::Reads::default(),
            replica_reads: replica_reads::ReplicaReads::new(recovered.random),
            safe_ts: safe_ts::SafeTs::default(),
            hibernation: hibernate::Hibernation::default(),
            incoming: recovered.incoming,
            serving: serve::Serving::default(),
            entry_reads: entries::EntryReads::default(),
            flushed: 0,
            replicated: 0,
            truncations: VecDeque::new(),
            splitting: split::Splitting::default(),
            merge: merge::Merge::default(),
            consistency: consistency::Consistency::default(),
            ticks: 0,
            removed: false,
            left_over: None,
            made_by: recovered.made_by,
        }
    }

    pub fn id(&self) -> PeerId {
        self.me.id
    }

    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Ranges that it had, which tables may still say that it has.
    pub fn ranges_in_tables(&self) -> impl Iterator<Item = &Region> {
        self.replaced.iter().map(|(_, region)| &**region)
    }

    /// Every range that is this replica's: as it is visible, as it will be, and that of a snapshot on its way.
    pub fn ranges(&self) -> impl Iterator<Item = &Region> {
        let incoming = self.incoming.iter().filter(|incoming| !incoming.is_installed());
        let incoming = incoming.map(|incoming| &incoming.file.region);
        [&*self.region, &*self.members].into_iter().chain(incoming)
    }

    /// As of what is handed out for apply.
    pub fn members(&self) -> &Arc<Region> {
        &self.members
    }

    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Tables hold the state through here, as far as it was reported.
    pub fn flushed(&self) -> u64 {
        self.flushed
    }

    pub fn applied(&self) -> Position {
        self.applied
    }

    pub fn leads(&self) -> bool {
        self.group.role() == Role::Leader
    }

    /// The leader this replica knows of.
    pub fn leader(&self) -> Option<region::Peer> {
        self.group.leader().and_then(|id| self.address(id))
    }

    pub fn not_leader(&self, out: &Outbox) -> RegionError {
        let is_candidate = |leader: &region::Peer| leader.id != self.me.id && !out.leadership.is_silent(leader.store);
        let leader = self.leader().filter(is_candidate);
        RegionError::NotLeader { region: self.region.id, leader }
    }

    /// Whether no other replica could be elected.
    pub fn is_sole_voter(&self) -> bool {
        self.members.voter_count() == 1 && self.members.is_lasting_voter(self.me.id)
    }

    /// Whether there is no other replica.
    pub fn is_alone(&self) -> bool {
        self.members.peers.len() == 1
    }

    /// Whether a tick changes anything: it brings an election or a heartbeat closer, or something here takes time. A
    /// sole replica that leads and has nothing to do needs none, nor does a replica that hibernates.
    pub fn needs_ticks(&self) -> bool {
        if self.removed {
            return self.waits_for_flush();
        }
        let has_work = !self.serving.is_idle() || self.checks_consistency() || self.has_lost_snapshot();
        let is_idle = self.leads() && self.is_alone() && !has_work;
        !(is_idle || self.hibernates()) || self.can_truncate()
    }

    /// One tick. Returns whether there may be something to poll.
    pub fn tick(&mut self, out: &mut Outbox) -> bool {
        if self.removed {
            out.flush |= self.waits_for_flush();
            return false;
        }
        self.ticks += 1;
        self.promise.tick();
        let led_to_something = !self.hibernates() && self.tick_awake(out);
        if self.ticks.is_multiple_of(self.config.truncate_ticks) {
            self.maybe_truncate(out.now, false, out);
        }
        led_to_something || !self.truncations.is_empty()
    }

    fn tick_awake(&mut self, out: &mut Outbox) -> bool {
        // Without its data a leader could neither apply nor serve.
        let may_campaign = self.may_campaign(out);
        let led_to_something = self.voting(out.now, None, |group| group.tick(may_campaign));
        self.transfer_if_due(out);
        self.tick_serving(out.now, out);
        self.tick_lost();
        self.tick_members(out);
        self.tick_joint(out);
        self.tick_merge(out);
        self.tick_replica_reads(out);
        self.tick_consistency(out);
        self.tick_hibernation(out);
        led_to_something || self.leading.is_some() || self.has_lost_snapshot()
    }

    /// After a start: if no other replica could lead, there is no need to wait for a timeout.
    pub fn campaign_if_alone(&mut self) {
        if self.is_sole_voter() && self.promise.never_made() {
            self.group.campaign();
        }
    }

    fn may_campaign(&mut self, out: &Outbox) -> bool {
        out.leadership.is_able() && !self.has_promised(out.now) && self.can_apply()
    }

    pub fn campaign(&mut self, out: &Outbox) {
        if !self.removed && self.may_campaign(out) {
            self.voting(out.now, None, Group::campaign);
        }
    }

    pub fn transfer_leader(&mut self, to: StoreId) {
        let may_lead = |peer: &region::Peer| self.leads() && !self.removed && self.could_take_over(peer.id);
        if let Some(peer) = self.members.peer_on(to).filter(may_lead) {
            self.begin_transfer(peer.id);
        }
    }

    /// Does all pending work.
    pub fn poll(&mut self, out: &mut Outbox) {
        if self.removed {
            return;
        }
        self.poll_member(out);
        if self.removed && out.fault.is_none() {
            self.persist_state(out);
        }
    }

    fn poll_member(&mut self, out: &mut Outbox) {
        self.observe_role(out);
        self.order_transfer();
        self.observe_transfer();
        self.flush_proposals(out);
        self.flush_reads();
        self.hand_out_deferred(out);
        if out.fault.is_some() || self.removed {
            return;
        }
        if !self.take_readies(out) {
            return;
        }
        self.complete_reads(out);
        // What replicas that read have to learn.
        if !self.take_readies(out) {
            return;
        }
        self.want_snapshot(out);
        self.want_entries(out);
        self.start_install(out);
        self.persist_state(out);
        self.tend_replica_reads(out);
        self.publish(out);
        self.expose_safe_ts();
        self.account(out);
        self.check_invariants(out);
    }

    /// Takes all that the core has ready. Returns whether the replica goes on.
    fn take_readies(&mut self, out: &mut Outbox) -> bool {
        while let Some(ready_batch) = self.group.ready(out.now, self.lease.void_through()) {
            self.observe_role(out);
            self.take_ready(ready_batch, out);
            if out.fault.is_some() || self.removed {
                return false;
            }
        }
        true
    }

    /// Detects that leadership was gained or lost since the last call.
    fn observe_role(&mut self, out: &mut Outbox) {
        let term = self.group.term();
        if self.leading.as_ref().is_some_and(|leading| !self.leads() || leading.term != term) {
            self.step_down(out);
        }
        if self.leads() && self.leading.is_none() {
            self.leading = Some(Leading { term, since_tick: self.ticks, announced: false });
            self.lease = lease::Lease::new(self.config.planted().lease_through_transfer);
            self.forget_hibernation();
            self.begin_to_lead();
            self.group.ping();
        }
    }

    fn step_down(&mut self, out: &mut Outbox) {
        let leading = self.leading.take().expect("only a leader steps down");
        self.slot.set_lease(None);
        self.lease = lease::Lease::default();
        if leading.announced {
            out.observations.push(Observation::SteppedDown { region: self.region.id, term: leading.term });
        }
        self.refuse_queue(out);
        self.drop_proposals_above(self.group.committed(), out);
        self.refuse_reads(out);
        self.end_safe_ts_round();
        self.stop_serving(out);
        self.end_checks(out);
        self.flow.full_followers.clear();
    }

    /// Updates [`crate::Readers`], and reports changes of the leader.
    fn publish(&mut self, out: &mut Outbox) {
        let leads = self.leading.is_some();
        let at_once = self.config.planted().readable_at_once;
        let readable = leads && (at_once || self.applied.term == self.group.term());
        let publication = Publication {
            region: self.region.clone(),
            term: self.group.term(),
            leader: self.leader(),
            readable,
            leads,
        };
        if self.published.as_ref() != Some(&publication) {
            let before = self.published.as_ref();
            let is_new = |before: &Publication| {
                before.leader != publication.leader || before.term != publication.term && publication.leader.is_some()
            };
            if before.is_none_or(is_new) {
                let (region, leader, term) = (self.region.id, publication.leader, publication.term);
                out.observations.push(Observation::LeaderChanged { region, leader, term });
            }
            if before.is_none_or(|before| before.region != publication.region) {
                out.observations.push(Observation::RegionChanged { region: self.region.clone() });
            }
            self.slot.publish(publication.clone());
            self.published = Some(publication);
        }
        if let Some(leading) = self.leading.as_mut().filter(|leading| readable && !leading.announced) {
            leading.announced = true;
            out.observations.push(Observation::BecameLeader { region: self.region.id, term: leading.term });
        }
        let lease = self.lease_until(out.now).filter(|_| readable);
        self.slot.set_lease(lease);
    }

    fn check_invariants(&self, out: &Outbox) {
        let committed = self.group.committed();
        assert!(self.applied.index <= self.handed, "applied {} <= handed {}", self.applied.index, self.handed);
        assert!(self.handed <= committed, "handed {} <= committed {committed}", self.handed);
        assert!(committed <= self.group.last_index(), "committed <= last");
        assert!(self.flushed <= self.handed || self.waits_for_install(), "flushed <= handed");
        let reason = self.waits_for_install() || self.has_enough_applies(out) || self.waits_for_logs();
        let reason = reason || self.waits_for_view() || self.is_leaving(self.me.id) || self.waits_for_source();
        assert!(
            self.deferred.is_empty() || reason,
            "only an install, a split, a merge, applies, a checksum or its own removal defer entries"
        );
        assert!(self.leading.is_some() == self.leads(), "every change of role was noticed");
        assert!(self.truncations.is_empty() && !self.state_dirty, "the poll wrote what was to be written");
        debug_assert!(self.proposals.iter().map(|p| p.index).is_sorted(), "proposals are in the log's order");
        let waiting: usize = self.queue.iter().map(|q| q.bytes).chain(self.proposals.iter().map(|p| p.bytes)).sum();
        debug_assert!(waiting <= self.unapplied_bytes, "bytes of proposals are accounted");
        debug_assert!(self.applies_in_flight > 0 || waiting == self.unapplied_bytes, "and given back");
        let truncated = self.group.truncated().index;
        let covered = self.incoming.as_ref().map_or(0, |incoming| incoming.file.id.index);
        assert!(truncated <= self.applied.index.max(covered), "truncated {truncated} <= applied, or in a file");
    }
}
