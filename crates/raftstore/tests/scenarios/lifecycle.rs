//! How replicas end by a membership change, with crashes at each step. (How they begin: `split.rs`, `members.rs`.)

use super::members::old_replica;
use crate::cluster::node::Node;
use crate::cluster::{Cluster, EPOCH, REGION, check, families, small_config};
use kontiki_engine::{Commit, StreamId};
use kontiki_raftstore::{
    Answer, Config, Event, MemberChange, Observation, Peer, PeerId, RegionError, RegionId, StoreId, meta, replica_id,
};
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// Whether anything of the region is on the disk or visible: all of it, or nothing.
fn is_there(node: &Node) -> bool {
    let descriptor = meta::region(families::META, &node.visible, REGION).expect("readable");
    let log = node.disk.streams.contains_key(&StreamId(REGION.0));
    if descriptor.is_none() && !log {
        assert!(check::region_state(&node.visible).is_empty(), "no key is left");
        assert_eq!(meta::applied_index(families::META, &node.visible, REGION).expect("readable"), None);
    }
    assert_eq!(descriptor.is_some(), log, "the end of a replica is one commit");
    log
}

/// A cluster that removes a follower which is up; returns its store.
fn with_a_removed_replica(seed: u64) -> (Cluster, u64) {
    let mut cluster = Cluster::with_config(seed, 3, small_config());
    cluster.checker.members_change = true;
    for i in 0..10u32 {
        cluster.put_surely(format!("k{i}").as_bytes(), &i.to_le_bytes());
    }
    cluster.run(SECOND);
    let removed = cluster.wait_leader() % 3 + 1;
    if seed.is_multiple_of(2) {
        cluster.node(removed).flush();
    }
    let leader = cluster.wait_leader();
    let old = old_replica(&cluster, leader, removed);
    cluster.change_surely(MemberChange::Remove(old));
    (cluster, removed)
}

#[test]
fn a_replica_that_is_removed_leaves_a_tombstone_and_nothing_else() {
    for seed in 0..8 {
        let (mut cluster, removed) = with_a_removed_replica(seed);
        cluster.until(10, "it is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(removed)]));
        cluster.until(10, "it is reported", |cluster| {
            let node = &cluster.nodes[&StoreId(removed)];
            node.observations.contains(&Observation::RegionRemoved { region: REGION })
        });
        assert!(cluster.replica(removed).is_none() && cluster.node(removed).readers.region(REGION).is_none());
        let ticket = cluster.put(removed, b"k", b"v");
        cluster.until(5, "an answer", |cluster| cluster.answers.contains_key(&ticket));
        assert!(matches!(cluster.answers[&ticket], Answer::Refused(_)));
        // Nothing brings it back: a restart, or the others, which go on.
        cluster.crash(removed);
        cluster.start(removed);
        cluster.put_surely(b"without it", b"v");
        cluster.run(2 * SECOND);
        assert!(!is_there(cluster.node(removed)) && cluster.replica(removed).is_none());
    }
}

/// A cluster in which a follower is about to be removed; returns its store and identity.
fn with_a_removal_proposed(seed: u64) -> (Cluster, u64, PeerId) {
    let mut cluster = Cluster::with_config(seed, 3, small_config());
    cluster.checker.members_change = true;
    cluster.put_surely(b"k", b"v");
    cluster.run(SECOND);
    let leader = cluster.wait_leader();
    let removed = leader % 3 + 1;
    let old = old_replica(&cluster, leader, removed);
    cluster.change(leader, EPOCH, MemberChange::Remove(old));
    (cluster, removed, old)
}

#[test]
fn a_crash_at_any_step_of_the_end_leaves_all_or_nothing() {
    let mut ended = 0;
    for crash_after in 0..40 {
        let (mut cluster, removed, _) = with_a_removal_proposed(500 + crash_after);
        for _ in 0..crash_after {
            cluster.step();
            if crash_after.is_multiple_of(2) {
                cluster.node(removed).flush();
            }
        }
        cluster.crash(removed);
        cluster.start(removed);
        cluster.run(3 * SECOND);
        ended += usize::from(!is_there(cluster.node(removed)));
        cluster.put_surely(b"without it", b"v");
    }
    assert!(ended > 10, "the runs cover it: {ended}");
}

/// It asks its group again.
#[test]
fn a_removed_replica_that_crashes_before_its_end_ends_after_a_restart() {
    for seed in 0..12 {
        let (mut cluster, removed, _) = with_a_removal_proposed(650 + seed);
        let is_end = |commit: &Commit| !commit.batch.is_empty();
        cluster.until(10, "its end is being written", |cluster| {
            cluster.node(removed).persists.iter().any(|(_, _, commit)| is_end(commit))
        });
        let earlier = cluster.node(removed).persists.iter().take_while(|(_, _, commit)| !is_end(commit)).count();
        cluster.node(removed).crash(earlier);
        assert!(is_there(cluster.node(removed)), "nothing of its end is durable");
        cluster.start(removed);
        cluster.until(10, "it is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(removed)]));
    }
}

/// The replica that was removed cannot vote any more: those that are left must not need it after a restart.
#[test]
fn members_that_are_left_know_after_a_restart_who_was_removed() {
    for seed in 0..12 {
        let (mut cluster, first, _) = with_a_removal_proposed(670 + seed);
        cluster.until(10, "one is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(first)]));
        cluster.crash(first);
        cluster.put_surely(b"by two", b"v");
        let leader = cluster.wait_leader();
        let second = (1..=3).find(|store| ![first, leader].contains(store)).expect("three stores");
        let old = old_replica(&cluster, leader, second);
        cluster.change_surely(MemberChange::Remove(old));
        cluster.until(10, "two are destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(second)]));
        cluster.run(SECOND);
        cluster.crash(second);
        // Nothing is flushed: tables have the descriptor of before.
        cluster.crash(leader);
        cluster.start(leader);
        cluster.put_surely(b"by one", b"v");
    }
}

/// The leader that removes a replica is gone, and only that replica has the entry: the others elect it, and it commits
/// its own removal.
#[test]
fn a_leader_that_is_removed_stays_until_the_others_can_do_without_it() {
    for seed in 0..12 {
        let mut cluster = Cluster::with_config(920 + seed, 3, small_config());
        cluster.checker.members_change = true;
        cluster.put_surely(b"k", b"v");
        cluster.run(SECOND);
        let leader = cluster.wait_leader();
        let removed = leader % 3 + 1;
        let old = old_replica(&cluster, leader, removed);
        cluster.separate(leader, 6 - leader - removed);
        cluster.change(leader, EPOCH, MemberChange::Remove(old));
        let before = cluster.status(leader).committed_index;
        cluster.until(5, "it is committed", |cluster| cluster.status(leader).committed_index > before);
        cluster.crash(leader);
        assert_eq!(cluster.status(removed).region.peers.len(), 3, "it does not know that its removal is committed");
        cluster.until(20, "it leads", |cluster| cluster.status(removed).leads);
        let ticket = cluster.put(removed, b"k", b"w");
        cluster.run(5 * SECOND);
        assert!(is_there(cluster.node(removed)), "seed {seed}: the two others do not have each other");
        cluster.heal();
        cluster.start(leader);
        cluster.put_surely(b"k", b"after");
        cluster.until(30, "it is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(removed)]));
        assert!(cluster.answers.contains_key(&ticket));
        let leader = cluster.wait_leader();
        assert_eq!(cluster.status(leader).region.peers.len(), 2);
    }
}

/// Directories of earlier versions can be in this state.
#[test]
fn a_descriptor_without_a_peer_here_is_the_end_of_a_replica() {
    for seed in 0..6 {
        let (mut cluster, removed, old) = with_a_removal_proposed(600 + seed);
        let leader = cluster.wait_leader();
        cluster.until(10, "it is applied", |cluster| cluster.status(leader).region.peer(old).is_none());
        // Tables take the change of the descriptor, and the commit of the end is lost.
        cluster.node(removed).flush();
        cluster.node(removed).crash(0);
        let changed: Vec<_> = {
            let all = cluster.nodes[&StoreId(leader)].visible.0.iter();
            let own = all.filter(|((family, key), _)| *family == families::META.0 && key.first() == Some(&2));
            own.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        let node = cluster.node(removed);
        Arc::make_mut(&mut node.disk.tables.0).extend(changed);
        let descriptor = meta::region(families::META, &node.disk.tables, REGION).expect("readable").expect("there");
        assert!(descriptor.peer(old).is_none() && node.disk.streams.contains_key(&StreamId(REGION.0)));
        cluster.start(removed);
        cluster.until(10, "it is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(removed)]));
        cluster.crash(removed);
        cluster.start(removed);
        cluster.put_surely(b"without it", b"v");
        cluster.run(SECOND);
        assert!(!is_there(cluster.node(removed)) && cluster.replica(removed).is_none());
    }
}

#[test]
fn late_messages_to_a_destroyed_replica_find_its_tombstone() {
    let directory = 77;
    for seed in 0..6 {
        let mut cluster = Cluster::with_config(700 + seed, 3, small_config());
        cluster.checker.members_change = true;
        cluster.put_surely(b"k", b"v");
        // A replica that messages may create: of the store's own directory.
        let store = cluster.wait_leader() % 3 + 1;
        let old = {
            let leader = cluster.wait_leader();
            old_replica(&cluster, leader, store)
        };
        cluster.crash(store);
        cluster.node(store).replace_disk(directory);
        cluster.start(store);
        let new = Peer { id: replica_id(directory, REGION), store: StoreId(store) };
        cluster.change_surely(MemberChange::Remove(old));
        cluster.change_surely(MemberChange::Add(new));
        cluster.until(30, "it is there", |cluster| cluster.node(store).installs > 0);
        cluster.run(SECOND);
        cluster.record(store);
        for i in 0..5u32 {
            cluster.put_surely(b"recorded", &i.to_le_bytes());
        }
        cluster.run(SECOND);
        let late = cluster.recorded();
        assert!(late.len() > 5, "there are messages to repeat");
        cluster.change_surely(MemberChange::Remove(new.id));
        cluster.until(10, "it is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(store)]));
        for restart in [false, true] {
            if restart {
                cluster.crash(store);
                cluster.start(store);
            }
            for message in &late {
                let now = cluster.now;
                let node = cluster.node(store);
                let (local, store) = (node.local(now), node.store.as_mut().expect("up"));
                store.handle(Event::Message(message.clone()), local);
                let effects = store.poll(local);
                assert!(effects.send.is_empty() && effects.persist.is_none(), "it is answered with nothing");
            }
            cluster.run(SECOND);
            assert!(!is_there(cluster.node(store)) && cluster.replica(store).is_none());
        }
    }
}

/// What was sent to, and by, a replica in a lost directory means nothing for the one that replaced it on its store.
#[test]
fn old_messages_of_a_replaced_replica_change_nothing() {
    for seed in 0..8 {
        let mut cluster = Cluster::with_config(720 + seed, 3, small_config());
        cluster.checker.members_change = true;
        cluster.put_surely(b"k", b"v");
        let store = cluster.wait_leader() % 3 + 1;
        let leader = cluster.wait_leader();
        let mut recorded = Vec::new();
        for to in [leader, store] {
            cluster.record(to);
            for i in 0..5u32 {
                cluster.put_surely(b"recorded", &i.to_le_bytes());
            }
            cluster.run(SECOND / 2);
            recorded.push(cluster.recorded());
        }
        let old = old_replica(&cluster, leader, store);
        cluster.crash(store);
        cluster.node(store).replace_disk(78);
        cluster.start(store);
        cluster.change_surely(MemberChange::Remove(old));
        cluster.change_surely(MemberChange::Add(Peer { id: replica_id(78, REGION), store: StoreId(store) }));
        cluster.until(30, "it is there", |cluster| cluster.node(store).installs > 0);
        cluster.put_surely(b"k", b"w");
        cluster.run(SECOND);
        // Old acknowledgements commit nothing.
        let leader = cluster.wait_leader();
        cluster.partition(&[leader]);
        let (committed, term) = (cluster.status(leader).committed_index, cluster.status(leader).term);
        let put = cluster.put(leader, b"k", b"x");
        for message in recorded[0].iter().cloned() {
            cluster.node(leader).inbox.push_back(Event::Message(message));
        }
        cluster.run(SECOND / 2);
        assert!(!cluster.answers.contains_key(&put), "seed {seed}: two are cut off");
        assert_eq!(cluster.status(leader).committed_index, committed);
        // Old appends and heartbeats reach no log.
        let (last, voted) = (cluster.status(store).last_index, cluster.status(store).vote);
        for message in recorded[1].iter().cloned() {
            cluster.node(store).inbox.push_back(Event::Message(message));
        }
        cluster.run(SECOND / 10);
        let now = cluster.status(store);
        assert_eq!((now.last_index, now.vote, now.term), (last, voted, term), "seed {seed}");
        cluster.heal();
        cluster.settle();
    }
}

/// Nothing in its log says so, and the others send it nothing.
#[test]
fn a_replica_that_is_away_while_it_is_removed_ends_when_it_is_back() {
    for seed in 0..12 {
        let (mut cluster, removed, _) = {
            let mut cluster = Cluster::with_config(800 + seed, 3, small_config());
            cluster.checker.members_change = true;
            cluster.put_surely(b"k", b"v");
            let removed = cluster.wait_leader() % 3 + 1;
            let old = old_replica(&cluster, removed, removed);
            if seed.is_multiple_of(2) {
                cluster.crash(removed);
            } else {
                cluster.partition(&[removed]);
            }
            cluster.change_surely(MemberChange::Remove(old));
            (cluster, removed, old)
        };
        for i in 0..20u32 {
            cluster.put_surely(b"without it", &i.to_le_bytes());
        }
        if seed.is_multiple_of(2) {
            cluster.start(removed);
        } else {
            cluster.heal();
        }
        cluster.until(20, "it is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(removed)]));
        assert!(cluster.replica(removed).is_none());
        cluster.put_surely(b"k", b"after");
    }
}

/// It agreed to hibernate, and hears signs of life of its leader's store: it has to ask.
#[test]
fn a_replica_that_hibernates_while_it_is_removed_ends() {
    for seed in 0..12 {
        let config = Config { hibernate_ticks: 20, member_check_ticks: 80, ..small_config() };
        let mut cluster = Cluster::with_config(820 + seed, 3, config);
        cluster.checker.members_change = true;
        cluster.put_surely(b"k", b"v");
        let hibernates = |cluster: &Cluster, id| cluster.replica(id).is_some_and(|replica| replica.hibernates);
        cluster.until(20, "all hibernate", |cluster| (1..=3).all(|id| hibernates(cluster, id)));
        let leader = cluster.wait_leader();
        let removed = leader % 3 + 1;
        let old = old_replica(&cluster, leader, removed);
        // For less than an election timeout: its leader's store does not fall silent.
        cluster.partition(&[removed]);
        for _ in 0..8 {
            cluster.change(leader, EPOCH, MemberChange::Remove(old));
            cluster.run(SECOND / 10);
        }
        cluster.heal();
        assert_eq!(cluster.status(leader).region.peers.len(), 2, "seed {seed}: it is removed");
        assert!(hibernates(&cluster, removed), "seed {seed}: it has not noticed anything");
        if seed.is_multiple_of(2) {
            // The leader that it knows does not lead any more.
            let other = 6 - leader - removed;
            cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(other) });
        }
        cluster.until(30, "it is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(removed)]));
        cluster.put_surely(b"k", b"after");
    }
}

/// Until the leader's disk has recorded that the removal is committed, the leader would need the vote of the replica
/// that was removed after a restart.
#[test]
fn a_removed_replica_stays_until_its_removal_is_recorded() {
    for seed in 0..12 {
        let (mut cluster, first, _) = with_a_removal_proposed(840 + seed);
        cluster.until(10, "the first is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(first)]));
        cluster.crash(first);
        let leader = cluster.wait_leader();
        let second = 6 - leader - first;
        let region = cluster.status(leader).region;
        let old = region.peer_on(StoreId(second)).expect("a member").id;
        let before = cluster.status(leader).last_index;
        cluster.change(leader, region.epoch, MemberChange::Remove(old));
        cluster.until(5, "it is committed", |cluster| cluster.status(leader).committed_index > before);
        let stalled_until = cluster.now + 60 * SECOND;
        cluster.node(leader).disk_stalled_until = stalled_until;
        cluster.run(20 * SECOND);
        assert!(is_there(cluster.node(second)), "seed {seed}: it is needed");
        cluster.node(leader).crash(0);
        cluster.node(leader).disk_stalled_until = Duration::ZERO;
        cluster.start(leader);
        cluster.put_surely(b"k", b"after");
        cluster.until(30, "its removal is applied", |cluster| {
            let region = cluster.leader().map(|leader| cluster.status(leader).region);
            region.is_some_and(|region| region.peers.len() == 1)
        });
        cluster.put_surely(b"k", b"and after that");
    }
}

/// Those that have the entry and do not know that it is committed would need the vote of the replica that is gone, if
/// the leader is lost.
#[test]
fn a_removed_replica_stays_until_the_members_know_of_its_removal() {
    for seed in 0..12 {
        let mut cluster = Cluster::with_config(940 + seed, 4, small_config());
        cluster.checker.members_change = true;
        cluster.put_surely(b"k", b"v");
        let leader = cluster.wait_leader();
        let [removed, one, other] = [1, 2, 3].map(|next| (leader + next - 1) % 4 + 1);
        let old = old_replica(&cluster, leader, removed);
        // It asks for votes all the time.
        cluster.partition(&[removed]);
        cluster.run(3 * SECOND);
        cluster.change(leader, EPOCH, MemberChange::Remove(old));
        let before = cluster.status(leader).last_index;
        // The entry arrives, and nothing after it.
        cluster
            .until(5, "they have it", |cluster| [one, other].iter().all(|id| cluster.status(*id).last_index > before));
        cluster.cut.extend([one, other].map(|id| (StoreId(leader), StoreId(id))));
        cluster.until(5, "it is committed", |cluster| cluster.status(leader).committed_index > before);
        cluster.join(leader, removed);
        cluster.run(3 * SECOND);
        assert!(is_there(cluster.node(removed)), "seed {seed}: it is needed");
        cluster.crash(leader);
        cluster.heal();
        cluster.put_surely(b"k", b"without the leader");
    }
}

#[test]
fn a_removal_that_would_leave_no_quorum_is_refused() {
    let mut cluster = Cluster::with_config(860, 3, small_config());
    cluster.checker.members_change = true;
    cluster.put_surely(b"k", b"v");
    let leader = cluster.wait_leader();
    let (dead, other) = (leader % 3 + 1, 6 - leader - (leader % 3 + 1));
    cluster.crash(dead);
    cluster.run(2 * SECOND);
    let id = |cluster: &Cluster, store| old_replica(cluster, leader, store);
    let refused = id(&cluster, other);
    let ticket = cluster.change(leader, EPOCH, MemberChange::Remove(refused));
    cluster.until(5, "an answer", |cluster| cluster.answers.contains_key(&ticket));
    assert!(matches!(&cluster.answers[&ticket], Answer::Refused(RegionError::ServerIsBusy { .. })));
    cluster.put_surely(b"k", b"w");
    let permitted = id(&cluster, dead);
    cluster.change_surely(MemberChange::Remove(permitted));
    cluster.put_surely(b"k", b"x");
}

/// The target would inherit the entry that removes it, and end as the leader.
#[test]
fn a_replica_that_is_being_removed_gets_no_leadership() {
    for seed in 0..20 {
        let (mut cluster, removed, _) = with_a_removal_proposed(880 + seed);
        let leader = cluster.wait_leader();
        for _ in 0..200 {
            let order = Event::TransferLeader { region: REGION, to: StoreId(removed) };
            cluster.node(leader).inbox.push_back(order);
            cluster.step();
            assert!(!cluster.replica(removed).is_some_and(|replica| replica.leads), "seed {seed}");
        }
        cluster.until(20, "it is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(removed)]));
        cluster.put_surely(b"k", b"after");
    }
}

/// A snapshot that was on its way when its receiver was removed creates a replica that is not a member.
#[test]
fn a_replica_that_a_late_snapshot_creates_after_its_removal_ends() {
    let (directory, mut created) = (77, 0);
    for seed in 0..12 {
        let mut cluster = Cluster::with_config(900 + seed, 3, small_config());
        cluster.checker.members_change = true;
        for i in 0..10u32 {
            cluster.put_surely(format!("k{i}").as_bytes(), &i.to_le_bytes());
        }
        let store = cluster.wait_leader() % 3 + 1;
        let leader = cluster.wait_leader();
        let old = old_replica(&cluster, leader, store);
        cluster.crash(store);
        cluster.node(store).replace_disk(directory);
        cluster.start(store);
        let new = Peer { id: replica_id(directory, REGION), store: StoreId(store) };
        cluster.change_surely(MemberChange::Remove(old));
        (1..=3).for_each(|id| cluster.node(id).send_delay_ms_max = 8_000);
        cluster.change_surely(MemberChange::Add(new));
        cluster.run(SECOND);
        cluster.change_surely(MemberChange::Remove(new.id));
        for _ in 0..1200 {
            cluster.step();
            created += usize::from(cluster.replica(store).is_some());
        }
        cluster.until(20, "nothing is left", |cluster| {
            !is_there(&cluster.nodes[&StoreId(store)]) && cluster.replica(store).is_none()
        });
        cluster.put_surely(b"k", b"after");
    }
    assert!(created > 0, "some were created late");
}

/// None of the members that it knows leads.
#[test]
fn a_replica_that_was_removed_ends_although_it_does_not_know_the_leader() {
    for seed in 0..8 {
        let mut cluster = Cluster::with_config(960 + seed, 4, small_config());
        cluster.checker.members_change = true;
        cluster.put_surely(b"k", b"v");
        let leader = cluster.wait_leader();
        let [removed, replaced, other] = [1, 2, 3].map(|next| (leader + next - 1) % 4 + 1);
        cluster.crash(replaced);
        cluster.node(replaced).replace_disk(77);
        cluster.start(replaced);
        let id = |cluster: &Cluster, store| old_replica(cluster, leader, store);
        for gone in [replaced, removed] {
            if gone == removed {
                cluster.partition(&[removed]);
            }
            let gone = id(&cluster, gone);
            cluster.change_surely(MemberChange::Remove(gone));
        }
        let new = Peer { id: replica_id(77, REGION), store: StoreId(replaced) };
        cluster.change_surely(MemberChange::Add(new));
        cluster.until(30, "the new one has the data", |cluster| cluster.node(replaced).installs > 0);
        cluster.put_surely(b"k", b"w");
        cluster.run(SECOND);
        let leader = cluster.wait_leader();
        cluster.node(leader).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(replaced) });
        cluster.until(10, "the new one leads", |cluster| cluster.leader() == Some(replaced));
        assert_ne!(replaced, other);
        cluster.heal();
        cluster.until(20, "it is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(removed)]));
    }
}

/// Late messages ask for it, so to speak: the leader answers while the replica is in the middle of something.
fn removed_in_the_middle(cluster: &mut Cluster, removed: u64) {
    cluster.network_faults.delay_ms_max = 300;
    for _ in 0..200 {
        let Some(leader) = cluster.leader() else {
            cluster.step();
            continue;
        };
        let region = cluster.status(leader).region;
        let Some(old) = region.peer_on(StoreId(removed)) else { break };
        cluster.change(leader, region.epoch, MemberChange::Remove(old.id));
        cluster.run(SECOND / 10);
    }
    cluster.run(4 * SECOND);
    cluster.network_faults.delay_ms_max = 5;
}

/// The install writes the descriptor at its end: the end of the replica comes behind it.
#[test]
fn a_replica_that_is_removed_while_it_installs_a_snapshot_ends_afterwards() {
    for seed in 0..20 {
        let config = Config { follower_dead_ticks: 20, ..small_config() };
        let mut cluster = Cluster::with_config(980 + seed, 3, config);
        cluster.checker.members_change = true;
        let away = cluster.wait_leader() % 3 + 1;
        super::snapshots::leave_behind(&mut cluster, away);
        cluster.node(away).job_delay_ms_max = 10_000;
        cluster.start(away);
        cluster.until(30, "its log is there", |cluster| {
            let leader = cluster.wait_leader();
            let last = cluster.status(leader).last_index;
            cluster.replica(away).is_some_and(|replica| replica.durable_index == last)
        });
        removed_in_the_middle(&mut cluster, away);
        cluster.until(40, "it is destroyed", |cluster| !is_there(&cluster.nodes[&StoreId(away)]));
        cluster.run(15 * SECOND);
        cluster.node(away).flush();
        cluster.crash(away);
        cluster.start(away);
        cluster.put_surely(b"k", b"after");
        assert!(!is_there(cluster.node(away)), "seed {seed}: nothing comes behind its end");
    }
}

/// The logs of the regions that a split makes need the replica that makes them.
#[test]
fn a_replica_that_is_removed_while_its_split_waits_makes_the_regions_first() {
    let child = RegionId(9);
    for seed in 0..20 {
        let mut cluster = Cluster::with_config(1000 + seed, 3, small_config());
        cluster.checker.members_change = true;
        cluster.put_surely(b"a", b"v");
        cluster.put_surely(b"m", b"v");
        cluster.run(SECOND);
        let leader = cluster.wait_leader();
        let removed = leader % 3 + 1;
        let region = cluster.status(leader).region;
        cluster.split(leader, &region, &[(child, b"h")]);
        // Its disk stalls when it has the entry, with the logs of the new region on their way.
        let last = cluster.status(removed).last_index;
        cluster.until(5, "it has the split", |cluster| cluster.status(removed).durable_index > last);
        for _ in 0..seed % 4 {
            cluster.step();
        }
        let stalled_until = cluster.now + 3 * SECOND;
        cluster.node(removed).disk_stalled_until = stalled_until;
        removed_in_the_middle(&mut cluster, removed);
        cluster.until(40, "it is destroyed", |cluster| cluster.replica(removed).is_none());
        cluster.until(20, "the new region is here", |cluster| cluster.replica_of(child, removed).is_some());
        cluster.node(removed).flush();
        cluster.crash(removed);
        cluster.start(removed);
        cluster.put_anywhere(b"m", b"after");
        let is_equal = |cluster: &mut Cluster| {
            let applied =
                [leader, removed].map(|id| cluster.replica_of(child, id).map(|replica| replica.applied_index));
            applied[0] == applied[1]
        };
        cluster.until(20, "it follows", is_equal);
    }
}
