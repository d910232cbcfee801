//! Which changes of the members a leader proposes, and how a joint configuration ends.
//!
//! A change is refused, with a reason, if it could leave the region without a leader or without a quorum: what the
//! replicas do not hold and what they do not answer is known at the leader, and nothing of it can be seen in the
//! descriptor. So these checks belong to the proposal, and not to [`crate::command::decide`].

use super::Peer;
use crate::command::{Action, Command};
use crate::error::RegionError;
use crate::outbox::Outbox;
use crate::region::{self, MemberChange, PeerId, StoreId};

impl Peer {
    /// Whether a change that can be made of the descriptor may be proposed now.
    pub(super) fn check_change(&self, change: &MemberChange, out: &Outbox) -> Result<(), RegionError> {
        if self.group.has_pending_change() {
            return Err(self.busy("another change of the members, or a transfer, is under way"));
        }
        if change.ends_vote_of(self.me.id) {
            return Err(self.busy("a leader is not removed or demoted; transfer the leadership first"));
        }
        if let Some(learner) = change.promoted().into_iter().find(|id| !self.has_caught_up(*id, out)) {
            let learner = learner.0;
            return Err(self.busy(&format!("replica {learner} does not answer, or lacks entries; promote it later")));
        }
        // A store of an earlier version takes every replica for a voter.
        if !matches!(change, MemberChange::Add(_) | MemberChange::Remove(_)) {
            self.check_versions(|store| out.leadership.knows_roles(store))?;
        }
        let Ok(after) = self.members.changed(change) else { return Ok(()) };
        // A store of an earlier version does not read the safe point in the descriptor, and would serve reads below it.
        if self.members.gc_safe_point != 0 {
            let new = after.peers.iter().filter(|peer| self.members.peer(peer.id).is_none());
            self.check_versions_of(new, |store| out.leadership.knows_gc(store))?;
        }
        // A new replica has answered nothing, and counts as one that does not. The end of a joint configuration needs
        // those who have what was decided in it, and gets them by its own commit.
        let is_end = *change == MemberChange::LeaveJoint;
        let counts = |id| self.answers(id, out) && (is_end || self.has_data(id));
        if !after.is_quorum(|id| id == self.me.id || counts(id)) {
            return Err(self.busy("too few of the voters that the change would leave answer and have data"));
        }
        if *change == MemberChange::LeaveJoint && !self.members.is_lasting_voter(self.me.id) {
            return Err(self.busy("a voter that stays one has to lead first"));
        }
        Ok(())
    }

    /// Whether a replica has confirmed the leadership within the last election timeout.
    pub(super) fn answers(&self, id: PeerId, out: &Outbox) -> bool {
        let heard_at = self.lease.confirmed_at(id);
        heard_at.is_some_and(|at| out.now.saturating_sub(at) < self.config.promise_duration())
    }

    /// Whether the stores of all other replicas have said that they know what is to be proposed.
    pub(super) fn check_versions(&self, knows: impl Fn(StoreId) -> bool) -> Result<(), RegionError> {
        self.check_versions_of(self.members.peers.iter().filter(|peer| peer.id != self.me.id), knows)
    }

    fn check_versions_of<'a>(
        &self,
        mut peers: impl Iterator<Item = &'a region::Peer>,
        knows: impl Fn(StoreId) -> bool,
    ) -> Result<(), RegionError> {
        match peers.find(|peer| !knows(peer.store)) {
            Some(peer) => {
                let store = peer.store.0;
                Err(self.busy(&format!("store {store} has said nothing yet, or has an earlier version; upgrade it")))
            }
            None => Ok(()),
        }
    }

    /// Whether a follower has data of its own, and is not to be removed: a new replica answers before it has any.
    pub(super) fn has_data(&self, id: PeerId) -> bool {
        self.is_whole(id) && self.group.matched(id).is_some_and(|matched| matched > 0)
    }

    /// Whether a learner may vote from now on: quorums that count on it must not wait for it. That its log is a few
    /// entries behind is not enough: on a young log this is so for one that has never answered. So this leader must
    /// have seen its match index move, it must have all its data, and it must answer now.
    fn has_caught_up(&self, id: PeerId, out: &Outbox) -> bool {
        let planted = self.config.planted().promote_unseen;
        let matched = self.group.matched(id).unwrap_or(0);
        let is_close = matched + self.config.promotion_lag_entries_max >= self.group.committed();
        // The core goes on probing a follower whose snapshot ended where the log ends, until there is more to send.
        let gets_entries = self.group.is_replicating_to(id) || matched == self.group.last_index();
        let is_ready = gets_entries && is_close && !self.flow.full_followers.contains(&id);
        planted || is_ready && self.has_data(id) && self.answers(id, out)
    }

    /// A leader ends a joint configuration that is applied. Not one that is a learner afterwards: it hands over first
    /// (`leader_transfer.rs`).
    pub(super) fn tick_joint(&mut self, out: &mut Outbox) {
        let is_visible = self.region.epoch == self.members.epoch;
        let is_due = self.leads() && self.members.is_joint() && is_visible && !self.group.has_pending_change();
        if is_due {
            let (epoch, action) = (self.members.epoch, Action::ChangeMembers(MemberChange::LeaveJoint));
            // Refused until another replica leads or enough of them answer: the next tick tries again.
            let _ = self.append_command(Command { epoch, action }, out);
        }
    }

    /// Whether this leader has to hand over because it does not vote once no joint configuration is left. It can be
    /// elected in a joint configuration, where only it may have everything that is committed.
    pub(super) fn is_passing_leader(&self) -> bool {
        self.leads() && !self.members.is_lasting_voter(self.me.id)
    }
}
