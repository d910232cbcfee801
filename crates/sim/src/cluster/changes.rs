//! Random changes of the replicas of regions.

use crate::world::NodeId;
use kontiki_env::rng::Rng;
use kontiki_raftstore::{PeerRole, Region, StoreId};
use kontiki_server::driver::StoreChange;

/// A region has at most so many learners at a time.
const LEARNERS_MAX: usize = 2;
/// A region has at least so many replicas, so that a fault does not end it.
const REPLICAS_MIN: usize = 3;

/// A change of a region that the leader on `own` may propose, in a cluster of so many nodes. raftstore refuses it if
/// replicas do not answer, or have not caught up.
pub fn draw(region: &Region, own: NodeId, nodes: u64, rng: &mut Rng) -> Option<StoreChange> {
    let with_role = |role| region.peers.iter().filter(move |peer| region.role(peer.id) == role).map(|peer| peer.store);
    let learners: Vec<StoreId> = with_role(PeerRole::Learner).collect();
    let others: Vec<StoreId> = with_role(PeerRole::Voter).filter(|store| store.0 != own).collect();
    let free: Vec<StoreId> = (1..=nodes).map(StoreId).filter(|store| region.peer_on(*store).is_none()).collect();
    let some = |stores: &[StoreId], rng: &mut Rng| stores.iter().copied().filter(|_| rng.chance(1, 2)).collect();
    match rng.below(10) {
        0..3 if learners.len() < LEARNERS_MAX => rng.pick(&free).map(|store| StoreChange::AddLearner(*store)),
        3 if region.peers.len() > REPLICAS_MIN => {
            let store = rng.pick(&learners).or(rng.pick(&others));
            store.map(|store| StoreChange::Remove(*store))
        }
        4 => rng.pick(&learners).map(|store| StoreChange::Roles { promote: vec![*store], demote: Vec::new() }),
        5 => rng.pick(&others).map(|store| StoreChange::Roles { promote: Vec::new(), demote: vec![*store] }),
        _ => {
            let (promote, demote): (Vec<_>, Vec<_>) = (some(&learners, rng), some(&others, rng));
            (promote.len() + demote.len() > 1).then_some(StoreChange::Roles { promote, demote })
        }
    }
}
