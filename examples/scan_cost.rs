//! What `kontiki scan` is compared with (docs/benchmarks.md): the same scans by the library alone, and data for them.
//!
//! ```text
//! cargo run --release --example scan_cost -- fill DIR COUNT             COUNT keys of 10 bytes with values of 100
//! cargo run --release --example scan_cost -- scan DIR                   reads them all
//! cargo run --release --example scan_cost -- fill-node HOST:PORT COUNT
//! cargo run --release --example scan_cost -- scan-node HOST:PORT
//! ```

use kontiki::ReadOptions;
use kontiki::client::Client;
use kontiki::{Db, Direction, Durability, Family, Options, Range, WriteBatch};
use std::error::Error;

/// Keys in a batch.
const BATCH: u32 = 1_000;

fn key(number: u32) -> String {
    format!("k{number:09}")
}

fn value(number: u32) -> String {
    format!("{number:0100}")
}

fn fill(folder: &str, count: u32) -> Result<(), Box<dyn Error>> {
    let db = Db::open(folder, Options::default())?;
    for first in (0..count).step_by(BATCH as usize) {
        let mut batch = WriteBatch::new();
        for number in first..count.min(first + BATCH) {
            batch.put(Family::DEFAULT, key(number).as_bytes(), value(number).as_bytes());
        }
        db.write(batch, Durability::Buffered)?;
    }
    db.flush()?;
    Ok(db.close()?)
}

fn scan(folder: &str) -> Result<(u64, u64), Box<dyn Error>> {
    let db = Db::open_read_only(folder, Options::default())?;
    let mut scan = db.scan(Family::DEFAULT, Range::all(), Direction::Forward, ReadOptions::one_pass())?;
    let (mut count, mut bytes) = (0, 0);
    while scan.advance()? {
        let (key, value) = scan.entry()?;
        count += 1;
        bytes += (key.len() + value.len()) as u64;
    }
    Ok((count, bytes))
}

async fn fill_node(endpoint: &str, count: u32) -> Result<(), Box<dyn Error>> {
    let raw = Client::connect([endpoint]).await?.raw();
    for first in (0..count).step_by(BATCH as usize) {
        raw.batch_put((first..count.min(first + BATCH)).map(|number| (key(number), value(number)))).await?;
    }
    Ok(())
}

async fn scan_node(endpoint: &str) -> Result<(u64, u64), Box<dyn Error>> {
    let mut pages = Client::connect([endpoint]).await?.raw().scan_pages("", "", usize::MAX, false);
    let (mut count, mut bytes) = (0, 0);
    while let Some(page) = pages.next_page().await? {
        count += page.len() as u64;
        bytes += page.iter().map(|pair| (pair.key.len() + pair.value.len()) as u64).sum::<u64>();
    }
    Ok((count, bytes))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (count, bytes) = match arguments.as_slice() {
        ["fill", folder, count] => return fill(folder, count.parse()?),
        ["fill-node", endpoint, count] => return runtime.block_on(fill_node(endpoint, count.parse()?)),
        ["scan", folder] => scan(folder)?,
        ["scan-node", endpoint] => runtime.block_on(scan_node(endpoint))?,
        _ => return Err("usage: fill DIR COUNT | scan DIR | fill-node HOST:PORT COUNT | scan-node HOST:PORT".into()),
    };
    println!("{count} entries, {bytes} bytes of keys and values");
    Ok(())
}
