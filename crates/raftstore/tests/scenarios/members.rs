//! Changes of a region's members: a store that lost its disk comes back as a new replica.

use crate::cluster::families;
use crate::cluster::{Cluster, EPOCH, REGION, small_config};
use kontiki_engine::{StreamId, WriteBatch};
use kontiki_raftstore::{Answer, Config, Event, MemberChange, Peer, PeerId, RegionError, StoreId, replica_id};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// A directory that replaces a lost one.
const DIRECTORY: u64 = 77;

fn hasty() -> Config {
    Config { follower_dead_ticks: 20, ..small_config() }
}

fn replica(directory: u64, store: u64) -> Peer {
    Peer { id: replica_id(directory, REGION), store: StoreId(store) }
}

pub fn old_replica(cluster: &Cluster, at: u64, store: u64) -> PeerId {
    cluster.status(at).region.peer_on(StoreId(store)).expect("a member").id
}

/// A cluster of which a store that does not lead has an empty disk and is up again; returns it.
fn with_a_replaced_disk(seed: u64, stores: u64) -> (Cluster, u64) {
    let mut cluster = Cluster::with_config(seed, stores, hasty());
    for i in 0..20u32 {
        cluster.put_surely(format!("k{}", i % 7).as_bytes(), &i.to_le_bytes());
    }
    cluster.run(SECOND);
    let lost = cluster.wait_leader() % stores + 1;
    cluster.crash(lost);
    cluster.put_surely(b"while it is away", b"1");
    cluster.node(lost).replace_disk(DIRECTORY);
    cluster.start(lost);
    (cluster, lost)
}

fn take_in(cluster: &mut Cluster, store: u64, directory: u64) {
    let leader = cluster.wait_leader();
    let old = old_replica(cluster, leader, store);
    cluster.change_surely(MemberChange::Remove(old));
    cluster.change_surely(MemberChange::Add(replica(directory, store)));
}

fn has_replica(cluster: &Cluster, store: u64) -> bool {
    cluster.nodes[&StoreId(store)].store.as_ref().is_some_and(|store| !store.status().is_empty())
}

#[test]
fn an_emptied_store_is_taken_in_as_a_new_replica_and_counts_again() {
    for seed in 0..12 {
        let (mut cluster, lost) = with_a_replaced_disk(seed, 3);
        // It receives messages for the replica that it had, and does not know it.
        cluster.run(3 * SECOND);
        assert!(!has_replica(&cluster, lost) && cluster.node(lost).disk.streams.is_empty(), "nothing is remembered");
        take_in(&mut cluster, lost, DIRECTORY);
        cluster.until(30, "its data are here", |cluster| cluster.node(lost).installs > 0);
        cluster.settle();
        // With it two of three are a majority again.
        let leader = cluster.wait_leader();
        let third = (1..=3).find(|id| ![leader, lost].contains(id)).expect("three stores");
        cluster.crash(third);
        cluster.put_surely(b"with two", b"1");
        cluster.crash(leader);
        cluster.start(third);
        cluster.put_surely(b"with the other two", b"1");
        cluster.settle();
        let region = cluster.status(lost).region;
        assert_eq!((region.epoch.conf_version, region.peers.len()), (3, 3));
        assert_eq!(region.peer_on(StoreId(lost)), Some(replica(DIRECTORY, lost)));
    }
}

#[test]
fn a_crash_at_any_step_of_its_beginning_is_survived() {
    for crash_after in 0..60 {
        let (mut cluster, lost) = with_a_replaced_disk(1000 + crash_after, 3);
        take_in(&mut cluster, lost, DIRECTORY);
        cluster.until(30, "a snapshot arrives", |cluster| !cluster.node(lost).disk.files.is_empty());
        for step in 0..crash_after {
            cluster.step();
            if step % 3 == 1 && crash_after % 2 == 0 {
                cluster.node(lost).flush();
            }
        }
        cluster.crash(lost);
        cluster.start(lost);
        cluster.settle();
    }
}

#[test]
fn nothing_wakes_the_replica_that_a_lost_directory_held() {
    let (mut cluster, lost) = with_a_replaced_disk(3, 3);
    // All messages of its leaders, a snapshot included: a new leader does not know its log.
    for _ in 0..3 {
        let leader = cluster.wait_leader();
        let other = (1..=3).find(|id| ![leader, lost].contains(id)).expect("three stores");
        cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(other) });
        for i in 0..20u32 {
            cluster.put_surely(b"k", &i.to_le_bytes());
        }
        (1..=3).for_each(|id| {
            if id != lost {
                cluster.node(id).flush()
            }
        });
        cluster.run(4 * SECOND);
    }
    assert!(!has_replica(&cluster, lost) && !cluster.node(lost).disk.streams.contains_key(&StreamId(REGION.0)));
    cluster.run(SECOND);
    assert!(cluster.node(lost).disk.files.is_empty(), "a snapshot for the lost replica is removed");
}

#[test]
fn a_follower_that_missed_the_changes_follows_a_leader_that_it_does_not_know() {
    let (mut cluster, lost) = with_a_replaced_disk(4, 5);
    let leader = cluster.wait_leader();
    let away = (1..=5).find(|id| ![leader, lost].contains(id)).expect("five stores");
    cluster.partition(&[away]);
    take_in(&mut cluster, lost, DIRECTORY);
    cluster.until(30, "its data are here", |cluster| cluster.node(lost).installs > 0);
    cluster.run(SECOND);
    let caught_up = |c: &mut Cluster| c.status(lost).last_index == c.status(leader).last_index;
    cluster.until(10, "it has the log", caught_up);
    cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(lost) });
    cluster.until(20, "the new replica leads", |cluster| cluster.leader() == Some(lost));
    // The one that was away receives messages of the new leader and of no other store.
    cluster.heal();
    for id in (1..=5).filter(|id| *id != lost && *id != away) {
        cluster.cut.insert((StoreId(id), StoreId(away)));
    }
    cluster.until(30, "it has learned of the changes", |cluster| {
        cluster.status(away).region.epoch.conf_version == 3 && cluster.leader() == Some(lost)
    });
    cluster.settle();
}

#[test]
fn changes_that_cannot_be_made_are_refused_and_change_nothing() {
    let mut cluster = Cluster::with_config(5, 3, hasty());
    cluster.put_surely(b"k", b"v");
    let leader = cluster.wait_leader();
    let other = leader % 3 + 1;
    let own = old_replica(&cluster, leader, leader);
    let before = cluster.status(leader).region;
    let stale = kontiki_raftstore::Epoch { conf_version: 0, ..EPOCH };
    let cases = [
        (leader, EPOCH, MemberChange::Remove(own)),
        (leader, EPOCH, MemberChange::Remove(PeerId(9))),
        (leader, EPOCH, MemberChange::Add(replica(1, other))),
        (leader, EPOCH, MemberChange::Add(Peer { id: own, store: StoreId(9) })),
        (leader, EPOCH, MemberChange::Add(Peer { id: PeerId(0), store: StoreId(9) })),
        (leader, stale, MemberChange::Add(replica(1, 9))),
        (other, EPOCH, MemberChange::Add(replica(1, 9))),
    ];
    for (at, epoch, change) in cases {
        let ticket = cluster.change(at, epoch, change.clone());
        cluster.until(5, "an answer", |cluster| cluster.answers.contains_key(&ticket));
        assert!(matches!(cluster.answers[&ticket], Answer::Refused(_)), "{change:?}: {:?}", cluster.answers[&ticket]);
    }
    assert_eq!(cluster.status(leader).region, before);

    // Of two at once the second is refused; it can be made when the first is done.
    let third = (1..=3).find(|id| ![leader, other].contains(id)).expect("three stores");
    let [removed, too_early] = [other, third].map(|store| {
        let old = old_replica(&cluster, leader, store);
        cluster.change(leader, EPOCH, MemberChange::Remove(old))
    });
    cluster.crash(other);
    cluster.until(5, "answers", |cluster| {
        cluster.answers.contains_key(&removed) && cluster.answers.contains_key(&too_early)
    });
    assert!(matches!(cluster.answers[&removed], Answer::Ok { .. }));
    assert!(matches!(cluster.answers[&too_early], Answer::Refused(RegionError::ServerIsBusy { .. })));
}

/// A member that was away gets a change of the members with a snapshot, and then votes as one of three, not of four.
#[test]
fn conf_by_snapshot() {
    for seed in 0..12 {
        let mut cluster = Cluster::with_config(300 + seed, 4, hasty());
        cluster.checker.members_change = true;
        cluster.put_surely(b"k", b"v");
        let leader = cluster.wait_leader();
        let [away, removed, other] = [1, 2, 3].map(|next| (leader + next - 1) % 4 + 1);
        cluster.run(SECOND);
        let last = cluster.status(away).last_index;
        cluster.crash(away);
        let old = old_replica(&cluster, leader, removed);
        cluster.change_surely(MemberChange::Remove(old));
        for i in 0..30u32 {
            cluster.put_surely(b"k", &i.to_le_bytes());
        }
        cluster.until(20, "the log is truncated", |cluster| {
            [leader, other].iter().for_each(|id| cluster.node(*id).flush());
            [leader, other].iter().all(|id| cluster.status(*id).truncated_index > last)
        });
        cluster.start(away);
        cluster.until(30, "it has a snapshot", |cluster| cluster.node(away).installs > 0);
        // Before a flush the install is repeated from the file, after it the tables have the descriptor.
        if !seed.is_multiple_of(3) {
            if seed.is_multiple_of(2) {
                cluster.node(away).flush();
            }
            cluster.crash(away);
            cluster.start(away);
        }
        cluster.until(30, "it has the change", |cluster| {
            cluster.replica(away).is_some_and(|replica| replica.region.epoch.conf_version == 2)
        });
        assert_eq!(cluster.status(away).region.peers.len(), 3);
        cluster.put_surely(b"k", b"w");
        cluster.until(30, "it has everything", |cluster| {
            cluster.status(away).applied_index == cluster.status(leader).applied_index
        });
        cluster.crash(if seed.is_multiple_of(2) { leader } else { other });
        cluster.put_surely(b"k", b"two of three");
    }
}

/// One random change that does not take the quorum away: the store without a replica gets one, or one that is down
/// loses it.
fn change_at_random(cluster: &mut Cluster, stores: u64, directory: u64) {
    let Some(leader) = cluster.leader() else { return };
    let region = cluster.status(leader).region;
    let free = (1..=stores).find(|id| region.peer_on(StoreId(*id)).is_none());
    let down = (1..=stores).find(|id| !cluster.nodes[&StoreId(*id)].is_up());
    match (free, down) {
        (Some(free), _) if cluster.node(free).is_up() => {
            if let Some(directory) = cluster.node(free).directory {
                cluster.change(leader, region.epoch, MemberChange::Add(replica(directory, free)));
            }
        }
        (Some(free), _) => {
            cluster.node(free).replace_disk(directory);
            cluster.start(free);
        }
        (None, Some(down)) => {
            let old = old_replica(cluster, leader, down);
            cluster.change(leader, region.epoch, MemberChange::Remove(old));
        }
        (None, None) => {
            // Never more than one of four without its data.
            let id = 1 + cluster.rng.below(stores);
            let last = cluster.status(leader).applied_index;
            let near = |id| cluster.replica(id).is_some_and(|replica| replica.applied_index + 50 > last);
            if id != leader && (1..=stores).all(near) {
                cluster.crash(id);
            }
        }
    }
}

/// Members change one after another, beside crashes of others, cuts, transfers and flushes at random moments.
pub fn at_random(seed: u64, config: Config) -> Cluster {
    let stores = 4;
    let mut cluster = Cluster::with_config(seed, stores, config);
    cluster.checker.members_change = true;
    let mut directory = 1000;
    while cluster.now < 30 * SECOND {
        match cluster.rng.below(300) {
            0..=3 => {
                directory += 1;
                change_at_random(&mut cluster, stores, directory);
            }
            4 => {
                let id = 1 + cluster.rng.below(stores);
                let up = cluster.nodes.values().filter(|node| node.is_up()).count();
                if cluster.node(id).is_up() && up > 3 {
                    cluster.crash(id);
                    cluster.start(id);
                }
            }
            5 => {
                let id = 1 + cluster.rng.below(stores);
                cluster.partition(&[id]);
            }
            6 | 7 => cluster.heal(),
            8 => {
                let (id, to) = (1 + cluster.rng.below(stores), StoreId(1 + cluster.rng.below(stores)));
                if cluster.node(id).is_up() {
                    cluster.node(id).inbox.push_back(Event::TransferLeader { region: REGION, to });
                }
            }
            9 | 10 => {
                let id = 1 + cluster.rng.below(stores);
                if has_replica(&cluster, id) {
                    cluster.node(id).flush();
                }
            }
            11..=60 => {
                if let Some(leader) = cluster.leader() {
                    let (key, value) = ([b'a' + cluster.rng.below(8) as u8], cluster.rng.next_u64().to_le_bytes());
                    let mut batch = WriteBatch::new();
                    batch.put(families::DEFAULT, key, value);
                    cluster.propose(leader, EPOCH, batch);
                }
            }
            _ => {}
        }
        cluster.step();
    }
    cluster
}

/// The store gets an empty disk and a new replica, whatever its state.
fn take_in_again(cluster: &mut Cluster, store: u64, directory: u64) {
    if cluster.node(store).is_up() {
        cluster.crash(store);
    }
    cluster.node(store).replace_disk(directory);
    cluster.start(store);
    let new = replica(directory, store);
    cluster.until(60, "it is a member", |cluster| {
        let Some(leader) = cluster.leader() else { return false };
        let region = cluster.status(leader).region;
        // An earlier addition may have been in progress.
        let change = match region.peer_on(StoreId(store)) {
            Some(peer) if peer == new => return true,
            Some(old) => MemberChange::Remove(old.id),
            None => MemberChange::Add(new),
        };
        cluster.change(leader, region.epoch, change);
        false
    });
    cluster.until(60, "its data are here", |cluster| {
        cluster.replica(store).is_some_and(|replica| replica.applied_index + 50 > cluster.checker.acknowledged(REGION))
    });
}

#[test]
fn members_that_change_again_and_again_lose_nothing() {
    let (mut changes, mut installs) = (0, 0);
    for seed in 0..40 {
        let mut cluster = at_random(seed, hasty());
        cluster.heal();
        let acknowledged = cluster.checker.acknowledged(REGION);
        // A change may be half done: it is finished, or done again.
        for id in 1..=4 {
            if !cluster.node(id).is_up() || !has_replica(&cluster, id) {
                take_in_again(&mut cluster, id, 9_000 + id);
            }
        }
        cluster.settle();
        let leader = cluster.wait_leader();
        assert!(cluster.status(leader).applied_index >= acknowledged, "what was acknowledged is there");
        let region = cluster.status(leader).region;
        changes += region.epoch.conf_version - 1;
        installs += cluster.nodes.values().map(|node| node.installs).sum::<usize>();
    }
    assert!(changes > 100 && installs > 40, "the runs cover enough changes and installs: {changes}, {installs}");
}
