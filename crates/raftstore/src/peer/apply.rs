//! The second half of the write path: committed entries become one batch, and then answers.
//!
//! Deterministic: what an entry does is decided by [`command::decide`], from its command and the region's descriptor
//! only.

use super::Peer;
use crate::command::{self, Carrier, Change, Refusal};
use crate::consensus::log::{Position, entry_bytes};
use crate::consensus::{Entry, EntryType};
use crate::effect::{Answer, AppliedCommand, ApplyPart};
use crate::error::{Fault, FaultKind};
use crate::meta::{put_applied, put_region};
use crate::outbox::{AppliedRegion, Outbox};
use crate::region::Region;
use std::sync::Arc;

impl Peer {
    /// Whether a snapshot's install has to finish before further entries are applied.
    pub(super) fn waits_for_install(&self) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| !incoming.is_installed())
    }

    pub(super) fn take_committed(&mut self, entries: Vec<Entry>, out: &mut Outbox) {
        if entries.iter().any(|entry| !command::is_write(&entry.context)) {
            // The others have to change the region, too, before they can do their part in what follows.
            self.group.announce_commits();
        }
        self.deferred.extend(entries);
        self.hand_out_deferred(out);
    }

    /// Whether no install has to finish before committed entries are applied.
    fn may_apply(&self) -> bool {
        !self.waits_for_install() || self.config.planted().apply_beside_install
    }

    /// Hands out committed entries, one round at a time, until enough are in flight or an install has to finish first.
    pub(super) fn hand_out_deferred(&mut self, out: &mut Outbox) {
        while !self.deferred.is_empty() && self.may_apply() && !self.has_enough_applies(out) && !self.waits_for_view() {
            if !self.is_next_prepared(out) {
                return;
            }
            if self.deferred.front().is_some_and(|entry| self.removes_this(entry)) {
                return;
            }
            let mut bytes = 0;
            // A split or the commit of a merge is the first of its round: what it makes depends on everything before
            // it. A view is taken between a checksum command and what follows.
            let is_checksum = |entry: &Entry| command::is_checksum(&entry.context);
            let ends_round = self.deferred.front().is_some_and(is_checksum);
            let fits = |entry: &&Entry| {
                let is_first = bytes == 0;
                bytes += entry_bytes(entry);
                let removes = self.removals().any(|(at, _)| at == entry.index);
                let changes_range = command::is_split(&entry.context) || command::is_commit_of_merge(&entry.context);
                let is_alone = changes_range || is_checksum(entry) || removes;
                is_first || bytes <= self.config.apply_bytes_max && !is_alone && !ends_round
            };
            let count = self.deferred.iter().take_while(fits).count();
            let entries = self.deferred.drain(..count).collect();
            self.hand_out(entries, out);
            if out.fault.is_some() {
                return;
            }
        }
    }

    /// Adds entries, and the applied position after them, to this poll's apply batch.
    fn hand_out(&mut self, entries: Vec<Entry>, out: &mut Outbox) {
        let (mut bytes, mut bytes_of_entries) = (0, 0);
        let mut position = None;
        let first_operation = out.apply.len();
        let mut commands = Vec::with_capacity(entries.len());
        for entry in entries {
            let (index, first_operation) = (entry.index, out.apply.len());
            position = Some(Position { index, term: entry.term });
            bytes_of_entries += entry_bytes(&entry);
            bytes += self.apply(entry, out);
            if out.fault.is_some() {
                return;
            }
            let operations = first_operation..out.apply.len();
            if !operations.is_empty() {
                commands.push(AppliedCommand { index, operations });
            }
            if self.removed {
                break;
            }
        }
        let Some(position) = position else { return };
        put_applied(self.families.meta, &mut out.apply, self.region.id, position);
        let (Position { index, term }, operations) = (position, first_operation..out.apply.len());
        out.apply_parts.push(ApplyPart { region: self.region.id, index, term, commands, operations });
        out.applied.push(AppliedRegion { region: self.region.id, position, bytes, entry_bytes: bytes_of_entries });
        self.put_made(out);
        out.memory.apply_begins(bytes_of_entries);
        self.flow.applying.push_back(bytes_of_entries);
        self.applies_in_flight += 1;
    }

    /// Returns the bytes that a proposal made here accounted for.
    fn apply(&mut self, entry: Entry, out: &mut Outbox) -> usize {
        assert_eq!(entry.index, self.handed + 1, "entries are applied in order, each once");
        self.handed = entry.index;
        self.noted.retain(|(index, _)| *index > entry.index);
        let proposed = self.take_proposal(entry.index, entry.term, out);
        let answer = match self.execute(&entry, out) {
            Ok(Ok(())) => Answer::Ok { index: entry.index },
            Ok(Err(refusal)) => Answer::Refused(refusal.answer(&self.members)),
            Err(what) => {
                let what = format!("entry {} of term {}: {what}", entry.index, entry.term);
                out.fail(Fault { region: self.region.id, what, kind: FaultKind::Unable });
                Answer::Dropped
            }
        };
        let Some(proposed) = proposed else { return 0 };
        if let Some(ticket) = proposed.ticket {
            out.apply_answers.push((ticket, answer));
        }
        proposed.bytes
    }

    /// Does what an entry's command does, or nothing if it is refused. `Err`: the node must stop, because other
    /// replicas may be able to decode the entry or to do what it says.
    fn execute(&mut self, entry: &Entry, out: &mut Outbox) -> Result<Result<(), Refusal>, String> {
        let carrier = match entry.get_entry_type() {
            EntryType::EntryNormal => Carrier::Normal,
            EntryType::EntryConfChange => Carrier::MemberChange,
            EntryType::EntryConfChangeV2 => Carrier::JointChange,
        };
        let command =
            command::decode(self.families, carrier, &entry.context, &entry.data).map_err(|error| error.to_string())?;
        let Some(command) = command else { return Ok(Ok(())) };
        match command::decide(self.families, &self.members, command) {
            Ok(Change::Write(batch)) => out.apply.append(&batch),
            Ok(Change::Members { change, region }) => self.change_members(entry.index, Some(change), region, out)?,
            Ok(Change::Recovered { region }) => {
                let left: Vec<u64> = region.peers.iter().map(|peer| peer.store.0).collect();
                tracing::warn!(region = region.id.0, "recovered without a majority; replicas are left on {left:?}");
                self.forget_safe_ts();
                self.change_members(entry.index, None, region, out)?;
            }
            Ok(Change::Split { region, children }) => self.split(entry.index, region, children, out),
            Ok(Change::ComputeChecksum { expires_after_ms }) => self.begin_checksum(entry.index, expires_after_ms, out),
            Ok(Change::GcSafePoint { region }) => self.change_descriptor(entry.index, region, out),
            Ok(Change::VerifyChecksum { index, checksum }) => self.expect_checksum(index, checksum, out),
            Ok(Change::MergePrepared { region }) => self.prepare_merge(entry.index, region, out),
            Ok(Change::MergeCommitted { region, source, .. }) => self.commit_merge(entry.index, region, source, out),
            Ok(Change::MergeRolledBack { region }) => self.roll_back_merge(entry.index, region, out),
            Err(refusal) => return Ok(Err(refusal)),
        }
        Ok(Ok(()))
    }

    /// The entry at `index` gives the region another descriptor: at once for what follows in the log, and for readers
    /// when it is visible.
    pub(super) fn change_descriptor(&mut self, index: u64, region: Region, out: &mut Outbox) {
        let region = Arc::new(region);
        self.members = region.clone();
        put_region(self.families.meta, &mut out.apply, &region);
        self.changes.push_back((index, region));
    }

    /// A batch with this region's entries through `position` is visible.
    pub fn applied_through(&mut self, position: Position, bytes: usize, out: &mut Outbox) {
        assert!(position.index > self.applied.index, "applied only grows");
        assert!(position.term >= self.applied.term, "terms only grow");
        assert!(self.applies_in_flight > 0 && bytes <= self.unapplied_bytes, "what becomes visible was handed out");
        self.applied = position;
        while self.changes.front().is_some_and(|(index, _)| *index <= position.index) {
            self.region = self.changes.pop_front().expect("just seen").1;
        }
        self.applies_in_flight -= 1;
        self.flow.applying.pop_front();
        self.unapplied_bytes -= bytes;
        self.group.applied(position.index);
        self.order_checksum(out);
    }
}
