//! A region takes over the range of its neighbour: both sides of a merge. docs/internals/merge.md has the design.
//!
//! *The source* is frozen from the preparation on: it serves no read and accepts no write, and its log is retained for
//! replicas that lag. *The target* waits with the commit until the source's replica on its store has applied the
//! preparation and is stopped (`store/absorb.rs`).

use super::Peer;
use crate::command::{self, Action, Carrier, Change, Command};
use crate::consensus::wire::{AbsorberRecord, StoreMessage};
use crate::consensus::{Entry, EntryType, entry_from_wire, entry_to_wire, log::entry_bytes, wire};
use crate::error::{Fault, FaultKind, RegionError};
use crate::meta;
use crate::outbox::{AbsorptionBegun, AbsorptionHanded, Outbox};
use crate::region::{Absorber, Merging, PeerId, Region, RegionId};
use prost::Message;
use std::sync::Arc;

/// What a replica knows of the merges of its region.
#[derive(Default)]
pub(super) struct Merge {
    /// The committed commit of a merge that waits for the source.
    waiting: Option<u64>,
    /// The source's replica here is stopped, and its data are complete.
    is_source_ready: bool,
    /// The source's replica here is lost: only a snapshot has its data.
    is_source_lost: bool,
    /// Term and index of the last commit or rollback that this replica proposed as leader.
    ended: (u64, u64),
    /// As a source: its range is taken over, and this replica is stopped.
    pub(super) absorbed_by: Option<Absorber>,
}

impl Peer {
    /// Whether the region is the source of a merge, or is not known to be so no longer: nothing is served.
    pub fn is_merging(&self) -> bool {
        self.members.merging().is_some() || self.region.merging().is_some()
    }

    /// The index above which the log is retained for the commit of a merge.
    pub(super) fn held_for_merge(&self) -> Option<u64> {
        let in_log = self.noted.iter().filter_map(|(_, noted)| noted.replicated());
        let merging = [&self.members, &self.region].into_iter().filter_map(|region| region.merging());
        merging.map(|merging| merging.replicated_index).chain(in_log).min()
    }

    /// The command that prepares the merge into `target`, or why it is not proposed now.
    pub fn prepare_command(&self, target: Region, command: Command, out: &Outbox) -> Result<Command, RegionError> {
        let replicated_index = self.check_merge(out)?;
        let action = Action::PrepareMerge { target, replicated_index };
        Ok(Command { action, ..command })
    }

    /// Whether every replica is there and has nearly the whole log: the target's replicas wait for those of the source,
    /// and what these lack is sent with the commit. Returns the index through which all have the log.
    fn check_merge(&self, out: &Outbox) -> Result<u64, RegionError> {
        if !self.leading.as_ref().is_some_and(|leading| leading.announced) {
            return Err(self.not_leader(out));
        }
        if self.group.has_pending_change() || self.removals().next().is_some() || out.memory.is_tight() {
            return Err(self.busy("a change of the members is under way, or the logs take too much memory"));
        }
        let others = || self.members.peers.iter().filter(|peer| peer.id != self.me.id);
        self.check_versions(|store| out.leadership.knows_merges(store))?;
        let is_able =
            |id: PeerId| self.answers(id, out) && self.has_data(id) && !self.flow.full_followers.contains(&id);
        if let Some(peer) = others().find(|peer| !is_able(peer.id)) {
            let store = peer.store.0;
            return Err(self.busy(&format!("the replica on store {store} does not answer, or lags; merge later")));
        }
        let replicated = others().filter_map(|peer| self.group.matched(peer.id));
        let replicated = replicated.fold(self.group.durable_index(), u64::min);
        let is_write =
            |entry: &Entry| entry.get_entry_type() == EntryType::EntryNormal && command::is_write(&entry.context);
        let entries = self.group.entries(replicated + 1, self.group.last_index());
        let entries = entries.filter(|entries| entries.iter().all(is_write));
        let bytes_max = self.config.proposal_bytes_max / 2;
        match entries.map(|entries| entries.iter().map(entry_bytes).sum::<usize>()) {
            Some(bytes) if bytes <= bytes_max => Ok(replicated),
            _ => Err(self.busy("too much is under way to its replicas; merge later")),
        }
    }

    /// A preparation is applied: this region is the source.
    pub(super) fn prepare_merge(&mut self, index: u64, mut region: Region, out: &mut Outbox) {
        let merging = region.merges.preparing.as_mut().expect("a preparation makes this");
        merging.prepared_index = index;
        tracing::info!(region = region.id.0, index, into = merging.target.0, "a merge is prepared");
        self.change_range(index, region, out);
    }

    /// A merge is given up: this region was to be the source.
    pub(super) fn roll_back_merge(&mut self, index: u64, region: Region, out: &mut Outbox) {
        tracing::info!(region = region.id.0, index, "a merge is rolled back");
        self.change_range(index, region, out);
    }

    fn change_range(&mut self, index: u64, region: Region, out: &mut Outbox) {
        self.change_descriptor(index, region, out);
        // A view from before would bring the earlier state to a follower whose log may not have what follows.
        self.retire(out);
    }

    /// Whether the next committed entry, the commit of a merge, can be handed out. It cannot, until the source's
    /// replica here is complete and stopped: that is requested.
    pub(super) fn is_source_ready(&mut self, out: &mut Outbox) -> bool {
        let Some(entry) = self.deferred.front() else { return true };
        if let Some(index) = self.merge.waiting {
            assert_eq!(index, entry.index, "the commit of a merge waits at the front");
            return self.merge.is_source_ready;
        }
        let command = command::decode(self.families, Carrier::Normal, &entry.context, &entry.data).ok().flatten();
        // What cannot be decoded, or is refused, needs no source.
        let Some(command) = command else { return true };
        let Action::CommitMerge { entries, .. } = &command.action else { return true };
        let entries = entries.iter().filter_map(|bytes| wire::Entry::decode(bytes.clone()).ok());
        let entries: Vec<Entry> = entries.filter_map(|entry| entry_from_wire(entry).ok()).collect();
        let Ok(Change::MergeCommitted { region, source, prepared_index }) =
            command::decide(self.families, &self.members, command)
        else {
            return true;
        };
        self.merge.waiting = Some(entry.index);
        self.merge.is_source_ready = self.config.planted().merge_without_tail;
        self.state_dirty = true;
        let (target, version) = (region.id, region.epoch.version);
        out.absorptions.push(AbsorptionBegun { target, version, source: source.id, prepared_index, entries });
        self.merge.is_source_ready
    }

    /// Whether a committed merge is not handed out yet.
    pub fn has_merge_waiting(&self) -> bool {
        self.merge.waiting.is_some()
    }

    /// Whether a committed merge waits for its source.
    pub fn waits_for_source(&self) -> bool {
        self.merge.waiting.is_some() && !self.merge.is_source_ready
    }

    /// The source's replica here is complete, and stopped.
    pub fn source_is_ready(&mut self) {
        assert!(self.merge.waiting.is_some(), "the commit of a merge waits for it");
        self.merge.is_source_ready = true;
    }

    /// There is no replica of the source here any more: this one asks for a snapshot, and does not stand for election.
    pub fn source_is_lost(&mut self) {
        self.merge.is_source_lost = true;
    }

    /// Whether it could serve as a leader: its data are here, and nothing keeps it from applying what is committed.
    pub(super) fn can_apply(&self) -> bool {
        !self.waits_for_install() && !self.waits_for_source()
    }

    /// Whether only a snapshot brings this replica on.
    pub(super) fn has_lost_source(&self) -> bool {
        self.merge.is_source_lost
    }

    /// A snapshot took the place of the log: nothing of it waits.
    pub(super) fn forget_merges(&mut self) {
        (self.merge.waiting, self.merge.is_source_ready, self.merge.is_source_lost) = (None, false, false);
    }

    /// The commit of a merge is applied: this region is the target.
    pub(super) fn commit_merge(&mut self, index: u64, region: Region, source: Region, out: &mut Outbox) {
        assert_eq!(self.merge.waiting.take(), Some(index), "its source is complete");
        assert!(std::mem::take(&mut self.merge.is_source_ready), "its source is complete");
        tracing::info!(region = region.id.0, index, source = source.id.0, "took over the range of another region");
        meta::delete_region(self.families.meta, &mut out.apply, source.id);
        out.absorbed.push(AbsorptionHanded { source: source.id, target: region.id, index });
        self.replaced.push_back((index, Arc::new(source)));
        self.change_range(index, region, out);
        self.splitting.handed = index;
    }

    /// The command that commits this source's merge, for its target; `None` if the log does not reach back to what some
    /// replica may lack. It does, except where the log was too large before the preparation came; then only a leader,
    /// which knows what the others have by now, can tell.
    pub fn commit_command(&self) -> Option<Command> {
        let Merging { target_epoch, replicated_index, prepared_index, .. } = *self.region.merging()?;
        let others = self.members.peers.iter().filter(|peer| peer.id != self.me.id);
        let known = others.filter_map(|peer| self.group.matched(peer.id)).min().filter(|_| self.leads());
        let first = replicated_index.max(known.unwrap_or(0).min(prepared_index)) + 1;
        let entries = self.group.entries(first, prepared_index)?;
        let entries = entries.iter().map(|entry| entry_to_wire(entry).encode_to_vec().into()).collect();
        let action = Action::CommitMerge { source: Region::clone(&self.region), prepared_index, entries };
        Some(Command { epoch: target_epoch, action })
    }

    /// Proposes the end of a merge, at the leader: the commit in the target, or the rollback in the source. It is
    /// repeated by the caller until it has an effect.
    pub fn propose_end(&mut self, command: Command, out: &mut Outbox) {
        let (term, index) = self.merge.ended;
        let is_under_way = term == self.group.term() && self.handed < index;
        if self.leads() && !is_under_way && !self.removed {
            match self.append_command(command, out) {
                Ok(index) => self.merge.ended = (self.group.term(), index),
                Err(error) => tracing::debug!(region = self.region.id.0, "a merge does not end yet: {error}"),
            }
        }
    }

    /// It is certain that the merge which was prepared at `prepared_index` is not committed: the leader rolls it back.
    pub fn merge_failed(&mut self, prepared_index: u64, out: &mut Outbox) {
        let is_this = self.region.merging().is_some_and(|merging| merging.prepared_index == prepared_index);
        if !is_this || self.removed {
            return;
        }
        if self.leads() {
            let command = Command { epoch: self.region.epoch, action: Action::RollbackMerge };
            return self.propose_end(command, out);
        }
        if let Some(leader) = self.leader() {
            let message = StoreMessage { merge_failed: prepared_index, ..self.envelope(leader, out) };
            out.send.push((leader.store, message.encode_to_vec().into()));
        }
    }

    /// Takes entries of this region's log that are known to be committed, from the commit of the merge in its target:
    /// the other replicas may exist no more. Returns whether they were taken: while a snapshot is installed they are
    /// not.
    pub fn catch_up(&mut self, entries: &[Entry], commit: u64, out: &mut Outbox) -> bool {
        self.wake(out.now);
        let takes = !self.waits_for_install();
        if takes && let Err(what) = self.group.catch_up(entries, commit) {
            out.fail(Fault { region: self.region.id, what: what.to_owned(), kind: FaultKind::Unable });
        }
        takes
    }

    /// Whether it has applied the preparation at this index, for this target.
    pub fn has_prepared(&self, target: RegionId, index: u64) -> bool {
        self.region.merging().is_some_and(|merging| (merging.target, merging.prepared_index) == (target, index))
    }

    /// The source's replica stops: its state is complete, and the merge is committed. From now on it says nothing.
    pub fn be_absorbed(&mut self, by: Absorber, out: &mut Outbox) {
        self.merge.absorbed_by = Some(by);
        // What follows the preparation in the log has no effect.
        self.refuse_proposals(RegionError::EpochNotMatch { current: vec![Region::clone(&self.members)] }, out);
        self.be_removed(out);
        out.persisting.insert(self.region.id);
        self.persist_state(out);
    }

    /// Which region takes this one's range over.
    pub fn absorbed_by(&self) -> Option<Absorber> {
        self.merge.absorbed_by
    }

    /// As the log's state blob says it.
    pub(super) fn absorbed_record(&self) -> Option<AbsorberRecord> {
        self.merge.absorbed_by.map(|by| AbsorberRecord { region: by.region.0, version: by.version })
    }

    /// A replica that lost the source asks for a snapshot, repeatedly.
    pub(super) fn tick_merge(&mut self, out: &Outbox) {
        if self.merge.is_source_lost && self.ticks.is_multiple_of(self.config.heartbeat_ticks as u64) {
            if self.leads() {
                let other = self.any_target(out).map(|peer| peer.store);
                other.into_iter().for_each(|store| self.transfer_leader(store));
            } else {
                self.group.request_snapshot();
            }
        }
    }
}
