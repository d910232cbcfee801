//! The safe timestamp of a region: what a replica may be read at without asking its leader. The design is in
//! docs/internals/stale-reads.md.
//!
//! A *claim* of a leader says: a replica of the region in this version that has applied this index has everything that
//! is ever committed at or below this timestamp. It is true for ever, under every later leader, so it needs no term,
//! and among claims for one version the highest counts. The version says which keys it is about.
//!
//! For a claim the leader gets a timestamp first, confirms *then* that no other leader had been elected when it was
//! handed out, and takes a view with everything that was committed at that moment. Confirming takes its lease, or else
//! a word of a quorum that is still in its term; unlike a read barrier, that wakes no replica up and is one message for
//! all regions of a pair of stores (`store/safe_ts.rs`).

use super::Peer;
use super::reads::Waiter;
use crate::consensus::wire::SafeTsRegion;
use crate::effect::SafeTsClaim;
use crate::outbox::Outbox;
use crate::region::{PeerId, PeerRole, StoreId};
use std::collections::BTreeSet;

#[derive(Default)]
pub(super) struct SafeTs {
    /// At the leader: the round in which its leadership is being confirmed.
    round: Option<Round>,
    /// Claims that wait for what is applied here. While the first one waits only the newest of the others is kept, so a
    /// replica that lags by some rounds gets on as well.
    next: Option<SafeTsClaim>,
    last: Option<SafeTsClaim>,
}

struct Round {
    ts: u64,
    term: u64,
    /// What was committed when the round began: everything that was acknowledged before is at or below it.
    index: u64,
    confirmed: BTreeSet<PeerId>,
}

impl Peer {
    /// A round with this timestamp begins. Returns the stores that have to confirm that this replica leads.
    pub fn begin_safe_ts(&mut self, ts: u64, out: &mut Outbox) -> Vec<StoreId> {
        self.safe_ts.round = None;
        let is_readable = self.leading.is_some() && self.applied.term == self.group.term();
        // The target of a merge may have accepted writes of this range.
        if !is_readable || self.removed || self.is_merging() {
            return Vec::new();
        }
        let index = self.group.committed();
        let holds_lease = self.lease_until(out.now).is_some_and(|until| until > out.now);
        if holds_lease || self.config.planted().safe_ts_unconfirmed {
            self.confirm_at(index, Waiter::SafeTs(ts));
            return Vec::new();
        }
        self.safe_ts.round = Some(Round { ts, term: self.group.term(), index, confirmed: BTreeSet::new() });
        let others = self.members.peers.iter().filter(|peer| peer.id != self.me.id);
        others.filter(|peer| self.members.role(peer.id) != PeerRole::Learner).map(|peer| peer.store).collect()
    }

    /// What the others are asked, or answer.
    pub fn safe_ts_record(&self) -> SafeTsRegion {
        SafeTsRegion {
            region: self.region.id.0,
            peer: self.me.id.0,
            conf_version: self.members.epoch.conf_version,
            term: self.group.term(),
            ..SafeTsRegion::default()
        }
    }

    /// Whether this replica is in the term of the leader that asks, and follows it: then no other had been elected with
    /// its vote.
    pub fn confirms_leader(&self, asked: &SafeTsRegion) -> bool {
        !self.removed && self.group.term() == asked.term && self.group.leader() == Some(PeerId(asked.peer))
    }

    /// Another replica has confirmed that this one leads, in the round with this timestamp.
    pub fn safe_ts_confirmed(&mut self, ts: u64, from: PeerId) {
        let term = self.group.term();
        let is_it = |round: &&mut Round| round.ts == ts && round.term == term;
        let Some(round) = self.safe_ts.round.as_mut().filter(is_it) else { return };
        round.confirmed.insert(from);
        let (me, confirmed) = (self.me.id, &round.confirmed);
        if self.group.is_quorum(|peer| peer == me || confirmed.contains(&peer)) {
            let index = round.index;
            self.safe_ts.round = None;
            self.confirm_at(index, Waiter::SafeTs(ts));
        }
    }

    pub(super) fn end_safe_ts_round(&mut self) {
        self.safe_ts.round = None;
    }

    /// A claim came, from the leader or of this replica's own.
    pub fn learn_claim(&mut self, claim: SafeTsClaim) {
        let safe_ts = &mut self.safe_ts;
        match &safe_ts.next {
            None => safe_ts.next = Some(claim),
            Some(_) if safe_ts.last.is_none_or(|last| last.safe_ts < claim.safe_ts) => safe_ts.last = Some(claim),
            Some(_) => {}
        }
    }

    /// Readers get the claims whose index is visible to them. Called when they have the present descriptor.
    pub(super) fn expose_safe_ts(&mut self) {
        let (applied, at_once) = (self.applied.index, self.config.planted().safe_ts_before_apply);
        if self.waits_for_install() {
            // Of what was applied, the install may have replaced a part.
            return;
        }
        while let Some(claim) = self.safe_ts.next.take_if(|claim| claim.index <= applied || at_once) {
            if claim.version == self.region.epoch.version {
                self.slot.raise_safe_ts(claim.safe_ts);
            }
            self.safe_ts.next = self.safe_ts.last.take();
        }
    }

    /// Entries that a lost majority had acknowledged may be replaced: what was claimed about them is void.
    pub(super) fn forget_safe_ts(&mut self) {
        self.safe_ts = SafeTs::default();
        self.slot.reset_safe_ts();
    }
}
