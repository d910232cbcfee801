use super::*;
use crate::model::region_of_three as region;
use crate::region::StoreId;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn peer(id: u64) -> Peer {
    Peer { id: PeerId(id), store: StoreId(10 + id) }
}

fn after(region: &Region, change: MemberChange) -> Region {
    region.changed(&change).unwrap_or_else(|why| panic!("{change:?}: {why}"))
}

fn roles(region: &Region) -> Vec<PeerRole> {
    region.peers.iter().map(|peer| region.role(peer.id)).collect()
}

fn swap(learner: u64, voter: u64) -> MemberChange {
    MemberChange::Jointly(vec![RoleChange::Promote(PeerId(learner)), RoleChange::Demote(PeerId(voter))])
}

#[test]
fn a_replica_is_replaced_by_a_learner_that_is_promoted_jointly() {
    use PeerRole::*;
    let learning = after(&region(), MemberChange::AddLearner(peer(4)));
    assert_eq!(roles(&learning), [Voter, Voter, Voter, Learner]);
    let joint = after(&learning, swap(4, 3));
    assert_eq!(roles(&joint), [Voter, Voter, DemotingVoter, IncomingVoter]);
    let left = after(&joint, MemberChange::LeaveJoint);
    assert_eq!(roles(&left), [Voter, Voter, Learner, Voter]);
    let removed = after(&left, MemberChange::Remove(PeerId(3)));
    assert_eq!((roles(&removed), removed.roles.len()), (vec![Voter; 3], 0));
    assert_eq!(removed.epoch.conf_version, 5);
}

#[test]
fn what_cannot_be_made_is_refused() {
    let learning = after(&region(), MemberChange::AddLearner(peer(4)));
    let joint = after(&learning, swap(4, 3));
    let alone = Region { peers: vec![peer(1)], ..region() };
    let alone = after(&alone, MemberChange::AddLearner(peer(2)));
    let demote = |id| RoleChange::Demote(PeerId(id));
    for (why, region, change) in [
        ("a voter is promoted", &learning, MemberChange::Promote(PeerId(1))),
        ("a learner is demoted", &learning, MemberChange::Demote(PeerId(4))),
        ("a replica that is not there", &learning, MemberChange::Promote(PeerId(9))),
        (
            "a learner on a store that has a voter",
            &learning,
            MemberChange::AddLearner(Peer { id: PeerId(9), ..peer(1) }),
        ),
        ("the last voter is removed", &alone, MemberChange::Remove(PeerId(1))),
        ("the last voter is demoted", &alone, MemberChange::Demote(PeerId(1))),
        ("no joint configuration", &learning, MemberChange::LeaveJoint),
        ("a joint change of nothing", &learning, MemberChange::Jointly(Vec::new())),
        ("the same replica twice", &learning, MemberChange::Jointly(vec![demote(3), demote(3)])),
        ("all are demoted", &region(), MemberChange::Jointly(vec![demote(1), demote(2), demote(3)])),
        ("a change within a joint configuration", &joint, MemberChange::Remove(PeerId(2))),
        ("a joint change within another", &joint, MemberChange::Jointly(vec![demote(2)])),
    ] {
        assert!(region.changed(&change).is_err(), "{why}");
    }
}

#[test]
fn a_joint_quorum_has_a_majority_of_the_old_and_of_the_new_voters() {
    let learning = after(&after(&region(), MemberChange::AddLearner(peer(4))), MemberChange::AddLearner(peer(5)));
    let has = |region: &Region, ids: &[u64]| region.is_quorum(|id| ids.contains(&id.0));
    assert!(has(&learning, &[1, 2]) && !has(&learning, &[1, 4, 5]), "learners count for nothing");
    let (two, three) = ([RoleChange::Promote(PeerId(4)), RoleChange::Promote(PeerId(5))], [2, 3]);
    let demoted = three.map(|id| RoleChange::Demote(PeerId(id)));
    let joint = after(&learning, MemberChange::Jointly([two, demoted].concat()));
    assert!(!has(&joint, &[1, 2]) && !has(&joint, &[1, 4]), "half of it");
    assert!(has(&joint, &[1, 2, 4]) && has(&joint, &[2, 3, 4, 5]));
    assert!(has(&after(&joint, MemberChange::LeaveJoint), &[1, 4]));
}

/// Any change, of replicas that may not exist.
pub(crate) fn any_change() -> impl Strategy<Value = MemberChange> {
    let id = || (1u64..8).prop_map(PeerId);
    let role = prop_oneof![id().prop_map(RoleChange::Promote), id().prop_map(RoleChange::Demote)];
    prop_oneof![
        (1u64..8).prop_map(|id| MemberChange::Add(peer(id))),
        (1u64..8).prop_map(|id| MemberChange::AddLearner(peer(id))),
        id().prop_map(MemberChange::Remove),
        id().prop_map(MemberChange::Promote),
        id().prop_map(MemberChange::Demote),
        prop::collection::vec(role, 0..5).prop_map(MemberChange::Jointly),
        Just(MemberChange::LeaveJoint),
    ]
}

proptest! {
    /// The ground of every argument about leaders, commits and leases: quorums of two configurations that follow each
    /// other have a replica in common.
    #[test]
    fn quorums_of_two_configurations_in_a_row_meet(changes in prop::collection::vec(any_change(), 1..40)) {
        let mut now = region();
        for change in changes {
            let Ok(next) = now.changed(&change) else { continue };
            prop_assert_eq!(next.epoch.conf_version, now.epoch.conf_version + 1);
            prop_assert!(next.peers.is_sorted_by(|a, b| a.id < b.id));
            prop_assert!(next.roles.keys().all(|id| next.peer(*id).is_some()), "roles of members");
            prop_assert!(next.voter_count() > 0);
            let stores: BTreeSet<_> = next.peers.iter().map(|peer| peer.store).collect();
            prop_assert_eq!(stores.len(), next.peers.len(), "one replica on a store");
            for bits in 0u32..1 << 8 {
                let is_in = |id: PeerId| bits & 1 << id.0 != 0;
                if now.is_quorum(is_in) {
                    prop_assert!(!next.is_quorum(|id| !is_in(id)), "{now:?} and {next:?}: {bits:b}");
                }
            }
            now = next;
        }
    }
}
