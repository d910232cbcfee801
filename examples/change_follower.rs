//! Keeps a derived count up to date by following the change feed, and resumes where it stopped.
//!
//! The position is written together with what was derived up to it, so each change counts once, also after a crash.
//!
//! ```text
//! cargo run --release --example change_follower
//! ```

use kontiki::{BatchOp, ChangesOptions, Db, Durability, Family, Options, Result, WriteBatch};
use std::time::Duration;

fn number(bytes: Option<kontiki::Bytes>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().expect("8 bytes")))
}

/// Counts the puts of the default family, from where the last call has stopped.
fn follow(db: &Db, derived: Family) -> Result<u64> {
    let (mut position, mut puts) = (number(db.get_in(derived, "position")?), number(db.get_in(derived, "puts")?));
    let mut options = ChangesOptions::from(position);
    options.left_out.insert(derived); // its own writes
    let mut changes = db.changes_with(options)?;
    while let Some(change) = changes.wait(Duration::from_millis(10))? {
        puts += change.batch.ops().filter(|op| matches!(op, BatchOp::Put { .. })).count() as u64;
        position = change.sequence;
    }
    let mut batch = WriteBatch::new();
    batch.put(derived, "position", position.to_be_bytes());
    batch.put(derived, "puts", puts.to_be_bytes());
    db.write(batch, Durability::Sync)?;
    Ok(puts)
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    // How far a follower may be behind, in bytes of the log.
    let open = || Db::open(folder.path(), Options { feed_retention_bytes: 64 << 20, ..Options::default() });
    let db = open()?;
    let derived = db.open_family("derived")?;
    for turn in 0..100 {
        db.put(format!("key {}", turn % 10), format!("value {turn}"))?;
    }
    println!("{} puts", follow(&db, derived)?);
    db.delete("key 1")?;
    db.put("key 2", "again")?;
    db.close()?;

    let db = open()?;
    let puts = follow(&db, db.open_family("derived")?)?;
    println!("{puts} puts after a restart");
    assert_eq!(puts, 101);
    Ok(())
}
