//! The records of one key.

use crate::error::ActionFailure;
use crate::keys::{TXN_DEFAULT, TXN_LOCK, TXN_WRITE, default_key, lock_key, split_versioned, version_range, write_key};
use crate::{Failure, Lock, Malformed, TimeStamp, Write, WriteKind};
use bytes::Bytes;
use kontiki_engine::{Direction, Entries, View};

/// Reads locks, write records and values of single user keys. Every search is bounded to the versions of its key.
#[derive(Clone, Copy)]
pub(crate) struct MvccReader<'a> {
    view: &'a dyn View,
}

/// The outcome of a transaction on a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TxnRecord {
    /// Nothing is known. If another transaction committed exactly at the start timestamp, its record: a rollback must
    /// be recorded there.
    None { overlapped: Option<Write> },
    /// Committed.
    Committed { commit_ts: TimeStamp },
    /// Rolled back.
    RolledBack,
}

impl<'a> MvccReader<'a> {
    pub(crate) fn new(view: &'a dyn View) -> MvccReader<'a> {
        MvccReader { view }
    }

    /// The lock on a key.
    pub(crate) fn lock(&self, key: &[u8]) -> Result<Option<Lock>, ActionFailure> {
        let physical = lock_key(key);
        let Some(bytes) = self.view.get(TXN_LOCK, &physical)? else { return Ok(None) };
        Lock::decode(&bytes).map(Some).map_err(|what| Failure::corrupt(&physical, what))
    }

    /// The write record at exactly this timestamp.
    pub(crate) fn write_at(&self, key: &[u8], ts: TimeStamp) -> Result<Option<Write>, ActionFailure> {
        let physical = write_key(key, ts);
        let Some(bytes) = self.view.get(TXN_WRITE, &physical)? else { return Ok(None) };
        Write::decode_at(ts, &bytes).map(Some).map_err(|what| Failure::corrupt(&physical, what))
    }

    /// The write records of a key from `newest` down to `oldest`, both included, newest first.
    pub(crate) fn writes(&self, key: &[u8], newest: TimeStamp, oldest: TimeStamp) -> Result<Writes, ActionFailure> {
        let entries = self.view.entries(TXN_WRITE, version_range(key, newest, oldest), Direction::Forward)?;
        Ok(Writes { entries, newer: None, oldest })
    }

    /// The newest record at or below `ts` that changes the key: rollback and lock records never hide an older one.
    pub(crate) fn newest_change(&self, key: &[u8], ts: TimeStamp) -> Result<Option<(TimeStamp, Write)>, ActionFailure> {
        let mut writes = self.writes(key, ts, TimeStamp::ZERO)?;
        while let Some((commit_ts, write)) = writes.next()? {
            if matches!(write.kind, WriteKind::Put | WriteKind::Delete) {
                assert!(commit_ts <= ts, "a snapshot does not see the future");
                return Ok(Some((commit_ts, write)));
            }
        }
        Ok(None)
    }

    /// The outcome of the transaction `start_ts` on the key.
    pub(crate) fn record_of(&self, key: &[u8], start_ts: TimeStamp) -> Result<TxnRecord, ActionFailure> {
        let mut writes = self.writes(key, TimeStamp::MAX, start_ts)?;
        while let Some((commit_ts, write)) = writes.next()? {
            assert!(commit_ts >= start_ts, "the range ends at the start timestamp");
            if write.start_ts == start_ts && write.kind != WriteKind::Rollback {
                assert!(commit_ts > start_ts, "checked when the record was decoded");
                return Ok(TxnRecord::Committed { commit_ts });
            }
            if commit_ts == start_ts {
                let rolled_back = write.overlapped_rollback || write.kind == WriteKind::Rollback;
                return Ok(match rolled_back {
                    true => TxnRecord::RolledBack,
                    false => TxnRecord::None { overlapped: Some(write) },
                });
            }
        }
        Ok(TxnRecord::None { overlapped: None })
    }

    /// The value of a put record.
    pub(crate) fn value(&self, key: &[u8], write: &Write) -> Result<Bytes, ActionFailure> {
        assert_eq!(write.kind, WriteKind::Put, "only puts have values");
        self.short_or_long(key, write.start_ts, write.short_value.as_ref())
    }

    /// The value that a put lock will commit.
    pub(crate) fn locked_value(&self, key: &[u8], lock: &Lock) -> Result<Bytes, ActionFailure> {
        self.short_or_long(key, lock.start_ts, lock.short_value.as_ref())
    }

    fn short_or_long(&self, key: &[u8], start: TimeStamp, short: Option<&Bytes>) -> Result<Bytes, ActionFailure> {
        if let Some(value) = short {
            return Ok(value.clone());
        }
        let physical = default_key(key, start);
        let missing = || Failure::corrupt(&physical, Malformed("a long value is missing"));
        self.view.get(TXN_DEFAULT, &physical)?.ok_or_else(missing)
    }
}

/// Write records of one key, newest first.
pub(crate) struct Writes {
    entries: Box<dyn Entries>,
    newer: Option<TimeStamp>,
    oldest: TimeStamp,
}

impl Writes {
    /// The next older one.
    pub(crate) fn next(&mut self) -> Result<Option<(TimeStamp, Write)>, ActionFailure> {
        let Some((physical, bytes)) = self.entries.next().transpose()? else { return Ok(None) };
        let (_, commit_ts) = split_versioned(&physical).map_err(|what| Failure::corrupt(&physical, what))?;
        let write = Write::decode_at(commit_ts, &bytes).map_err(|what| Failure::corrupt(&physical, what))?;
        assert!(self.newer.is_none_or(|newer| commit_ts < newer), "versions run from new to old");
        assert!(commit_ts >= self.oldest, "inside the range");
        self.newer = Some(commit_ts);
        Ok(Some((commit_ts, write)))
    }
}
