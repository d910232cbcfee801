//! Conversion of directories from before the served store's families had reserved numbers.
//!
//! The families had the numbers 1 to 5, which the user of an embedded database may also use. At the first open the
//! families move to their reserved numbers:
//!
//! 1. Everything but `meta` is copied. Nothing else is written meanwhile, so a crash here leaves the old families
//!    unchanged, and the next open copies again.
//! 2. `meta` is copied in one synced commit together with [`MOVED_KEY`]: from then on the new families are
//!    authoritative.
//! 3. The old families are dropped, and then the key. This happens only if the key exists: a family with such a name
//!    and number may also belong to a user.
//!
//! The raft log is not changed: its entries have a version that says which numbers they use. The copied data needs its
//! space twice until the end. *Rejected:* moving tables from family to family in the manifest. That would be fast, but
//! a table's own header names its family, and every directory takes this step only once.

use crate::families::{EARLIER, META};
use kontiki_engine::{Db, Direction, Durability, Family, Range, Result, View, WriteBatch};

/// The families' earlier names, in the order of [`EARLIER`].
const EARLIER_NAMES: [&str; 5] = ["txn_default", "txn_lock", "txn_write", "meta", "placement"];
/// The key of the store's identity in `meta`.
const IDENTITY_KEY: &[u8] = &[1];
/// In `meta`: the old families are copied and may be dropped. raftstore's own tags end at 3.
const MOVED_KEY: &[u8] = &[4];
/// Bytes of a commit while data is copied.
const BATCH_BYTES: usize = 1 << 20;

/// Moves the families of such a directory; any other directory is left unchanged.
pub(super) fn convert(db: &Db) -> Result<()> {
    let view = db.snapshot();
    if view.get_in(META, MOVED_KEY)?.is_none() {
        if !is_earlier(db)? {
            return Ok(());
        }
        tracing::info!("moving the store's families to their reserved numbers");
        for (earlier, now) in EARLIER.into_iter().filter(|(_, now)| *now != META) {
            copy(db, &view, earlier, now)?;
        }
        copy_meta(db, &view)?;
    }
    drop(view);
    let mut left: Vec<Family> = db.families().into_iter().map(|spec| spec.family).collect();
    left.retain(|family| EARLIER.iter().any(|(earlier, _)| earlier == family));
    left.into_iter().try_for_each(|family| db.drop_family(family))?;
    let mut done = WriteBatch::new();
    done.delete(META, MOVED_KEY);
    db.write(done, Durability::Sync).map(|_| ())
}

/// Whether all families exist under their earlier numbers and names, and contain a store's identity.
fn is_earlier(db: &Db) -> Result<bool> {
    let families = db.families();
    let is_there = |((family, _), name): (&(Family, Family), &str)| {
        families.iter().any(|spec| spec.family == *family && spec.name == name)
    };
    if !EARLIER.iter().zip(EARLIER_NAMES).all(is_there) {
        return Ok(false);
    }
    Ok(db.snapshot().get_in(earlier_meta(), IDENTITY_KEY)?.is_some())
}

fn earlier_meta() -> Family {
    let found = EARLIER.iter().find(|(_, now)| *now == META);
    found.expect("it is one of them").0
}

fn copy(db: &Db, view: &dyn View, from: Family, to: Family) -> Result<()> {
    let mut entries = view.entries(from, Range::all(), Direction::Forward)?;
    loop {
        let mut batch = WriteBatch::new();
        while batch.as_bytes().len() < BATCH_BYTES {
            let Some((key, value)) = entries.next().transpose()? else { break };
            batch.put(to, &key, &value);
        }
        if batch.is_empty() {
            return Ok(());
        }
        db.write(batch, Durability::Buffered)?;
    }
}

/// Synced, and with it everything that was copied before.
fn copy_meta(db: &Db, view: &dyn View) -> Result<()> {
    let mut batch = WriteBatch::new();
    batch.put(META, MOVED_KEY, []);
    let mut entries = view.entries(earlier_meta(), Range::all(), Direction::Forward)?;
    while let Some((key, value)) = entries.next().transpose()? {
        batch.put(META, &key, &value);
    }
    db.write(batch, Durability::Sync).map(|_| ())
}

#[cfg(test)]
#[path = "convert_test.rs"]
mod tests;
