//! The first half of the write path: admission, the queue, and the answers to tickets when leadership ends.

use super::noted::Noted;
use super::{Peer, Proposed, Queued};
use crate::command::{self, Action, Carrier, Command, Refusal, encode_write_context};
use crate::effect::Answer;
use crate::error::RegionError;
use crate::outbox::Outbox;
use crate::region::{Epoch, MemberChange, Ticket};
use kontiki_engine::WriteBatch;

impl Peer {
    /// Admits a proposal to the queue, or refuses it.
    pub fn propose(&mut self, epoch: Epoch, batch: WriteBatch, ticket: Ticket, out: &mut Outbox) {
        let context = encode_write_context(self.families, epoch, &batch);
        let bytes = context.len() + batch.as_bytes().len();
        match self.admit(epoch, &batch, bytes, out) {
            Ok(()) => {
                self.unapplied_bytes += bytes;
                self.count_taken(bytes, out);
                self.queue.push(Queued { ticket, context, data: batch.into_bytes(), bytes });
            }
            Err(error) => out.answer(ticket, Answer::Refused(error)),
        }
    }

    fn admit(&self, epoch: Epoch, batch: &WriteBatch, bytes: usize, out: &mut Outbox) -> Result<(), RegionError> {
        if !self.leads() {
            return Err(self.not_leader(out));
        }
        RegionError::check_epoch(&self.region, epoch)?;
        if self.is_merging() {
            return Err(self.busy("it is being merged"));
        }
        if let Some(key) = self.families.first_foreign_key(&self.region, batch) {
            return Err(RegionError::key_not_in_region(&self.region, key));
        }
        if bytes > self.config.proposal_bytes_max {
            let bytes_max = self.config.proposal_bytes_max as u64;
            return Err(RegionError::EntryTooLarge { region: self.region.id, bytes: bytes as u64, bytes_max });
        }
        // Earlier leaderships may have left entries for which no ticket is open here.
        let unapplied_bytes = self.unapplied_bytes.max(self.group.unapplied_log_bytes());
        if unapplied_bytes + bytes > self.config.unapplied_bytes_max {
            let reason = format!(
                "{} bytes are proposed and not applied; at most {} are accepted",
                unapplied_bytes, self.config.unapplied_bytes_max
            );
            return Err(RegionError::ServerIsBusy { region: self.region.id, reason });
        }
        if out.memory.is_exhausted() || unapplied_bytes > 0 && out.memory.is_full_for(bytes) {
            out.memory.refused += 1;
            let status = out.memory.status();
            let reason = format!("the logs of this store take {} bytes of {}", status.log_bytes, status.log_bytes_max);
            return Err(RegionError::ServerIsBusy { region: self.region.id, reason });
        }
        if self.is_transferring() {
            // No replica can accept it now: the client looks for the leader again, after a backoff.
            return Err(RegionError::NotLeader { region: self.region.id, leader: None });
        }
        Ok(())
    }

    /// Proposes a command, unless it is refused already.
    pub fn propose_completed(&mut self, command: Result<Command, RegionError>, ticket: Ticket, out: &mut Outbox) {
        match command {
            Ok(command) => self.propose_command(command, ticket, out),
            Err(error) => out.answer(ticket, Answer::Refused(error)),
        }
    }

    /// Proposes a command other than a write, or refuses it.
    fn propose_command(&mut self, command: Command, ticket: Ticket, out: &mut Outbox) {
        let gives_keys_away = command.action.gives_keys_away();
        if matches!(command.action, Action::SetGcSafePoint(_)) {
            self.append_queue(out);
        }
        match self.append_command(command, out) {
            Ok(index) => {
                let term = self.group.term();
                assert!(self.proposals.back().is_none_or(|last| last.index < index), "the log grows");
                self.proposals.push_back(Proposed { index, term, ticket: Some(ticket), bytes: 0 });
                if gives_keys_away {
                    self.splitting.proposed = (term, index);
                }
            }
            Err(error) => out.answer(ticket, Answer::Refused(error)),
        }
    }

    pub(super) fn append_command(&mut self, command: Command, out: &Outbox) -> Result<u64, RegionError> {
        let region = self.region.id;
        if !self.leads() {
            return Err(self.not_leader(out));
        }
        if matches!(command.action, Action::Write(_)) {
            return Err(RegionError::Impossible { region, why: "writes are proposed as such" });
        }
        if self.is_transferring() {
            return Err(self.busy("another change of the members, or a transfer, is under way"));
        }
        let changes_range = command.action.gives_keys_away() || command.action.is_of_merge();
        if changes_range && !out.leadership.is_able() {
            return Err(self.busy("this store could not lead the new regions: it stops, or its log cannot be written"));
        }
        if changes_range && (self.members.is_joint() || self.is_passing_leader()) {
            return Err(self.busy("its joint configuration has to end first, and a voter has to lead"));
        }
        if matches!(command.action, Action::ComputeChecksum { .. }) {
            self.check_may_begin(out)?;
        }
        if matches!(command.action, Action::SetGcSafePoint(_)) {
            self.check_versions(|store| out.leadership.knows_gc(store))?;
            // What was handed over before it must not follow it in the log. The caller has appended a group of it.
            if !self.queue.is_empty() {
                return Err(self.busy("writes wait to enter the log"));
            }
        }
        // By the descriptor that is handed out for apply: what is in the log behind it is decided when it is applied.
        command::decide(self.families, &self.members, command.clone()).map_err(|refusal| match refusal {
            Refusal::Impossible(why) => RegionError::Impossible { region, why },
            Refusal::Merging => self.busy("it is being merged"),
            Refusal::Stale | Refusal::ForeignKey => refusal.answer(&self.members),
        })?;
        let change = match &command.action {
            Action::ChangeMembers(change) => Some(change.clone()),
            _ => None,
        };
        if let Some(change) = &change {
            self.check_change(change, out)?;
        }
        let is_check = matches!(command.action, Action::ComputeChecksum { .. });
        let (carrier, context, data) = command::encode(self.families, command);
        debug_assert_eq!(change.is_some(), carrier != Carrier::Normal);
        let index = match &change {
            Some(change) => self.group.propose_change(context, change),
            None => self.group.propose(vec![(context, data)]),
        };
        if let (Some(index), Some(MemberChange::Remove(id))) = (index, change) {
            self.noted.push((index, Noted::Removes(id)));
        }
        if let Some(index) = index.filter(|_| is_check) {
            self.check_proposed(index);
        }
        index.ok_or_else(|| self.busy("another change of the members, or a transfer, is under way"))
    }

    pub(super) fn busy(&self, reason: &str) -> RegionError {
        RegionError::ServerIsBusy { region: self.region.id, reason: reason.to_owned() }
    }

    /// Appends what is queued, unless it waits for more ([`super::gather`]), as one group of at most the size of the
    /// largest proposal (or one proposal). The rest waits for the next poll, so that no persist grows without bound.
    pub(super) fn flush_proposals(&mut self, out: &mut Outbox) {
        self.measure_round(out.now);
        if !self.gathers() {
            self.append_queue(out);
        }
    }

    fn append_queue(&mut self, out: &mut Outbox) {
        if self.queue.is_empty() {
            return;
        }
        let mut bytes = 0;
        let fits = |queued: &&Queued| {
            bytes += queued.bytes;
            bytes <= self.config.proposal_bytes_max
        };
        let count = self.queue.iter().take_while(fits).count();
        assert!(count > 0, "every admitted proposal fits");
        let proposals = self.queue.iter().take(count).map(|queued| (queued.context.clone(), queued.data.clone()));
        let Some(first_index) = self.group.propose(proposals.collect()) else { return self.refuse_queue(out) };
        let term = self.group.term();
        let early = self.config.planted().acknowledge_before_quorum;
        let rest = self.queue.split_off(count);
        if self.config.planted().proposal_term_not_checked {
            // Proposals of an earlier leadership above the log's end.
            let ends = self.proposals.partition_point(|left| left.index < first_index);
            for left in self.proposals.split_off(ends) {
                self.forget(left, Answer::Dropped, out);
            }
        }
        assert!(self.proposals.back().is_none_or(|last| last.index < first_index), "the log grows");
        for (queued, index) in std::mem::replace(&mut self.queue, rest).into_iter().zip(first_index..) {
            if early {
                out.answer(queued.ticket, Answer::Ok { index });
            }
            let ticket = Some(queued.ticket).filter(|_| !early);
            self.proposals.push_back(Proposed { index, term, ticket, bytes: queued.bytes });
        }
        self.begin_round(out.now);
    }

    /// Whether proposals wait only for the next poll.
    pub fn has_queue(&self) -> bool {
        !self.queue.is_empty() && !self.gathers()
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queue.iter().map(|queued| queued.bytes).sum()
    }

    /// What is queued never entered the log.
    pub(super) fn refuse_queue(&mut self, out: &mut Outbox) {
        let leader = if self.leads() { None } else { self.leader() };
        for queued in std::mem::take(&mut self.queue) {
            self.unapplied_bytes -= queued.bytes;
            let error = RegionError::NotLeader { region: self.region.id, leader };
            out.answer(queued.ticket, Answer::Refused(error));
        }
    }

    /// Leadership ended: proposals above `committed` may or may not be applied later. Those at or below it are decided:
    /// apply will show whether they are the entries that were committed.
    pub(super) fn drop_proposals_above(&mut self, committed: u64, out: &mut Outbox) {
        if self.config.planted().proposal_term_not_checked {
            return;
        }
        while self.proposals.back().is_some_and(|proposed| proposed.index > committed) {
            let proposed = self.proposals.pop_back().expect("just seen");
            self.forget(proposed, Answer::Dropped, out);
        }
    }

    /// Answers proposals that are in the log and will have no effect.
    pub(super) fn refuse_proposals(&mut self, error: RegionError, out: &mut Outbox) {
        while let Some(proposed) = self.proposals.pop_front() {
            self.forget(proposed, Answer::Refused(error.clone()), out);
        }
    }

    /// Answers proposals through `index` that will not be seen at apply, because a snapshot contains their outcome.
    pub(super) fn drop_all_proposals(&mut self, out: &mut Outbox) {
        while let Some(proposed) = self.proposals.pop_front() {
            self.forget(proposed, Answer::Dropped, out);
        }
    }

    fn forget(&mut self, proposed: Proposed, answer: Answer, out: &mut Outbox) {
        assert!(!matches!(answer, Answer::Ok { .. }), "only apply answers that it happened");
        self.unapplied_bytes -= proposed.bytes;
        if let Some(ticket) = proposed.ticket {
            out.answer(ticket, answer);
        }
    }

    /// The proposal whose entry is committed at (index, term), if it was made here. Proposals that were superseded by
    /// another entry are answered: they never take effect.
    pub(super) fn take_proposal(&mut self, index: u64, term: u64, out: &mut Outbox) -> Option<Proposed> {
        while self.proposals.front().is_some_and(|proposed| proposed.index <= index) {
            let proposed = self.proposals.pop_front().expect("just seen");
            let term = if self.config.planted().proposal_term_not_checked { proposed.term } else { term };
            if (proposed.index, proposed.term) == (index, term) {
                return Some(proposed);
            }
            self.forget(proposed, Answer::Refused(RegionError::StaleCommand), out);
        }
        None
    }
}
