//! One raft group's consensus, behind a small API: no other module uses the raft crate.
//!
//! [`Group`] wraps the crate's `RawNode` and handles its pitfalls (docs/internals/raftstore.md lists them with the
//! remedy for each):
//!
//! - election timeouts come from the thread's random source: every call that may change the role ends in
//!   [`Group::set_timeout`], which sets a timeout drawn from our own generator;
//! - a message that no correct peer sends can make the crate panic: [`Group::step`] refuses those first;
//! - storage errors panic: the log has everything in memory but entries for followers that lag, for which the core
//!   accepts that they come later ([`log`]);
//! - a restored snapshot does not move `applied`, and a campaign before it has moved panics: until the snapshot is
//!   persisted the group neither ticks nor campaigns, then `applied` is moved at once.

mod configuration;
mod fetch;
pub mod log;
mod positions;
pub mod step;
pub mod wire;

use crate::config::Config;
use crate::recovery::Recovery;
use crate::region::{MemberChange, PeerId, PeerRole, Region, RoleChange};
use bytes::Bytes;
use configuration::{change_of_one, change_of_several, conf_state, part_of_change};
use kontiki_env::rng::Rng;
use log::{EntryLog, FoundEntries, Position};
use protobuf::RepeatedField;
pub use raft::eraftpb::{Entry, EntryType};
use raft::eraftpb::{HardState, Message, MessageType, Snapshot};
use raft::{Changer, GetEntriesContext, Progress, ProgressState, RawNode, SnapshotStatus, StateRole};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use wire::{GroupState, RaftMessage, SnapshotInfo};

/// One for all groups: it takes memory for each time that it is made.
static LOGGER: OnceLock<slog::Logger> = OnceLock::new();

/// A role, as far as callers need to distinguish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows, or waits for a leader.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// A message to another peer of the group.
#[derive(Debug)]
pub struct Outgoing {
    pub to: PeerId,
    pub message: RaftMessage,
    pub kind: OutgoingKind,
}

/// The messages that need special treatment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutgoingKind {
    /// Announces a snapshot file that must be sent before it.
    Snapshot,
    /// Orders a follower to campaign at once: the lease ends here.
    TimeoutNow,
    /// Asks for a vote because of such an order.
    VoteForTransfer,
    /// Promises nothing about the log.
    HeartbeatResponse,
    /// Anything else.
    Other,
}

/// The content of one Ready.
#[derive(Debug, Default)]
pub struct ReadyBatch {
    /// For [`Group::persisted`].
    pub number: u64,
    /// A received snapshot replaced the log: everything before `snapshot.index` is dropped. If `.1`, entries above it
    /// were dropped too.
    pub snapshot: Option<(Position, bool)>,
    /// To be appended to the stream.
    pub entries: Vec<Entry>,
    /// Term or vote changed.
    pub vote_changed: bool,
    /// May be sent now.
    pub messages: Vec<Outgoing>,
    /// May be sent when this batch and all before it are persisted.
    pub persisted_messages: Vec<Outgoing>,
    /// Committed: to be applied in order.
    pub committed: Vec<Entry>,
    /// Confirmed read indices: context and index.
    pub reads: Vec<(u64, u64)>,
}

/// The group's consensus.
pub struct Group {
    node: RawNode<EntryLog>,
    rng: Rng,
    /// The role for which `timeout_ticks` was drawn.
    timeout_drawn_for: (u64, StateRole),
    timeout_ticks: usize,
    election_ticks: usize,
    /// A restored snapshot that is not persisted yet: its index, and the Ready batch that persists it. (The index alone
    /// is ambiguous: a snapshot that replaces a lost one may end where the durable log ends.)
    restoring: Option<(u64, u64)>,
    /// Term and vote as of the last Ready batch.
    last_vote: (u64, u64),
    /// Planted bugs.
    joint_left_at_once: bool,
    learner_in_quorum: bool,
    evict_handed_out: bool,
    /// Which replicas count.
    recovery: Arc<Recovery>,
    inflight_appends_max: usize,
    inflight_bytes_max: usize,
    /// Proposals that were not sent to a follower because it had enough in flight.
    appends_delayed: u64,
}

pub fn entry_to_wire(entry: &Entry) -> wire::Entry {
    wire::Entry {
        kind: entry.get_entry_type() as u32,
        term: entry.term,
        index: entry.index,
        data: entry.data.clone(),
        context: entry.context.clone(),
    }
}

/// The raft crate's entry, or what is wrong.
pub fn entry_from_wire(entry: wire::Entry) -> Result<Entry, &'static str> {
    let kind = match entry.kind {
        0 => EntryType::EntryNormal,
        1 => EntryType::EntryConfChange,
        2 => EntryType::EntryConfChangeV2,
        _ => return Err("an entry of an unknown kind"),
    };
    let mut out = Entry::default();
    out.set_entry_type(kind);
    out.term = entry.term;
    out.index = entry.index;
    out.data = entry.data;
    out.context = entry.context;
    Ok(out)
}

impl Group {
    /// Starts from what was recovered. `applied` is the last index that need not be handed out again. The region has
    /// the replicas that count.
    pub fn new(
        config: &Config,
        peer: PeerId,
        region: &Region,
        state: &GroupState,
        log: impl Into<FoundEntries>,
        applied: u64,
        rng: Rng,
    ) -> Result<Group, String> {
        assert!(region.peer(peer).is_some(), "a replica is one of its region's peers");
        let truncated = Position { index: state.truncated_index, term: state.truncated_term };
        let log = log.into();
        let last = truncated.index + (log.evicted.len() + log.entries.len()) as u64;
        // What is applied is committed; the recorded commit index may be older.
        let commit = state.commit.max(applied);
        let hard_state = HardState { term: state.term, vote: state.vote, commit, ..HardState::default() };
        if hard_state.commit > last || applied < truncated.index {
            return Err(format!(
                "applied {applied}, committed {}, but the log holds {} to {last}",
                hard_state.commit,
                truncated.index + 1
            ));
        }
        let last_term = log.entries.last().map(|entry| entry.term).or(log.evicted.last().map(|(term, _)| *term));
        if last_term.is_some_and(|term| term > state.term) {
            return Err("the log's last term is newer than the recorded term".into());
        }
        let log = EntryLog::new(truncated, log, applied, hard_state, conf_state(region));
        let raft_config = raft::Config {
            id: peer.0,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied,
            max_size_per_msg: config.append_bytes_max as u64,
            max_inflight_msgs: config.inflight_appends_max,
            check_quorum: true,
            pre_vote: true,
            max_committed_size_per_ready: config.apply_bytes_max as u64,
            skip_bcast_commit: !config.announce_commits,
            ..raft::Config::default()
        };
        let logger = LOGGER.get_or_init(|| slog::Logger::root(slog::Discard, slog::o!()));
        let node = RawNode::new(&raft_config, log, logger).map_err(|error| error.to_string())?;
        let mut group = Group {
            timeout_drawn_for: (0, StateRole::Leader),
            timeout_ticks: config.election_ticks,
            election_ticks: config.election_ticks,
            restoring: None,
            last_vote: (state.term, state.vote),
            joint_left_at_once: config.planted().joint_left_at_once,
            learner_in_quorum: config.planted().learner_in_quorum,
            evict_handed_out: config.planted().evict_handed_out,
            recovery: Arc::default(),
            inflight_appends_max: config.inflight_appends_max,
            inflight_bytes_max: config.inflight_bytes_max,
            appends_delayed: 0,
            node,
            rng,
        };
        group.set_timeout();
        group.free_buffers();
        Ok(group)
    }

    /// Which replicas of later descriptors count.
    pub fn with_recovery(mut self, recovery: Arc<Recovery>) -> Group {
        self.recovery = recovery;
        self
    }

    /// Replaces the timeout that the core drew from the thread's random source. The core draws whenever term or role
    /// change, and so does this; setting our own each time makes the core's draw irrelevant.
    fn set_timeout(&mut self) {
        let now = (self.node.raft.term, self.node.raft.state);
        if self.timeout_drawn_for != now {
            self.timeout_drawn_for = now;
            let ticks = self.election_ticks as u64;
            self.timeout_ticks = self.rng.range(ticks..2 * ticks) as usize;
        }
        assert!((self.election_ticks..2 * self.election_ticks).contains(&self.timeout_ticks));
        self.node.raft.set_randomized_election_timeout(self.timeout_ticks);
    }

    /// One tick. Unless it `may_campaign`, a tick that would begin an election does not count. Returns whether it led
    /// to anything but a count.
    pub fn tick(&mut self, may_campaign: bool) -> bool {
        let raft = &self.node.raft;
        let may_campaign = may_campaign && !self.would_lead_too_early();
        let times_out = raft.state != StateRole::Leader && raft.election_elapsed + 1 >= self.timeout_ticks;
        if self.restoring.is_some() {
            return false;
        }
        if may_campaign || !times_out {
            let is_ready = self.node.tick();
            self.set_timeout();
            is_ready
        } else {
            // A candidate that asks for the vote gets it when the time has passed, although no election begins here.
            self.node.raft.election_elapsed = self.node.raft.election_elapsed.max(self.election_ticks);
            false
        }
    }

    /// Campaigns, unless a leader is known (its lease may rely on this peer's vote), a snapshot is being restored, or
    /// this replica is a learner (which the core would let win).
    pub fn campaign(&mut self) {
        if !self.is_voter() || self.would_lead_too_early() || self.restoring.is_some() || self.node.raft.leader_id != 0
        {
            return;
        }
        // The only error is that of a follower's proposal, which this is not.
        let _ = self.node.campaign();
        self.set_timeout();
    }

    /// Whether it does not lead, and has heard of no leader for an election timeout.
    pub fn misses_leader(&self) -> bool {
        let raft = &self.node.raft;
        raft.state != StateRole::Leader && (raft.leader_id == 0 || raft.election_elapsed >= self.election_ticks)
    }

    /// Stands for election no longer, if it does.
    pub fn give_election_up(&mut self) {
        if self.role() == Role::Candidate {
            let term = self.term();
            self.node.raft.become_follower(term, 0);
            self.set_timeout();
        }
    }

    /// Appends proposals (context and data of each) at the leader; returns the index of the first. `None`: this group
    /// does not lead, or leadership is being transferred; nothing was appended.
    pub fn propose(&mut self, proposals: Vec<(Bytes, Bytes)>) -> Option<u64> {
        if self.role() != Role::Leader || proposals.is_empty() {
            return None;
        }
        let first_index = self.last_index() + 1;
        let entries = proposals.into_iter().map(|(context, data)| Entry { context, data, ..Entry::default() });
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.node.raft.id;
        message.set_entries(RepeatedField::from_vec(entries.collect()));
        self.within_window(None, |group| group.node.step(message)).ok()?;
        assert!(self.last_index() >= first_index, "an accepted proposal is in the log");
        assert_eq!(self.term_at(first_index), Some(self.term()), "an accepted proposal is of the leader's term");
        Some(first_index)
    }

    /// Appends a membership change at the leader; returns its index. `None`: this group does not lead, another change
    /// is not applied yet, or leadership is being transferred; nothing was appended.
    pub fn propose_change(&mut self, context: Bytes, change: &MemberChange) -> Option<u64> {
        // The core would replace a second change by an empty entry.
        if self.role() != Role::Leader || self.node.raft.has_pending_conf() {
            return None;
        }
        let index = self.last_index() + 1;
        let context = context.to_vec();
        let proposed = match change_of_one(change) {
            Some(one) => self.node.propose_conf_change(context, one),
            None => self.node.propose_conf_change(context, change_of_several(change)),
        };
        proposed.ok()?;
        assert_eq!(self.last_index(), index, "an accepted change is in the log");
        Some(index)
    }

    /// Changes the configuration, as a committed change of the members does; `before` and `after` are the descriptors.
    /// Where lost replicas do not count, the core has only those that do.
    pub fn change_members(
        &mut self,
        before: &Region,
        change: Option<&MemberChange>,
        after: &Region,
    ) -> Result<(), String> {
        let recovery = self.recovery.clone();
        if recovery.leaves_out_lost(before) {
            self.configure(before)?;
        }
        if let Some(change) = change {
            self.apply_change(change)?;
        }
        if change.is_none() || recovery.leaves_out_lost(after) {
            self.configure(&recovery.counted(after))?;
            // It may need less than before to commit, and this replica may vote from now on, or no more.
            self.node.raft.post_conf_change();
        }
        Ok(())
    }

    /// Gives the core the configuration of a descriptor, by one change after another: a joint one from its old half.
    /// Nothing is decided by what it has in between.
    fn configure(&mut self, region: &Region) -> Result<(), String> {
        if !self.node.raft.prs().conf().to_conf_state().get_voters_outgoing().is_empty() {
            self.set_change(&MemberChange::LeaveJoint)?;
        }
        let now = self.node.raft.prs().conf().to_conf_state();
        let with = |votes: bool| {
            let peers = region.peers.iter().filter(move |peer| region.role(peer.id).votes_before() == votes);
            peers.map(|peer| peer.id)
        };
        let voters = with(true).filter(|id| !now.get_voters().contains(&id.0)).map(MemberChange::Promote);
        let learners = with(false).filter(|id| !now.get_learners().contains(&id.0)).map(MemberChange::Demote);
        let others = now.get_voters().iter().chain(now.get_learners()).map(|id| PeerId(*id));
        let others = others.filter(|id| region.peer(*id).is_none()).map(MemberChange::Remove);
        let changes: Vec<MemberChange> = voters.chain(learners).chain(others).collect();
        changes.iter().try_for_each(|change| self.set_change(change))?;
        if !region.is_joint() {
            return Ok(());
        }
        let joined = region.roles.iter().filter_map(|(id, role)| match role {
            PeerRole::IncomingVoter => Some(RoleChange::Promote(*id)),
            PeerRole::DemotingVoter => Some(RoleChange::Demote(*id)),
            PeerRole::Voter | PeerRole::Learner => None,
        });
        self.set_change(&MemberChange::Jointly(joined.collect()))
    }

    /// Changes what the core counts, and nothing else.
    fn set_change(&mut self, change: &MemberChange) -> Result<(), String> {
        let raft = &mut self.node.raft;
        let mut changer = Changer::new(raft.prs());
        let changed = match part_of_change(change) {
            Some(part) => changer.simple(&[part]),
            None if *change == MemberChange::LeaveJoint => changer.leave_joint(),
            None => changer.enter_joint(false, &change_of_several(change).changes),
        };
        let (configuration, changes) = changed.map_err(|error| error.to_string())?;
        let next_index = raft.raft_log.last_index();
        raft.mut_prs().apply_conf(configuration, changes, next_index);
        Ok(())
    }

    fn apply_change(&mut self, change: &MemberChange) -> Result<(), String> {
        let mut applied = match change_of_one(change) {
            Some(one) => self.node.apply_conf_change(&one),
            None => self.node.apply_conf_change(&change_of_several(change)),
        };
        if self.joint_left_at_once {
            // The real end finds that it has ended, except after a restart between them.
            let end = self.node.apply_conf_change(&change_of_several(&MemberChange::LeaveJoint));
            applied = if *change == MemberChange::LeaveJoint { Ok(Default::default()) } else { end.or(applied) };
        }
        applied.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Whether this replica may stand for election: it is a voter, of either half in a joint configuration.
    pub fn is_voter(&self) -> bool {
        self.node.raft.promotable()
    }

    fn voter_count(&self) -> usize {
        self.node.raft.prs().conf().voters().ids().len()
    }

    /// Whether it would lead at once if it campaigned, with entries of another leader that are not durable here: the
    /// core takes the log of a new leader for durable, as it is where others have to vote first.
    pub(super) fn would_lead_too_early(&self) -> bool {
        self.is_voter() && self.voter_count() == 1 && self.durable_index() < self.last_index()
    }

    /// Whether the core asks a quorum before it confirms a read of this leader. It takes the only voter for the leader,
    /// which it is not where a replica that was demoted still leads.
    pub fn can_confirm_reads(&self) -> bool {
        self.is_voter() || self.voter_count() > 1
    }

    /// Whether a membership change may be in the log that is not applied.
    pub fn has_pending_change(&self) -> bool {
        self.node.raft.has_pending_conf()
    }

    /// Whether a follower gets entries as they come, and none of a snapshot, at the leader.
    pub fn is_replicating_to(&self, peer: PeerId) -> bool {
        self.node.raft.prs().get(peer.0).is_some_and(|progress| progress.state == ProgressState::Replicate)
    }

    /// Asks for a read index, which comes back in [`ReadyBatch::reads`] with `context` once a quorum confirmed the
    /// leadership, or never if leadership is lost. Only for a leader for which [`Group::committed_own_term`] is true.
    pub fn read_index(&mut self, context: u64) {
        assert!(self.role() == Role::Leader && self.committed_own_term(), "the core drops early read requests");
        assert!(self.can_confirm_reads(), "the core would confirm it alone");
        self.node.read_index(context.to_be_bytes().to_vec());
    }

    /// The entries from `first` through `last`; `None` if they are not all in memory.
    pub fn entries(&self, first: u64, last: u64) -> Option<Vec<Entry>> {
        let context = GetEntriesContext::empty(false);
        let store = self.node.store();
        let is_here = first > store.truncated().index && !store.is_evicted(first) && last <= self.last_index();
        let entries = is_here.then(|| self.node.raft.raft_log.slice(first, last + 1, None, context))?;
        entries.ok().filter(|entries| entries.len() as u64 == last + 1 - first)
    }

    /// Appends entries that are known to be committed and that did not come from the leader; everything through
    /// `commit` is. Does nothing if the log lacks what is before them. `Err`: another history is committed here.
    pub fn catch_up(&mut self, entries: &[Entry], commit: u64) -> Result<(), &'static str> {
        let raft = &mut self.node.raft;
        let missing: Vec<Entry> =
            entries.iter().filter(|entry| entry.index > raft.raft_log.committed).cloned().collect();
        if let Some(first) = missing.first() {
            let Ok(term) = raft.raft_log.term(first.index - 1) else { return Ok(()) };
            if first.term < term {
                return Err("the end of its log, from the commit of its merge, is older than what is committed here");
            }
            let last_term = missing.last().map_or(0, |last| last.term);
            if last_term > raft.term {
                raft.become_follower(last_term, 0);
            }
            let appended = raft.raft_log.maybe_append(first.index - 1, term, commit, &missing);
            assert!(appended.is_some(), "the log has the entry before, whose term this is");
        } else if commit > raft.raft_log.committed && commit <= raft.raft_log.last_index() {
            raft.raft_log.commit_to(commit);
        }
        self.set_timeout();
        Ok(())
    }

    /// Sends the followers the commit index now, instead of with the next entries or heartbeat.
    pub fn announce_commits(&mut self) {
        if self.withholds_commits() {
            self.within_window(None, |group| group.node.raft.bcast_append());
        }
    }

    /// The same for one of them, unless it has said that it knows.
    pub fn announce_commits_to(&mut self, follower: PeerId) {
        let lacks = |progress: &Progress| progress.committed_index < self.committed();
        if self.withholds_commits() && self.node.raft.prs().get(follower.0).is_some_and(lacks) {
            self.within_window(None, |group| group.node.raft.send_append(follower.0));
        }
    }

    /// Whether this group leads, and followers may not know all that is committed.
    fn withholds_commits(&self) -> bool {
        self.role() == Role::Leader && !self.node.raft.should_bcast_commit()
    }

    /// Sends heartbeats now, if this group leads.
    pub fn ping(&mut self) {
        self.node.ping();
    }

    /// Nothing has been heard of the leader for an election timeout, although no ticks were counted: votes may be
    /// given, and an election is due at the end of this replica's own timeout.
    pub fn leader_is_silent(&mut self) {
        if self.node.raft.state == StateRole::Follower {
            self.node.raft.election_elapsed = self.node.raft.election_elapsed.max(self.election_ticks);
        }
    }

    /// Frees the core's buffers of appends in flight, which it allocates for every peer with their full length (2 KiB
    /// by default), also at followers, and the unused parts of others. They are allocated again when they are needed.
    pub fn free_buffers(&mut self) {
        let raft = &mut self.node.raft;
        raft.maybe_free_inflight_buffers();
        raft.msgs.shrink_to_fit();
        raft.raft_log.unstable.entries.shrink_to_fit();
        self.node.mut_store().shrink_to_fit();
    }

    /// Asks the leader for a snapshot although the log reaches back far enough: the data below it is lost here. Does
    /// nothing without a leader, or before the leader's first entry is here; the caller has to repeat it.
    pub fn request_snapshot(&mut self) {
        self.node.raft.pending_request_snapshot = raft::INVALID_INDEX;
        // The errors are those two reasons.
        let _ = self.node.request_snapshot();
    }

    /// Index of a snapshot that the core accepted and that no Ready batch contains yet.
    pub fn pending_snapshot(&self) -> Option<u64> {
        self.node.snap().map(|snapshot| snapshot.get_metadata().index)
    }

    /// Transfers leadership.
    pub fn transfer_leader(&mut self, to: PeerId) {
        self.node.transfer_leader(to.0);
        self.set_timeout();
    }

    /// Whether leadership is being transferred.
    pub fn is_transferring(&self) -> bool {
        self.transfer_target().is_some()
    }

    /// The peer to which leadership is being transferred.
    pub fn transfer_target(&self) -> Option<PeerId> {
        self.node.raft.lead_transferee.map(PeerId)
    }

    /// The latest time that is not after those of a whole quorum, by the active configuration (joint or not).
    pub fn quorum_time(&self, time: impl Fn(PeerId) -> Duration) -> Duration {
        let members = self.node.raft.prs();
        let voters = members.conf().voters();
        if self.learner_in_quorum {
            let mut times: Vec<_> = members.iter().map(|(id, _)| time(PeerId(*id))).collect();
            times.sort_unstable_by(|a, b| b.cmp(a));
            return times[voters.ids().len() / 2];
        }
        let mut times: Vec<Duration> = voters.ids().iter().map(|id| time(PeerId(id))).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        let reached =
            |at: &Duration| members.has_quorum(&voters.ids().iter().filter(|id| time(PeerId(*id)) >= *at).collect());
        times.into_iter().find(reached).expect("all voters are a quorum")
    }

    /// Whether these peers are a quorum.
    pub fn is_quorum(&self, member: impl Fn(PeerId) -> bool) -> bool {
        self.quorum_time(|peer| Duration::from_secs(u64::from(member(peer)))) > Duration::ZERO
    }

    /// Takes the pending work, if any. `now` and `void_through` (the leader's transfers that are void) are stamped on
    /// heartbeats.
    pub fn ready(&mut self, now: Duration, void_through: u64) -> Option<ReadyBatch> {
        if !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        let mut ready_batch = ReadyBatch { number: ready.number(), ..ReadyBatch::default() };
        if !ready.snapshot().is_empty() {
            let metadata = ready.snapshot().get_metadata();
            let position = Position { index: metadata.index, term: metadata.term };
            let members = metadata.get_conf_state().clone();
            let dropped_above = self.node.mut_store().restore(position, members);
            ready_batch.snapshot = Some((position, dropped_above));
            self.restoring = Some((position.index, ready_batch.number));
        }
        ready_batch.entries = ready.take_entries();
        self.node.mut_store().append(&ready_batch.entries);
        if let Some(hard_state) = ready.hs() {
            let vote = (hard_state.term, hard_state.vote);
            ready_batch.vote_changed = vote != std::mem::replace(&mut self.last_vote, vote);
        }
        let outgoing = |message| step::outgoing(message, now, void_through);
        ready_batch.messages = ready.take_messages().into_iter().map(outgoing).collect();
        ready_batch.persisted_messages = ready.take_persisted_messages().into_iter().map(outgoing).collect();
        ready_batch.committed = ready.take_committed_entries();
        ready_batch.reads = ready
            .take_read_states()
            .into_iter()
            .filter_map(|read| Some((u64::from_be_bytes(read.request_ctx.try_into().ok()?), read.index)))
            .collect();
        self.node.advance_append_async(ready);
        assert_eq!(self.node.store().last(), self.last_index(), "everything taken is in the log");
        debug_assert!(ready_batch.committed.windows(2).all(|pair| pair[0].index + 1 == pair[1].index));
        assert!(
            ready_batch.committed.last().is_none_or(|last| last.index <= self.durable_index()),
            "durable before applied"
        );
        Some(ready_batch)
    }

    /// Ready batches through `number` are durable.
    pub fn persisted(&mut self, number: u64) {
        self.within_window(None, |group| group.node.on_persist_ready(number));
        if let Some((index, _)) = self.restoring.take_if(|(_, of)| *of <= number) {
            assert!(self.node.raft.raft_log.persisted >= index, "the batch of a snapshot makes it durable");
            if index > self.node.raft.raft_log.applied {
                self.node.advance_apply_to(index);
            }
        }
        self.set_timeout();
    }

    /// Entries through `index` are applied.
    pub fn applied(&mut self, index: u64) {
        assert!(index <= self.committed(), "applied {index} <= committed {}", self.committed());
        if index > self.node.raft.raft_log.applied {
            self.node.advance_apply_to(index);
        }
        self.node.mut_store().applied_through(index);
    }

    /// Whether a restored snapshot is not persisted yet.
    pub fn is_restoring(&self) -> bool {
        self.restoring.is_some()
    }

    /// The state to record beside the stream's entries.
    pub fn state(&self) -> GroupState {
        let hard_state = self.node.raft.hard_state();
        let truncated = self.node.store().truncated();
        assert!(truncated.term <= hard_state.term, "no entry is of a future term");
        GroupState {
            term: hard_state.term,
            vote: hard_state.vote,
            // The entries through here are durable with it, or before it.
            commit: hard_state.commit,
            truncated_index: truncated.index,
            truncated_term: truncated.term,
            ..GroupState::default()
        }
    }

    /// The peer that this replica voted for in this term, or 0.
    pub fn vote(&self) -> u64 {
        self.node.raft.vote
    }

    /// Term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Role.
    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    /// The leader, if one is known.
    pub fn leader(&self) -> Option<PeerId> {
        Some(self.node.raft.leader_id).filter(|id| *id != 0).map(PeerId)
    }

    /// Last index of the log, persisted or not.
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// Whether the log ends before the first entry of the present leader's term.
    pub fn lacks_first_of_term(&self) -> bool {
        self.term_at(self.last_index()).is_some_and(|last| last < self.term())
    }

    /// Highest index known to be committed.
    pub fn committed(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// Highest index known to be durable here.
    pub fn durable_index(&self) -> u64 {
        self.node.raft.raft_log.persisted
    }

    /// Whether the highest committed entry is of the present term.
    pub fn committed_own_term(&self) -> bool {
        self.node.raft.commit_to_current_term()
    }

    /// The term of an entry of the log.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.node.raft.raft_log.term(index).ok().filter(|term| *term != 0)
    }

    /// How far a peer's durable log is known to match, at the leader.
    pub fn matched(&self, peer: PeerId) -> Option<u64> {
        self.node.raft.prs().get(peer.0).map(|progress| progress.matched)
    }

    /// How far a peer knows the log to be committed, as its answers said, at the leader.
    pub fn committed_at(&self, peer: PeerId) -> Option<u64> {
        self.node.raft.prs().get(peer.0).map(|progress| progress.committed_index)
    }

    /// The truncation mark.
    pub fn truncated(&self) -> Position {
        self.node.store().truncated()
    }

    /// Bytes of the log, in memory or not.
    pub fn log_bytes(&self) -> usize {
        self.node.store().bytes()
    }

    /// Bytes of the log's entries that are not applied.
    pub fn unapplied_log_bytes(&self) -> usize {
        self.node.store().unapplied_bytes()
    }

    /// Drops entries through `index`, all of them applied.
    pub fn truncate(&mut self, index: u64) {
        assert!(index <= self.node.raft.raft_log.applied, "truncated <= applied");
        self.node.mut_store().truncate(index);
        assert_eq!(self.node.store().truncated().index, index);
    }

    /// A follower that waits for a snapshot that does not exist (returned once).
    pub fn take_snapshot_wanted(&self) -> Option<PeerId> {
        self.node.store().take_snapshot_wanted().map(PeerId)
    }

    /// Whether the entries above `index` are more than so many bytes.
    pub fn has_more_than(&self, bytes: usize, index: u64) -> bool {
        self.node.store().bytes_after(index) > bytes
    }

    /// Bytes of the log's entries above `index`.
    pub fn bytes_after(&self, index: u64) -> usize {
        self.node.store().bytes_after(index)
    }

    /// Sets the snapshot to send to a follower that needs one, until it is replaced.
    pub fn offer_snapshot(&mut self, info: Option<&SnapshotInfo>, region: &Region) {
        let snapshot = info.map(|info| {
            let mut snapshot = Snapshot::default();
            let metadata = snapshot.mut_metadata();
            metadata.index = info.index;
            metadata.term = info.term;
            metadata.set_conf_state(conf_state(region));
            snapshot.data = prost::Message::encode_to_vec(info).into();
            snapshot
        });
        self.node.mut_store().offer_snapshot(snapshot);
    }

    #[cfg(test)]
    fn conf_state(&self) -> raft::eraftpb::ConfState {
        self.node.raft.prs().conf().to_conf_state()
    }

    /// Reports whether a snapshot reached a follower.
    pub fn report_snapshot(&mut self, to: PeerId, ok: bool) {
        let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(to.0, status);
    }
}

#[cfg(test)]
#[path = "group_test.rs"]
mod tests;
