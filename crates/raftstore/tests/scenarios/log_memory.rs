//! Logs that are larger than the memory for them: what is applied leaves it, and is read back for followers that lag.

use super::flow::narrow;
use crate::cluster::node::Job;
use crate::cluster::{Cluster, NetworkFaults, REGION, families};
use kontiki_engine::WriteBatch;
use kontiki_raftstore::{Answer, Config, Event, RegionId, StoreId};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const VALUE_BYTES: usize = 4096;

/// A budget of 256 KiB, and logs that are retained far beyond it.
fn retaining() -> Config {
    Config {
        memory_bytes_max: 256 << 10,
        reading_bytes_max: 32 << 10,
        log_bytes_max: 64 << 20,
        snapshot_log_bytes_max: 64 << 20,
        follower_dead_ticks: 6000,
        ..narrow()
    }
}

/// Puts so many values at the leader, and returns how many are done.
fn load(cluster: &mut Cluster, count: u32) -> usize {
    let mut tickets = Vec::new();
    for i in 0..count {
        let leader = cluster.wait_leader();
        tickets.push(cluster.put(leader, &[b'a' + (i % 8) as u8], &[b'v'; VALUE_BYTES]));
        cluster.step();
        for id in 1..=3 {
            assert_within_budget(cluster, id);
        }
    }
    cluster.run(SECOND);
    tickets.iter().filter(|ticket| matches!(cluster.answers.get(ticket), Some(Answer::Ok { .. }))).count()
}

fn assert_within_budget(cluster: &Cluster, id: u64) {
    if let Some(store) = &cluster.nodes[&StoreId(id)].store {
        let (memory, slack) = (store.memory(), 4 * cluster.config.append_bytes_max + cluster.config.apply_bytes_max);
        assert!(memory.log_bytes <= memory.log_bytes_max + slack, "store {id}: {memory:?}");
    }
}

#[test]
fn a_follower_far_behind_catches_up_with_entries_from_the_stream() {
    for seed in 0..4 {
        let mut cluster = Cluster::with_config(seed, 3, retaining());
        let away = cluster.wait_leader() % 3 + 1;
        cluster.put_surely(b"k", b"old");
        cluster.crash(away);
        let done = load(&mut cluster, 600);
        assert_eq!(done, 600, "writes continue");
        let leader = cluster.wait_leader();
        let status = cluster.status(leader);
        assert!(status.log_bytes > 9 * cluster.config.memory_bytes_max, "{status:?}");
        cluster.start(away);
        cluster.until(30, "the follower catches up", |cluster| {
            (1..=3).for_each(|id| assert_within_budget(cluster, id));
            cluster.status(away).applied_index >= status.last_index
        });
        let read: usize = cluster.nodes.values().map(|node| node.entries_read).sum();
        let read_at_once = cluster.nodes.values().map(|node| node.reading_bytes_max).max().expect("three");
        assert!(read >= 500, "{read} entries were read");
        let bound = cluster.config.reading_bytes_max + 4 * cluster.config.append_bytes_max;
        assert!((1..=bound).contains(&read_at_once), "{read_at_once} bytes were being read");
        assert_eq!(cluster.nodes.values().map(|node| node.installs).sum::<usize>(), 0, "it needs no snapshot");
        cluster.settle();
    }
}

#[test]
fn a_flush_that_does_not_end_does_not_fill_the_memory() {
    let mut cluster = Cluster::with_config(1, 3, retaining());
    for id in 1..=3 {
        cluster.node(id).flush_stalls = true;
    }
    let done = load(&mut cluster, 400);
    assert_eq!(done, 400, "writes continue");
    for id in 1..=3 {
        let status = cluster.status(id);
        assert!(status.truncated_index < 10 && status.log_bytes > 400 * VALUE_BYTES, "{status:?}");
        cluster.node(id).flush_stalls = false;
    }
    // What is not applied after a start is what tables do not hold.
    let crashed = cluster.wait_leader();
    cluster.node(crashed).flush();
    cluster.run(SECOND);
    cluster.crash(crashed);
    cluster.start(crashed);
    assert_within_budget(&cluster, crashed);
    cluster.settle();
}

#[test]
fn a_new_leader_reads_what_it_evicted_as_a_follower_or_before_its_start() {
    for seed in 0..4 {
        let mut cluster = Cluster::with_config(seed, 3, Config { memory_evict_percent: 0, ..retaining() });
        let away = cluster.wait_leader() % 3 + 1;
        cluster.put_surely(b"k", b"old");
        cluster.crash(away);
        load(&mut cluster, 200);
        let old = cluster.wait_leader();
        let other = (1..=3).find(|id| *id != old && *id != away).expect("three");
        cluster.node(other).read_delay_ms_max = 400;
        cluster.start(away);
        // Reads of the old leader are in flight when the other one leads.
        cluster.run(SECOND / 10);
        cluster.node(old).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(other) });
        cluster.until(5, "leadership moves", |cluster| cluster.status(other).leads);
        cluster.run(SECOND / 2);
        cluster.crash(other);
        cluster.start(other);
        cluster.settle();
        assert!(cluster.nodes[&StoreId(other)].entries_read + cluster.nodes[&StoreId(old)].entries_read > 0);
    }
}

/// The leader is deposed while it reads entries for a follower: what it then gets is dropped, and in its next
/// leadership it reads again.
#[test]
fn async_fetch_leader_change() {
    for seed in 0..4 {
        let mut cluster = Cluster::with_config(seed, 3, Config { memory_evict_percent: 0, ..retaining() });
        cluster.network_faults = NetworkFaults::default();
        let old = cluster.wait_leader();
        let (other, away) = (old % 3 + 1, (old + 1) % 3 + 1);
        cluster.put_surely(b"k", b"old");
        cluster.crash(away);
        assert_eq!(load(&mut cluster, 30), 30);
        for id in [old, other] {
            cluster.node(id).read_failures_percent = 0;
        }
        cluster.start(away);
        let later = cluster.now + 60 * SECOND;
        cluster.until(5, "a read begins", |cluster| delay_reads(cluster, old, later) > 0);
        // What the next leader sends would end the follower's need.
        cluster.separate(other, away);
        cluster.node(old).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(other) });
        cluster.until(5, "leadership moves", |cluster| cluster.status(other).leads && !cluster.status(old).leads);
        cluster.take_messages(old, away);
        cluster.record(away);
        delay_reads(&mut cluster, old, Duration::ZERO);
        cluster.until(5, "the read ends", |cluster| cluster.node(old).entries_read > 0);
        cluster.run(SECOND / 10);
        let sent = cluster.recorded();
        assert!(sent.iter().all(|message| message.len() < VALUE_BYTES), "entries of a leadership that has ended");
        let read = cluster.node(old).entries_read;
        cluster.node(other).inbox.push_back(Event::TransferLeader { region: REGION, to: StoreId(old) });
        cluster.until(5, "leadership moves back", |cluster| cluster.status(old).leads);
        cluster.until(10, "the follower catches up", |cluster| {
            cluster.status(away).applied_index == cluster.status(old).last_index
        });
        assert!(cluster.node(old).entries_read >= read + 30, "it reads again");
        cluster.settle();
    }
}

/// Lets the reads of entries on a store end at this time; returns how many there are.
fn delay_reads(cluster: &mut Cluster, id: u64, until: Duration) -> usize {
    let reads = cluster.node(id).jobs.iter_mut().filter(|(_, job)| matches!(job, Job::Entries { .. }));
    reads.map(|(due, _)| *due = until).count()
}

#[test]
fn truncation_races_reads() {
    let (mut reads_too_late, mut installs) = (0, 0);
    for seed in 0..8 {
        let config =
            Config { memory_evict_percent: 0, log_bytes_max: 48 << 10, follower_dead_ticks: 15, ..retaining() };
        let mut cluster = Cluster::with_config(seed, 3, config);
        cluster.put_surely(b"k", b"old");
        for round in 0..6 {
            let leader = cluster.wait_leader();
            let lags = leader % 3 + 1;
            cluster.node(leader).read_delay_ms_max = 300;
            cluster.partition(&[lags]);
            load(&mut cluster, 10);
            cluster.heal();
            // It asks for entries while the log is truncated.
            for i in 0..30u32 {
                let leader = cluster.wait_leader();
                cluster.put(leader, &[b'a' + (i % 8) as u8], &[b'v'; VALUE_BYTES]);
                cluster.step();
                if i % 10 == round {
                    cluster.node(leader).flush();
                }
            }
        }
        cluster.settle();
        reads_too_late += cluster.nodes.values().map(|node| node.reads_too_late).sum::<usize>();
        installs += cluster.nodes.values().map(|node| node.installs).sum::<usize>();
    }
    assert!(reads_too_late > 3 && installs > 3, "{reads_too_late} reads came too late, {installs} snapshots");
}

#[test]
fn above_the_bound_of_the_disk_no_log_is_retained() {
    let config = Config { stored_bytes_max: 512 << 10, ..retaining() };
    let mut cluster = Cluster::with_config(2, 3, config);
    let away = cluster.wait_leader() % 3 + 1;
    cluster.crash(away);
    for i in 0..400u32 {
        cluster.put_surely(&[b'a' + (i % 8) as u8], &[b'v'; VALUE_BYTES]);
        if i % 20 == 0 {
            (1..=3).filter(|id| *id != away).for_each(|id| cluster.node(id).flush());
        }
        let leader = cluster.wait_leader();
        let memory = cluster.nodes[&StoreId(leader)].store.as_ref().expect("it leads").memory();
        assert!(memory.stored_bytes < 1 << 20, "{memory:?}");
    }
    cluster.settle();
    assert!(cluster.nodes.values().map(|node| node.installs).sum::<usize>() > 0, "it needs a snapshot");
}

#[test]
fn many_regions_with_a_follower_far_behind_share_the_budget() {
    const CHILDREN: u64 = 60;
    let keys: Vec<[u8; 2]> = (1..=CHILDREN).map(|i| [b'a' + (i / 10) as u8, b'0' + (i % 10) as u8]).collect();
    let children: Vec<(RegionId, &[u8])> = keys.iter().zip(100..).map(|(key, id)| (RegionId(id), &key[..])).collect();
    let mut cluster = Cluster::with_config(3, 3, retaining());
    cluster.wait_leader();
    cluster.put_surely(b"k", b"old");
    cluster.split_surely(&children);
    cluster.run(5 * SECOND);
    let away = 1;
    cluster.crash(away);
    cluster.run(5 * SECOND);
    for _ in 0..8 {
        for (key, (id, _)) in keys.iter().zip(&children) {
            let mut batch = WriteBatch::new();
            batch.put(families::DEFAULT, key, vec![b'v'; VALUE_BYTES]);
            let region = cluster.region_at(key);
            if let Some(leader) = cluster.leader_of(*id) {
                cluster.propose_in(leader, *id, region.epoch, batch);
            }
            cluster.step();
            (2..=3).for_each(|id| assert_within_budget(&cluster, id));
        }
    }
    let stored = |cluster: &Cluster| cluster.nodes[&StoreId(2)].store.as_ref().expect("up").memory().stored_bytes;
    assert!(stored(&cluster) > 4 * cluster.config.memory_bytes_max, "{} bytes of logs", stored(&cluster));
    cluster.start(away);
    cluster.settle();
    let bound = cluster.config.reading_bytes_max + 4 * cluster.config.append_bytes_max;
    for node in cluster.nodes.values() {
        assert!(node.reading_bytes_max <= bound, "{} bytes were being read at once", node.reading_bytes_max);
    }
    assert!(cluster.nodes.values().map(|node| node.entries_read).sum::<usize>() > 300);
}

#[test]
fn only_so_many_bytes_are_in_flight_to_a_follower_that_does_not_answer() {
    let config = Config { inflight_bytes_max: 32 << 10, memory_bytes_max: 8 << 20, ..retaining() };
    let window = config.inflight_bytes_max + config.append_bytes_max;
    let mut cluster = Cluster::with_config(4, 3, config);
    cluster.network_faults = NetworkFaults::default();
    let leader = cluster.wait_leader();
    cluster.put_surely(b"k", b"old");
    cluster.run(SECOND);
    let silent = leader % 3 + 1;
    // Its answers do not arrive.
    cluster.cut.insert((StoreId(silent), StoreId(leader)));
    cluster.record(silent);
    for i in 0..200u32 {
        cluster.put(leader, &[b'a' + (i % 8) as u8], &[b'v'; VALUE_BYTES]);
        cluster.step();
    }
    let sent: usize = cluster.recorded().iter().map(|message| message.len()).filter(|len| *len > VALUE_BYTES).sum();
    assert!(sent > window / 2 && sent < 2 * window, "{sent} bytes of appends without an answer");
    let memory = cluster.nodes[&StoreId(leader)].store.as_ref().expect("up").memory();
    assert!(memory.appends_delayed > 0, "{memory:?}");
    cluster.settle();
}

#[test]
fn a_window_that_was_lost_is_sent_again_although_its_entries_left_the_memory() {
    for seed in 0..4 {
        let config = Config { inflight_bytes_max: 16 << 10, memory_evict_percent: 0, ..retaining() };
        let mut cluster = Cluster::with_config(seed, 3, config);
        cluster.network_faults = NetworkFaults::default();
        let leader = cluster.wait_leader();
        cluster.put_surely(b"k", b"old");
        cluster.run(SECOND);
        let deaf = leader % 3 + 1;
        // For less than an election timeout nothing arrives there.
        cluster.cut.insert((StoreId(leader), StoreId(deaf)));
        for i in 0..40u32 {
            cluster.put(leader, &[b'a' + (i % 8) as u8], &[b'v'; VALUE_BYTES]);
            cluster.step();
        }
        cluster.heal();
        cluster.until(5, "the follower gets what was lost", |cluster| {
            let last = cluster.status(leader).last_index;
            last > 40 && cluster.status(deaf).applied_index == last
        });
        cluster.settle();
    }
}
