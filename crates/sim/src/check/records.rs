//! Locks and records of transactions in a view: one outcome for each transaction and key, values where the records say
//! they are, and no value without a reference.

use bytes::Bytes;
use kontiki_engine::{Direction, Family, Range, Result, View};
use kontiki_env::memcomparable;
use kontiki_txn::{Lock, LockKind, TXN_DEFAULT, TXN_LOCK, TXN_WRITE, Write, WriteKind};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of the timestamp at the end of a versioned key.
const TIMESTAMP_BYTES: usize = 8;

/// The locks and records of one transaction on one key.
#[derive(Default)]
struct Fate {
    commits: u64,
    rollbacks: u64,
    is_locked: bool,
    /// A record or a lock that says that the value is in the family of long values.
    refers_to_value: bool,
    has_value: bool,
}

/// Encoded user key and start timestamp.
type Place = (Bytes, u64);

/// Checks everything in the view. Returns one text for each violation; locks alone are not violations.
pub fn check(view: &dyn View) -> Result<Vec<String>> {
    let mut fates: BTreeMap<Place, Fate> = BTreeMap::new();
    let mut broken = Vec::new();
    each(view, TXN_WRITE, |key, value| {
        let Some((user, at)) = split(&key) else { return broken.push(format!("a record's key {key:?}")) };
        let Ok(write) = Write::decode(&value) else { return broken.push(format!("a record of {user:?} at {at}")) };
        if write.overlapped_rollback {
            fates.entry((user.clone(), at)).or_default().rollbacks += 1;
        }
        let fate = fates.entry((user, write.start_ts.0)).or_default();
        match write.kind {
            WriteKind::Rollback => fate.rollbacks += 1,
            _ => fate.commits += 1,
        }
        fate.refers_to_value |= write.kind == WriteKind::Put && write.short_value.is_none();
    })?;
    each(view, TXN_LOCK, |key, value| {
        let Ok(lock) = Lock::decode(&value) else { return broken.push(format!("a lock of {key:?}")) };
        let fate = fates.entry((key, lock.start_ts.0)).or_default();
        fate.is_locked = true;
        fate.refers_to_value |= lock.kind == LockKind::Put && lock.short_value.is_none();
    })?;
    each(view, TXN_DEFAULT, |key, _| match split(&key) {
        Some(place) => fates.entry(place).or_default().has_value = true,
        None => broken.push(format!("a value's key {key:?}")),
    })?;
    for ((key, start_ts), fate) in fates {
        let what = match fate {
            Fate { commits: 2.., .. } => "is committed twice",
            Fate { commits: 1, rollbacks: 1.., .. } => "is committed and rolled back",
            Fate { is_locked: true, commits: 1.., .. } => "is committed and has a lock",
            Fate { is_locked: true, rollbacks: 1.., .. } => "is rolled back and has a lock",
            Fate { refers_to_value: true, has_value: false, .. } => "has lost its value",
            Fate { refers_to_value: false, has_value: true, .. } => "has left a value that nothing refers to",
            _ => continue,
        };
        broken.push(format!("the transaction of {start_ts} {what} on \"{}\"", key.escape_ascii()));
    }
    Ok(broken)
}

/// Commit timestamps, by key and start timestamp.
pub type Commits = BTreeMap<(Bytes, u64), u64>;

/// Adds the commits in a view.
pub fn collect_commits(view: &dyn View, commits: &mut Commits) -> Result<()> {
    each(view, TXN_WRITE, |key, value| {
        let (Some((user, at)), Ok(write)) = (split(&key), Write::decode(&value)) else { return };
        let Ok(user) = memcomparable::decode(&user) else { return };
        if write.kind != WriteKind::Rollback {
            commits.insert((user.into(), write.start_ts.0), at);
        }
    })
}

/// Start timestamps of the locks in a view.
pub fn locks(view: &dyn View) -> Result<BTreeSet<u64>> {
    let mut found = BTreeSet::new();
    each(view, TXN_LOCK, |_, value| found.extend(Lock::decode(&value).map(|lock| lock.start_ts.0)))?;
    Ok(found)
}

fn each(view: &dyn View, family: Family, mut see: impl FnMut(Bytes, Bytes)) -> Result<()> {
    let mut entries = view.entries(family, Range::all(), Direction::Forward)?;
    while let Some((key, value)) = entries.next().transpose()? {
        see(key, value);
    }
    Ok(())
}

/// The encoded user key and the timestamp of a versioned key.
fn split(key: &Bytes) -> Option<Place> {
    let (_, suffix) = key.split_last_chunk::<TIMESTAMP_BYTES>()?;
    Some((key.slice(..key.len() - TIMESTAMP_BYTES), !u64::from_be_bytes(*suffix)))
}

#[cfg(test)]
#[path = "records_test.rs"]
mod tests;
