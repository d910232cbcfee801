//! A table of the node that leads is damaged: its reads are served by the others, and the node says what is wrong.

#![allow(clippy::disallowed_methods)] // a test over real processes waits on the real clock

mod support;

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use support::{Cluster, DATA_REGION, connect_raw, eventually, http_get, wait_for};

const KEYS: usize = 300;

/// Text that does not compress to nothing.
fn value(key: usize) -> String {
    let mut state = key as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state
    };
    (0..20).map(|_| format!("{:016x}", next())).collect()
}

/// Overwrites some bytes of each table in the first half of the file, where blocks are.
fn damage_tables(data_dir: &Path) {
    let tables: Vec<_> = std::fs::read_dir(data_dir.join("tables")).expect("tables").flatten().collect();
    let large =
        tables.iter().map(|table| table.path()).filter(|path| path.metadata().expect("a file").len() > 16 << 10);
    let mut damaged = 0;
    for path in large {
        let mut file = std::fs::File::options().write(true).open(&path).expect("writable");
        file.seek(SeekFrom::Start(1 << 10)).expect("seekable");
        file.write_all(&[0xA5; 64]).expect("written");
        damaged += 1;
    }
    assert!(damaged > 0, "a table with data");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_a_damaged_table_are_served_by_the_other_nodes() {
    let mut cluster = Cluster::start(3);
    let endpoints = cluster.endpoints();
    let client = connect_raw(&endpoints).await;
    for i in 0..KEYS {
        eventually("a put", async || client.put(format!("key{i:04}"), value(i)).await).await;
    }
    tokio::task::block_in_place(|| {
        cluster.wait_quiet();
        cluster.stop();
        damage_tables(&cluster.nodes[0].data_dir);
        // It leads again, and nothing of the damage is known yet.
        cluster.nodes[0].start_with(&["--leader-priority", "10"]);
        cluster.nodes[1].start();
        cluster.nodes[2].start();
        (0..3).for_each(|node| cluster.nodes[node].wait_ready());
        wait_for("node 1 to lead", || (cluster.leader_of(DATA_REGION) == 0).then_some(()));
    });
    for i in 0..KEYS {
        let read = eventually("a get", async || client.get(format!("key{i:04}")).await).await;
        assert_eq!(read, Some(value(i).into_bytes()), "key {i}");
    }
    tokio::task::block_in_place(|| {
        assert_ne!(cluster.leader_of(DATA_REGION), 0, "another node leads");
        let (code, why) = http_get(&cluster.nodes[0].status_addr, "/readyz").expect("it serves its status");
        assert!(code == 503 && why.contains("damaged") && why.contains(".sst"), "{code}: {why}");
        assert!(cluster.nodes[0].log_text().contains("a read met damaged data"));
    });
}
