//! Which changes of the members a leader proposes, and how a joint configuration ends.
//!
//! A change is refused, with a reason, if it could leave the region without a leader or without a quorum: what the
//! replicas do not hold and what they do not answer is known at the leader, and nothing of it can be seen in the
//! descriptor. So these checks belong to the proposal, and not to [`crate::command::decide`].

use super::Peer;
use crate::command::{Action, Command};
use crate::error::RegionError;
use crate::outbox::Outbox;
use crate::region::{MemberChange, PeerId};

impl Peer {
    /// Whether a change that can be made of the descriptor may be proposed now.
    pub(super) fn check_change(&self, change: &MemberChange, out: &Outbox) -> Result<(), RegionError> {
        if change.ends_vote_of(self.me.id) {
            return Err(self.busy("a leader is not removed or demoted; transfer the leadership first"));
        }
        if let Some(learner) = change.promoted().find(|id| !self.has_caught_up(*id, out)) {
            let learner = learner.0;
            return Err(self.busy(&format!("replica {learner} does not answer, or lacks entries; promote it later")));
        }
        let Ok(after) = self.members.changed(change) else { return Ok(()) };
        // A new replica has answered nothing, and counts as one that does not.
        if !after.is_quorum(|id| id == self.me.id || self.answers(id, out)) {
            return Err(self.busy("too few of the voters that the change would leave answer"));
        }
        if *change == MemberChange::LeaveJoint && !self.members.is_lasting_voter(self.me.id) {
            return Err(self.busy("a voter that stays one has to lead first"));
        }
        Ok(())
    }

    /// Whether a replica has confirmed the leadership within the last election timeout.
    fn answers(&self, id: PeerId, out: &Outbox) -> bool {
        let heard_at = self.lease.confirmed_at(id);
        heard_at.is_some_and(|at| out.now.saturating_sub(at) < self.config.promise_duration())
    }

    /// Whether a learner may vote from now on: quorums that count on it must not wait for it. That its log is a few
    /// entries behind is not enough: on a young log this is so for one that has never answered. So this leader must
    /// have seen its match index move, it must have all its data, and it must answer now.
    fn has_caught_up(&self, id: PeerId, out: &Outbox) -> bool {
        let planted = self.config.planted().promote_unseen;
        let is_close =
            |matched: u64| matched > 0 && matched + self.config.promotion_lag_entries_max >= self.group.committed();
        let has_data = self.is_whole(id) && !self.flow.full_followers.contains(&id);
        let is_ready = self.group.is_replicating_to(id) && has_data && self.answers(id, out);
        planted || is_ready && self.group.matched(id).is_some_and(is_close)
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
