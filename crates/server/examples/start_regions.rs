//! How long a node with many regions takes to start, and with what.
//!
//! `cargo run --release -p kontiki-server --example start_regions -- DIRECTORY [REGIONS] [WRITES_PER_REGION]`
//!
//! The first run makes the directory: the regions by splits, and some writes of 100 bytes in each. Then the node is
//! started twice, after a clean close and after a kill (as far as one process can: the driver is dropped), and the time
//! of each part is printed. Without REGIONS an existing directory is started.
#![forbid(unsafe_code)]

use bytes::Bytes;
use futures::FutureExt;
use kontiki_engine::{Db, Family, Options, WriteBatch};
use kontiki_env::Env;
use kontiki_placement::Now;
use kontiki_server::config::NodeConfig;
use kontiki_server::driver::{Driver, NodeHandle, RegionContext};
use kontiki_server::families::served_families;
use std::error::Error;
use std::future::Future;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// Keys of one split.
const SPLIT_KEYS: usize = 64;
const VALUE_BYTES: usize = 100;
const DATA_REGION: kontiki_raftstore::RegionId = kontiki_raftstore::RegionId(2);

fn config(directory: &Path) -> NodeConfig {
    let mut config = NodeConfig::single(directory, "127.0.0.1:1");
    config.raft.region_bytes_max = 0;
    config
}

fn key(region: usize) -> [u8; 4] {
    u32::try_from(region).expect("few regions").to_be_bytes()
}

struct Node {
    env: Env,
    driver: Driver,
}

impl Node {
    fn open(directory: &Path) -> Result<Node, Box<dyn Error>> {
        let env = Env::real();
        let driver = Driver::open(&env, config(directory), 1)?;
        let thread = std::thread::current();
        driver.set_waker(Box::new(move || thread.unpark()));
        Ok(Node { env, driver })
    }

    fn step(&mut self) {
        let clock = &self.env.clock;
        self.driver.step(Now { monotonic: clock.monotonic(), wall_ms: clock.wall_ms() });
        let now = clock.monotonic();
        std::thread::park_timeout(self.driver.next_deadline(now).saturating_sub(now).min(Duration::from_millis(5)));
    }

    fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = Box::pin(future);
        loop {
            if let Some(value) = future.as_mut().now_or_never() {
                return value;
            }
            self.step();
        }
    }

    /// Until this node leads all its regions.
    fn lead_all(&mut self) -> usize {
        let handle = self.driver.handle();
        loop {
            let regions = handle.regions();
            if regions.iter().all(|region| handle.leading_term(region.id).is_some()) {
                return regions.len();
            }
            self.step();
        }
    }
}

fn context(handle: &NodeHandle, region: kontiki_raftstore::RegionId) -> RegionContext {
    let (descriptor, _) = handle.region(region).expect("a replica is here");
    RegionContext::new(region, descriptor.epoch)
}

fn make(directory: &Path, regions: usize, writes: usize) -> Result<(), Box<dyn Error>> {
    let mut node = Node::open(directory)?;
    node.lead_all();
    let handle = node.driver.handle();
    // From the end, so that the region that is split is always the first one.
    let keys: Vec<Bytes> = (1..regions).map(|region| Bytes::copy_from_slice(&key(region))).collect();
    for part in keys.rchunks(SPLIT_KEYS) {
        let context = context(&handle, DATA_REGION);
        node.run(handle.split(&context, part.to_vec()))?;
        node.lead_all();
    }
    let descriptors = handle.regions();
    for _ in 0..writes {
        for part in descriptors.iter().filter(|region| region.start_key.len() == 4).collect::<Vec<_>>().chunks(256) {
            let write = |region: &&std::sync::Arc<kontiki_raftstore::Region>| {
                let (handle, region) = (handle.clone(), (*region).clone());
                async move {
                    let mut batch = WriteBatch::new();
                    batch.put(Family::DEFAULT, &region.start_key, [7; VALUE_BYTES]);
                    handle.propose(&context(&handle, region.id), batch).await
                }
            };
            for done in node.run(futures::future::join_all(part.iter().map(write))) {
                done?;
            }
        }
    }
    Ok(node.driver.close()?)
}

/// Opens the engine alone and reads the raft logs, in one pass and one after the other, then starts the node.
fn measure(what: &str, directory: &Path) -> Result<Node, Box<dyn Error>> {
    let env = Env::real();
    let seconds = |since: Duration| (env.clock.monotonic() - since).as_secs_f64();
    let began = env.clock.monotonic();
    let options = Options { families: served_families(), ..Options::default() };
    let db = Db::open_in(&env, directory, options)?;
    let opened = seconds(began);
    let stats = db.stats().log;
    let (began, mut entries) = (env.clock.monotonic(), 0);
    db.scan_streams(&mut |_, _, _| {
        entries += 1;
        ControlFlow::Continue(())
    })?;
    let (replayed, pass) = (stats.replayed_bytes >> 10, seconds(began));
    let (began, mut again) = (env.clock.monotonic(), 0);
    for id in db.streams() {
        again += db.stream(id)?.entries.len();
    }
    let each = seconds(began);
    assert_eq!(entries, again, "both find the same");
    db.close()?;
    println!(
        "{what}: engine {opened:.2} s ({replayed} KiB of log replayed), {entries} entries in one pass in {pass:.2} s, \
         stream by stream in {each:.2} s"
    );
    let began = env.clock.monotonic();
    let mut node = Node::open(directory)?;
    let open = seconds(began);
    let count = node.lead_all();
    println!("{what}: node open {open:.2} s, {count} regions led after {:.2} s", seconds(began));
    Ok(node)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = Path::new(arguments.first().ok_or("DIRECTORY is missing")?);
    if let Some(regions) = arguments.get(1) {
        make(directory, regions.parse()?, arguments.get(2).map_or(Ok(10), |writes| writes.parse())?)?;
    }
    let node = measure("after a close", directory)?;
    drop(node);
    let node = measure("after no close", directory)?;
    Ok(node.driver.close()?)
}
