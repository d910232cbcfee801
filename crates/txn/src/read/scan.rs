//! Scans: over versions at a timestamp, and over locks.
//!
//! A scan reads the lock family and the write family in parallel, one user key at a time, so that each key is evaluated
//! once, in order. It is bounded by its range and its limit: clients take fewer pairs than the limit as "nothing more
//! in this range", so an answer that exceeds the limit on its bytes is refused and never truncated.

use super::cursor::Cursor;
use super::snapshot::{LockCheck, check_lock, locked_version};
use super::{Isolation, MvccReader, Pair, ReadOptions, Version};
use crate::error::ActionFailure;
use crate::keys::{TXN_LOCK, TXN_WRITE, is_empty, split_lock_key, split_versioned};
use crate::planted::{self, Bug};
use crate::yield_point::{ReadProgress, YieldPoint};
use crate::{Failure, Lock, LockInfo, TimeStamp, Write, WriteKind};
use bytes::Bytes;
use kontiki_engine::{Direction, Range, View};
use kontiki_env::memcomparable;

/// Which keys to scan.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Encoded keys, already clipped to the region ([`crate::user_range`]).
    pub range: Range,
    /// At most this many pairs; a locked key counts as one.
    pub limit: usize,
    /// Answer empty values.
    pub key_only: bool,
    /// From the end of the range towards its start.
    pub reverse: bool,
}

/// Which locks to list.
#[derive(Clone, Debug)]
pub struct ScanLock {
    /// Encoded keys, already clipped to the region ([`crate::user_range`]).
    pub range: Range,
    /// Locks of transactions that began at or before it.
    pub max_version: TimeStamp,
    /// At most this many; 0 is no limit.
    pub limit: usize,
}

/// Scans versions.
pub(crate) async fn scan(
    view: &dyn View,
    scan: &Scan,
    options: &ReadOptions,
    yields: &mut impl YieldPoint,
) -> Result<Vec<Pair>, ActionFailure> {
    let mut progress = ReadProgress::new(yields);
    let mut pairs = Vec::new();
    if is_empty(&scan.range) || scan.limit == 0 {
        return Ok(pairs);
    }
    let mut scanner = Scanner::open(view, scan, options.clone())?;
    while pairs.len() < scan.limit {
        let Some(encoded) = scanner.next_key()? else { break };
        let key = memcomparable::decode(&encoded).map_err(|what| Failure::corrupt(&encoded, what.into()))?;
        let reported = |outcome: &Result<_, _>| outcome.is_ok() || !planted::is_set(Bug::OmitLockedKeys);
        let found =
            scanner.outcome(&encoded, &key)?.filter(reported).map(|outcome| Pair { key: Bytes::from(key), outcome });
        debug_assert!(scan.range.contains(&encoded), "inside the range");
        scanner.pass(&encoded)?;
        debug_assert_ne!(scanner.next_key()?.as_deref(), Some(encoded.as_slice()), "each key once");
        match found {
            None => progress.passed().await?,
            Some(pair) => {
                let bytes = pair.answer_bytes();
                pairs.push(pair);
                progress.added::<Pair>(bytes).await?;
            }
        }
    }
    assert!(pairs.len() <= scan.limit, "the limit holds");
    debug_assert!(pairs.windows(2).all(|two| (two[0].key < two[1].key) != scan.reverse), "in order");
    Ok(pairs)
}

pub(super) struct Scanner<'a> {
    reader: MvccReader<'a>,
    pub(super) options: ReadOptions,
    key_only: bool,
    direction: Direction,
    /// Absent when locks are ignored.
    locks: Option<Cursor>,
    /// Finds the next user key.
    writes: Cursor,
    /// Finds the visible version. Versions run from new to old, so a backward scan needs a forward cursor besides.
    versions: Option<Cursor>,
}

impl<'a> Scanner<'a> {
    pub(super) fn open(view: &'a dyn View, scan: &Scan, options: ReadOptions) -> Result<Scanner<'a>, ActionFailure> {
        let direction = if scan.reverse { Direction::Backward } else { Direction::Forward };
        let locks = match options.isolation {
            Isolation::Snapshot => Some(Cursor::open(view, TXN_LOCK, &scan.range, direction)?),
            Isolation::ReadCommitted | Isolation::Stale => None,
        };
        let versions = match direction {
            Direction::Forward => None,
            Direction::Backward => Some(Cursor::open(view, TXN_WRITE, &scan.range, Direction::Forward)?),
        };
        let writes = Cursor::open(view, TXN_WRITE, &scan.range, direction)?;
        let reader = MvccReader::new(view);
        Ok(Scanner { reader, options, key_only: scan.key_only, direction, locks, writes, versions })
    }

    /// The next encoded user key that has a lock or a version.
    pub(super) fn next_key(&self) -> Result<Option<Vec<u8>>, ActionFailure> {
        let locked = self.locks.as_ref().and_then(Cursor::head).map(|(physical, _)| physical.as_ref());
        let written = self.writes.encoded_key()?;
        let next = match self.direction {
            Direction::Forward => locked.into_iter().chain(written).min(),
            Direction::Backward => locked.into_iter().chain(written).max(),
        };
        Ok(next.map(<[u8]>::to_vec))
    }

    /// The result for the key: nothing, a version, or the lock that blocks the read.
    pub(super) fn outcome(
        &mut self,
        encoded: &[u8],
        key: &[u8],
    ) -> Result<Option<Result<Version, LockInfo>>, ActionFailure> {
        if let Some(lock) = self.lock(encoded)? {
            match check_lock(&lock, key, &self.options) {
                LockCheck::Ignore => {}
                LockCheck::Committed => {
                    return Ok(locked_version(&self.reader, key, &lock, self.key_only)?.map(Ok));
                }
                LockCheck::Blocked => return Ok(Some(Err(lock.info(key)))),
            }
        }
        if self.writes.encoded_key()? != Some(encoded) {
            return Ok(None);
        }
        let Some((commit_ts, write)) = self.visible(encoded)? else { return Ok(None) };
        let value = if self.key_only { Bytes::new() } else { self.reader.value(key, &write)? };
        Ok(Some(Ok(Version { value, commit_ts })))
    }

    fn lock(&self, encoded: &[u8]) -> Result<Option<Lock>, ActionFailure> {
        match self.locks.as_ref().and_then(Cursor::head) {
            Some((physical, bytes)) if physical == encoded => {
                Lock::decode(bytes).map(Some).map_err(|what| Failure::corrupt(physical, what))
            }
            _ => Ok(None),
        }
    }

    /// The newest put at or below the timestamp, unless a delete is newer.
    fn visible(&mut self, encoded: &[u8]) -> Result<Option<(TimeStamp, Write)>, ActionFailure> {
        let ts = self.options.ts;
        let target = [encoded, &(!ts.0).to_be_bytes()].concat();
        let cursor = match &mut self.versions {
            None => &mut self.writes,
            Some(versions) => {
                versions.seek(&target)?;
                versions
            }
        };
        cursor.step_or_seek(&target, |physical| physical >= target.as_slice())?;
        while let Some((physical, bytes)) = cursor.head() {
            let corrupt = |what| Failure::corrupt(physical, what);
            let (owner, commit_ts) = split_versioned(physical).map_err(corrupt)?;
            if owner != encoded {
                break;
            }
            assert!(commit_ts <= ts, "a snapshot does not see the future");
            let write = Write::decode_at(commit_ts, bytes).map_err(corrupt)?;
            match write.kind {
                WriteKind::Put => return Ok(Some((commit_ts, write))),
                WriteKind::Delete => break,
                WriteKind::Lock | WriteKind::Rollback => cursor.advance()?,
            }
        }
        Ok(None)
    }

    /// Moves both cursors past the key.
    pub(super) fn pass(&mut self, encoded: &[u8]) -> Result<(), ActionFailure> {
        if let Some(locks) = &mut self.locks
            && locks.head().is_some_and(|(physical, _)| physical == encoded)
        {
            locks.advance()?;
        }
        // Beyond every version, in either direction: versions of a key lie directly behind its encoding.
        let mut target = encoded.to_vec();
        if self.direction == Direction::Forward {
            target.extend_from_slice(&[0xff; 9]);
        }
        self.writes.step_or_seek(&target, |physical| !physical.starts_with(encoded))
    }
}

/// Lists locks, in key order.
pub(crate) async fn scan_lock(
    view: &dyn View,
    scan: &ScanLock,
    yields: &mut impl YieldPoint,
) -> Result<Vec<LockInfo>, ActionFailure> {
    locks_where(view, &scan.range, scan.limit, |lock| lock.start_ts <= scan.max_version, yields).await
}

/// The locks of a range that fit, up to a limit (0 is none).
pub(crate) async fn locks_where(
    view: &dyn View,
    range: &Range,
    limit: usize,
    fits: impl Fn(&Lock) -> bool + Send,
    yields: &mut impl YieldPoint,
) -> Result<Vec<LockInfo>, ActionFailure> {
    let mut progress = ReadProgress::new(yields);
    let mut found = Vec::new();
    if is_empty(range) {
        return Ok(found);
    }
    let mut entries = view.entries(TXN_LOCK, range.clone(), Direction::Forward)?;
    while let Some((physical, bytes)) = entries.next().transpose()? {
        let corrupt = |what| Failure::corrupt(&physical, what);
        let lock = Lock::decode(&bytes).map_err(corrupt)?;
        if !fits(&lock) {
            progress.passed().await?;
            continue;
        }
        let info = lock.info(&split_lock_key(&physical).map_err(corrupt)?);
        let bytes = info.answer_bytes();
        found.push(info);
        if found.len() == limit {
            break;
        }
        progress.added::<LockInfo>(bytes).await?;
    }
    assert!(limit == 0 || found.len() <= limit, "the limit holds");
    debug_assert!(found.windows(2).all(|two| two[0].key < two[1].key), "in key order");
    Ok(found)
}

#[cfg(test)]
#[path = "scan_test.rs"]
mod tests;
