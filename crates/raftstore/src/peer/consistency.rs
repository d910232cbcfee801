//! Whether the replicas of a region hold the same data. docs/internals/consistency.md has the design.
//!
//! A command in the log names the state that is compared: every replica ends an apply round with it and takes a view
//! before the next round, so that the view holds exactly what the log says up to there. The results go to the leader.
//! What a quorum agrees on is right: if some replica has another result, or none yet, a second command says what it is,
//! and a replica that differs stops its node.

use super::Peer;
use crate::command::{Action, Command};
use crate::consensus::wire::{ChecksumResult, StoreMessage};
use crate::effect::{CheckOutcome, ChecksumTask, Observation};
use crate::error::{Fault, FaultKind, RegionError};
use crate::outbox::Outbox;
use crate::region::{self, PeerId, Region, StoreId};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Consistency {
    /// The command that was handed out last, until its round is visible.
    view_due: Option<ChecksumTask>,
    /// The last state that was compared.
    own: Option<Own>,
    /// At the leader: the check under way.
    tally: Option<Tally>,
    /// At the leader: results of followers for a command that is not handed out here, because their disks were faster.
    early: BTreeMap<PeerId, ChecksumResult>,
    /// Term and index of the last command that this replica proposed as leader.
    proposed: (u64, u64),
}

struct Own {
    index: u64,
    /// `None` until it is computed.
    checksum: Option<u64>,
    /// What a quorum agreed on, if that is known.
    expected: Option<u64>,
}

struct Tally {
    index: u64,
    members: Arc<Region>,
    /// `None`: that replica could not compute it.
    results: BTreeMap<PeerId, Option<u64>>,
    waited_ticks: u64,
}

impl Tally {
    /// The result of a quorum, if there is one.
    fn agreed(&self) -> Option<u64> {
        let has = |id, value| self.results.get(&id) == Some(&Some(value));
        let mut values = self.results.values().flatten().copied();
        values.find(|value| self.members.is_quorum(|id| has(id, *value)))
    }

    /// Whether no further result can be expected soon.
    fn is_complete(&self, out: &Outbox) -> bool {
        let is_known =
            |peer: &region::Peer| self.results.contains_key(&peer.id) || out.leadership.is_silent(peer.store);
        self.members.peers.iter().all(is_known)
    }

    fn outcome(&self) -> CheckOutcome {
        let agreed = self.agreed();
        let stores = |is_one: &dyn Fn(Option<u64>) -> bool| -> Vec<StoreId> {
            let result = |id| self.results.get(&id).copied().flatten();
            self.members.peers.iter().filter(|peer| is_one(result(peer.id))).map(|peer| peer.store).collect()
        };
        let mut values = self.results.values().flatten().copied();
        let first = values.next();
        let right = if values.all(|value| Some(value) == first) { first } else { agreed };
        CheckOutcome {
            checksum: agreed,
            agreeing: stores(&|result| result.is_some() && result == right),
            differing: stores(&|result| result.is_some() && result != right),
            missing: stores(&|result| result.is_none()),
        }
    }
}

impl Peer {
    /// Whether nothing is handed out for apply because a view of what was handed out has to be taken first.
    pub(super) fn waits_for_view(&self) -> bool {
        self.consistency.view_due.is_some() && !self.config.planted().checksum_beside_applies
    }

    /// Whether a check is under way at this leader.
    pub(super) fn checks_consistency(&self) -> bool {
        self.consistency.tally.is_some()
    }

    /// Whether a check can begin: one at a time, and every replica knows the command.
    pub(super) fn check_may_begin(&self, out: &Outbox) -> Result<(), RegionError> {
        let (term, index) = self.consistency.proposed;
        let is_in_log = term == self.group.term() && index > self.handed;
        if is_in_log || self.checks_consistency() {
            return Err(self.busy("its replicas are being compared already"));
        }
        for peer in self.members.peers.iter().filter(|peer| peer.id != self.me.id) {
            if out.leadership.is_silent(peer.store) {
                let why = "a store with a replica does not answer: see `kontiki status`";
                return Err(RegionError::Impossible { region: self.region.id, why });
            }
            if !out.leadership.can_compare_expiring(peer.store) {
                return Err(self.busy(&format!("store {} has not said that it can compare replicas", peer.store)));
            }
        }
        Ok(())
    }

    /// The state as of this entry is to be compared.
    pub(super) fn begin_checksum(&mut self, index: u64, expires_after_ms: u64, out: &mut Outbox) {
        self.give_check_up(out);
        assert!(self.consistency.view_due.is_none(), "nothing follows it in its round");
        self.consistency.view_due = Some(ChecksumTask { region: self.members.clone(), index, expires_after_ms });
        self.consistency.own = Some(Own { index, checksum: None, expected: None });
        let mut early = std::mem::take(&mut self.consistency.early);
        if self.leads() {
            early.retain(|id, result| result.index == index && self.members.peer(*id).is_some());
            let results = early.into_iter().map(|(id, result)| (id, result.checksum)).collect();
            let members = self.members.clone();
            self.consistency.tally = Some(Tally { index, members, results, waited_ticks: 0 });
        }
    }

    /// A round is visible: the view is taken before the next one.
    pub(super) fn order_checksum(&mut self, out: &mut Outbox) {
        if let Some(task) = self.consistency.view_due.take_if(|task| task.index <= self.applied.index) {
            assert_eq!(task.index, self.applied.index, "the command ends its round");
            out.checksums.push(task);
        }
    }

    /// A checksum was computed here, or could not be.
    pub fn checksummed(&mut self, index: u64, result: Result<u64, String>, out: &mut Outbox) {
        if let Err(error) = &result {
            tracing::warn!(region = self.region.id.0, index, error, "the checksum of a region was not computed");
        }
        let Some(own) = self.consistency.own.as_mut().filter(|own| own.index == index) else { return };
        own.checksum = result.as_ref().ok().copied();
        self.compare(out);
        let result = result.ok();
        if self.leads() {
            self.count_checksum(self.me.id, index, result, out);
        } else if let Some(leader) = self.leader() {
            let checksum = Some(ChecksumResult { index, checksum: result });
            let envelope = StoreMessage { checksum, ..self.envelope(leader, out) };
            out.send.push((leader.store, envelope.encode_to_vec().into()));
        }
    }

    /// A follower's result.
    pub fn take_checksum(&mut self, from: region::Peer, message: &ChecksumResult, out: &mut Outbox) {
        if self.leads() && message.index > self.handed {
            self.consistency.early.insert(from.id, *message);
        }
        self.count_checksum(from.id, message.index, message.checksum, out);
    }

    fn count_checksum(&mut self, from: PeerId, index: u64, result: Option<u64>, out: &mut Outbox) {
        let Some(tally) = self.consistency.tally.as_mut().filter(|tally| tally.index == index) else { return };
        if tally.members.peer(from).is_some() {
            tally.results.insert(from, result);
        }
        if tally.is_complete(out) {
            self.end_check(out);
        }
    }

    pub(super) fn tick_consistency(&mut self, out: &mut Outbox) {
        let Some(tally) = &mut self.consistency.tally else { return };
        tally.waited_ticks += 1;
        if tally.waited_ticks >= self.config.checksum_ticks_max || tally.is_complete(out) {
            self.end_check(out);
        }
    }

    /// A check was proposed.
    pub(super) fn check_proposed(&mut self, index: u64) {
        self.consistency.proposed = (self.group.term(), index);
    }

    /// It leads no more.
    pub(super) fn end_checks(&mut self, out: &mut Outbox) {
        self.consistency.early.clear();
        self.give_check_up(out);
    }

    fn give_check_up(&mut self, out: &mut Outbox) {
        if self.consistency.tally.is_some() {
            self.report_check(out);
        }
    }

    fn end_check(&mut self, out: &mut Outbox) {
        let (index, outcome) = self.report_check(out);
        if let Some(checksum) = outcome.checksum.filter(|_| !outcome.is_equal()) {
            let action = Action::VerifyChecksum { index, checksum };
            let command = Command { epoch: self.members.epoch, action };
            if let Err(error) = self.append_command(command, out) {
                tracing::warn!(region = self.region.id.0, %error, "a checksum was not announced; the next check will");
            }
        }
    }

    fn report_check(&mut self, out: &mut Outbox) -> (u64, CheckOutcome) {
        let tally = self.consistency.tally.take().expect("the caller saw one");
        let (region, index, outcome) = (self.region.id, tally.index, tally.outcome());
        out.observations.push(Observation::Checked { region, index, outcome: outcome.clone() });
        (index, outcome)
    }

    /// A quorum has agreed on the checksum as of an index.
    pub(super) fn expect_checksum(&mut self, index: u64, checksum: u64, out: &mut Outbox) {
        if let Some(own) = self.consistency.own.as_mut().filter(|own| own.index == index) {
            own.expected = Some(checksum);
            self.compare(out);
        }
    }

    fn compare(&self, out: &mut Outbox) {
        let Some(Own { index, checksum: Some(own), expected: Some(expected) }) = self.consistency.own else { return };
        if own != expected {
            let what = format!(
                "the data of this replica at index {index} of its log differ from those of a quorum of replicas \
                 (checksum {own:016x}, theirs {expected:016x})"
            );
            out.fail(Fault { region: self.region.id, what, kind: FaultKind::Inconsistent });
        }
    }
}
