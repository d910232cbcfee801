//! A region's configuration in the terms of the raft crate.
//!
//! A change of one replica is an entry of the crate's first kind, as in earlier versions. A joint change is one of its
//! second kind, which the crate must not end by itself (`Explicit`): its entry would carry no command, so the
//! descriptor would not change.

use crate::region::{MemberChange, PeerId, PeerRole, Region, RoleChange};
use protobuf::RepeatedField;
use raft::eraftpb::{ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};

/// The configuration of a descriptor.
pub(super) fn conf_state(region: &Region) -> ConfState {
    let with = |is_in: fn(PeerRole) -> bool| -> Vec<u64> {
        region.peers.iter().map(|peer| peer.id).filter(|id| is_in(region.role(*id))).map(|id| id.0).collect()
    };
    let mut state = ConfState::default();
    state.set_voters(with(PeerRole::votes_after));
    state.set_learners(with(|role| role == PeerRole::Learner));
    if region.is_joint() {
        state.set_voters_outgoing(with(PeerRole::votes_before));
        state.set_learners_next(with(|role| role == PeerRole::DemotingVoter));
    }
    state
}

/// The crate's form of a change of one replica.
pub(super) fn change_of_one(change: &MemberChange) -> Option<ConfChange> {
    let (kind, id) = match change {
        MemberChange::Add(peer) => (ConfChangeType::AddNode, peer.id),
        MemberChange::Promote(id) => (ConfChangeType::AddNode, *id),
        MemberChange::AddLearner(peer) => (ConfChangeType::AddLearnerNode, peer.id),
        MemberChange::Demote(id) => (ConfChangeType::AddLearnerNode, *id),
        MemberChange::Remove(id) => (ConfChangeType::RemoveNode, *id),
        MemberChange::Jointly(_) | MemberChange::LeaveJoint => return None,
    };
    let mut core = ConfChange::default();
    core.set_change_type(kind);
    core.node_id = id.0;
    Some(core)
}

/// The same, as a part of a change.
pub(super) fn part_of_change(change: &MemberChange) -> Option<ConfChangeSingle> {
    let whole = change_of_one(change)?;
    let mut part = ConfChangeSingle::default();
    part.set_change_type(whole.get_change_type());
    part.node_id = whole.node_id;
    Some(part)
}

/// The crate's form of a joint change, or of its end, which is an empty one.
pub(super) fn change_of_several(change: &MemberChange) -> ConfChangeV2 {
    let mut core = ConfChangeV2::default();
    if let MemberChange::Jointly(changes) = change {
        let changes = changes.iter().map(|change| {
            let (kind, PeerId(id)) = match change {
                RoleChange::Promote(id) => (ConfChangeType::AddNode, *id),
                RoleChange::Demote(id) => (ConfChangeType::AddLearnerNode, *id),
            };
            let mut core = ConfChangeSingle::default();
            core.set_change_type(kind);
            core.node_id = id;
            core
        });
        core.set_changes(RepeatedField::from_vec(changes.collect()));
        core.set_transition(ConfChangeTransition::Explicit);
    }
    core
}

#[cfg(test)]
#[path = "configuration_test.rs"]
mod tests;
