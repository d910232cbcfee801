use super::*;
use crate::region::{MemberChange, Peer, PeerId, PeerRole, RegionId, Space};
use bytes::Bytes;
use proptest::prelude::*;

fn region(stores: &[u64], conf_version: u64) -> Region {
    Region {
        id: RegionId(2),
        start_key: Bytes::new(),
        end_key: Bytes::new(),
        epoch: Epoch { conf_version, version: 4 },
        peers: stores.iter().map(|store| Peer { id: PeerId(2000 + store), store: StoreId(*store) }).collect(),
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    }
}

fn recovery(number: u64, lost: &[u64]) -> Recovery {
    Recovery { number, lost: lost.iter().copied().map(StoreId).collect(), ..Recovery::default() }
}

fn stores(region: &Region) -> Vec<u64> {
    region.peers.iter().map(|peer| peer.store.0).collect()
}

#[test]
fn a_lost_majority_counts_no_more_and_is_removed() {
    let lost = recovery(1, &[2, 3]);
    let before = region(&[1, 2, 3], 7);
    assert_eq!(stores(&lost.counted(&before)), [1]);
    let after = lost.recovered(&before).expect("it is due");
    assert_eq!(stores(&after), [1]);
    assert_eq!(after.epoch, Epoch { conf_version: (1 << 32) + 8, version: 4 });
    assert!(!lost.is_due(&after) && lost.recovered(&after).is_err());
    assert_eq!(stores(&lost.counted(&region(&[1, 2], after.epoch.conf_version))), [1, 2], "store 2 came back, empty");
}

#[test]
fn a_majority_that_is_left_keeps_all_its_replicas() {
    let lost = recovery(1, &[4, 5]);
    let before = region(&[1, 2, 3, 4, 5], 1);
    assert_eq!(stores(&lost.counted(&before)), [1, 2, 3, 4, 5]);
    assert_eq!(lost.recovered(&before).map(|after| stores(&after)), Ok(vec![1, 2, 3, 4, 5]));
    assert!(!lost.loses_quorum(&before) && recovery(1, &[3, 4, 5]).loses_quorum(&before));
}

#[test]
fn half_of_the_replicas_is_no_majority() {
    assert!(recovery(1, &[2]).loses_quorum(&region(&[1, 2], 1)));
    assert!(recovery(1, &[3, 4]).loses_quorum(&region(&[1, 2, 3, 4], 1)));
}

#[test]
fn a_region_without_a_replica_that_is_left_is_not_recovered() {
    let lost = recovery(1, &[1, 2, 3]);
    assert!(lost.recovered(&region(&[1, 2, 3], 1)).is_err());
    assert_eq!(stores(&lost.counted(&region(&[1, 2, 3], 1))), [1, 2, 3]);
}

#[test]
fn only_messages_from_before_the_recovery_are_those_of_lost_replicas() {
    let lost = recovery(2, &[2, 3]);
    assert!(lost.is_lost(StoreId(2), 7) && lost.is_lost(StoreId(3), (1 << 32) + 7));
    assert!(!lost.is_lost(StoreId(2), (2 << 32) + 7) && !lost.is_lost(StoreId(1), 7));
    assert!(!Recovery::default().is_lost(StoreId(1), 0));
}

/// The smallest numbers of voters that are a majority, as sets.
fn quorums(region: &Region) -> Vec<BTreeSet<u64>> {
    let stores = stores(region);
    let subsets = (0..1u32 << stores.len()).map(|bits| {
        let chosen = stores.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
        chosen.map(|(_, store)| *store).collect::<BTreeSet<u64>>()
    });
    subsets.filter(|subset| subset.len() * 2 > stores.len()).collect()
}

proptest! {
    #[test]
    fn quorums_one_change_apart_have_a_replica_in_common(
        members in prop::collection::btree_set(1u64..8, 2..6),
        lost in prop::collection::btree_set(1u64..8, 1..6),
        changed in 1u64..8,
    ) {
        let lost: Vec<u64> = lost.into_iter().collect();
        let recovery = recovery(1, &lost);
        let before = region(&members.iter().copied().collect::<Vec<u64>>(), 5);
        let change = match before.peer_on(StoreId(changed)) {
            Some(peer) => MemberChange::Remove(peer.id),
            None => MemberChange::Add(Peer { id: PeerId(2000 + changed), store: StoreId(changed) }),
        };
        let after = before.changed(&change).expect("it can be made");
        // Lost replicas do not vote, and a region that has none left is not recovered.
        let can_vote = |quorum: &BTreeSet<u64>| quorum.iter().all(|store| !lost.contains(store));
        for one in quorums(&recovery.counted(&before)).into_iter().filter(can_vote) {
            for other in quorums(&recovery.counted(&after)).into_iter().filter(can_vote) {
                prop_assert!(!one.is_disjoint(&other), "{one:?} {other:?}");
            }
        }
        if let Ok(recovered) = recovery.recovered(&before) {
            prop_assert_eq!(&recovered.peers, &recovery.counted(&before).peers, "what counts does not change");
            prop_assert_eq!(&*recovery.counted(&recovered), &recovered);
        }
    }
}

#[test]
fn roles_decide_what_counts() {
    let mut before = region(&[1, 2, 3, 4, 5], 7);
    for learner in [1, 5] {
        before.roles.insert(PeerId(2000 + learner), PeerRole::Learner);
    }
    // Of three voters one is left, beside a learner.
    let lost = recovery(1, &[2, 3]);
    let after = lost.recovered(&before).expect("it is due");
    assert_eq!((stores(&after), after.voter_count()), (vec![1, 4, 5], 1));
    // Learners are no majority, and make none.
    assert!(!recovery(1, &[1, 5]).loses_quorum(&before));
    let only_learners = recovery(1, &[2, 3, 4]);
    assert!(!only_learners.loses_quorum(&before) && only_learners.recovered(&before).is_err());
}

fn joint(conf_version: u64) -> Region {
    // Voters 1, 2 and 3 are to become 1, 4 and 5.
    let mut region = region(&[1, 2, 3, 4, 5], conf_version);
    for (store, role) in [
        (2, PeerRole::DemotingVoter),
        (3, PeerRole::DemotingVoter),
        (4, PeerRole::IncomingVoter),
        (5, PeerRole::IncomingVoter),
    ] {
        region.roles.insert(PeerId(2000 + store), role);
    }
    region
}

fn roles(region: &Region) -> Vec<(u64, PeerRole)> {
    region.peers.iter().map(|peer| (peer.store.0, region.role(peer.id))).collect()
}

#[test]
fn both_halves_of_a_joint_configuration_decide_as_far_as_they_are_left() {
    use PeerRole::*;
    let before = joint(7);
    let left_of = |lost: &[u64]| {
        let lost = recovery(1, lost);
        assert!(lost.loses_quorum(&before));
        let counted = lost.counted(&before).into_owned();
        let recovered = lost.recovered(&before).expect("it is due");
        assert_eq!((&recovered.peers, &recovered.roles), (&counted.peers, &counted.roles), "what counts is the same");
        roles(&counted)
    };
    // Store 1 has to agree, although 4 and 5 are a majority of the new voters: it may not know of them.
    assert_eq!(left_of(&[2, 3]), [(1, Voter), (4, IncomingVoter), (5, IncomingVoter)]);
    assert_eq!(left_of(&[1, 2]), [(3, DemotingVoter), (4, IncomingVoter), (5, IncomingVoter)]);
    // Nothing of one half is left: the other one alone.
    assert_eq!(left_of(&[1, 2, 3]), [(4, Voter), (5, Voter)]);
    assert_eq!(left_of(&[1, 4, 5]), [(2, Voter), (3, Voter)]);
    // Both halves have a majority.
    assert!(!recovery(1, &[3, 5]).loses_quorum(&before));
}

#[test]
fn a_region_goes_on_from_the_learner_that_was_named() {
    use PeerRole::*;
    let mut before = region(&[1, 2, 3, 4, 5], 7);
    for learner in [4, 5] {
        before.roles.insert(PeerId(2000 + learner), Learner);
    }
    let lost = recovery(1, &[1, 2, 3]);
    assert!(!lost.loses_quorum(&before) && lost.recovered(&before).is_err());
    assert_eq!(lost.only_learners(&before).iter().map(|peer| peer.store.0).collect::<Vec<_>>(), [4, 5]);
    let named = Recovery { learners: [(before.id, StoreId(5))].into(), ..lost.clone() };
    assert!(named.loses_quorum(&before) && named.only_learners(&before).is_empty());
    assert_eq!(roles(&named.counted(&before)), [(4, Learner), (5, Voter)]);
    let after = named.recovered(&before).expect("it is due");
    assert_eq!(roles(&after), [(4, Learner), (5, Voter)]);
    assert_eq!(*named.counted(&after), after);
    // Wherever in the log: another replica that is to vote, or votes, elects no leader.
    before.roles.insert(PeerId(2004), IncomingVoter);
    assert_eq!(roles(&named.counted(&before)), [(4, Learner), (5, Voter)]);
    before.roles.remove(&PeerId(2004));
    assert_eq!(roles(&named.counted(&before)), [(4, Learner), (5, Voter)]);
    // Of a region in which the store has no replica nothing was said.
    let without = region(&[1, 2, 3, 4], 7);
    assert_eq!(*named.counted(&without), *lost.counted(&without));
}

proptest! {
    /// As above, with any change of roles.
    #[test]
    fn quorums_meet_through_any_changes_of_roles(
        changes in prop::collection::vec(crate::region::members_test::any_change(), 1..30),
        lost in prop::collection::btree_set(11u64..18, 1..6),
    ) {
        let lost: Vec<u64> = lost.into_iter().collect();
        let recovery = recovery(1, &lost);
        let mut now = region(&[11, 12, 13], 1);
        for peer in &mut now.peers {
            peer.id = PeerId(peer.store.0 - 10);
        }
        for change in changes {
            let Ok(next) = now.changed(&change) else { continue };
            let (before, after) = (recovery.counted(&now), recovery.counted(&next));
            for bits in 0u32..1 << 8 {
                let votes = |id: PeerId| !lost.contains(&(id.0 + 10));
                let one = |id: PeerId| bits & 1 << id.0 != 0 && votes(id);
                if before.is_quorum(one) {
                    prop_assert!(!after.is_quorum(|id| !one(id) && votes(id)), "{now:?} and {next:?}: {bits:b}");
                }
            }
            now = next;
        }
    }
}
