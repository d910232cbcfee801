//! A commit is checked and made ready for the log, before it has a place in any order.

use super::WritePath;
use crate::log::{CommitPayload, RECORD_HEADER_BYTES, commit_bytes_max};
use crate::vlog::ValuePin;
use crate::{Commit, Durability, Error, Result, SequenceNumber, StreamOp, Unchanged, WriteBatch};

/// Most bytes of one commit in the log. Far above what a replicated entry or a client's batch may have, and small
/// enough that a separate segment for it is acceptable.
pub(crate) const COMMIT_BYTES_MAX: u64 = 256 << 20;

/// A checked commit before it is in the log.
pub(crate) struct PreparedCommit {
    pub(crate) batch: WriteBatch,
    pub(crate) streams: Vec<StreamOp>,
    pub(crate) durability: Durability,
    pub(crate) unchanged: Vec<Unchanged>,
    /// The conditions are checked up to this number.
    pub(crate) checked_through: SequenceNumber,
    /// The count of dropped families when those of the batch were looked up.
    pub(crate) drops: u64,
    pub(crate) payload: CommitPayload,
    /// At least what it takes in the log.
    pub(crate) bytes: u64,
    /// Kept until the batch is in a memtable or was refused.
    pub(crate) _values: Option<ValuePin>,
}

impl WritePath {
    /// Refuses invalid commits, moves large values to the value log if the commit will be logged, and makes it
    /// ready for the log.
    pub(super) fn prepare(&self, commit: Commit) -> Result<PreparedCommit> {
        self.shared.health.check_writable()?;
        match commit.durability {
            // It was checked where it was proposed.
            Durability::Derived => commit.batch.validate()?,
            _ => commit.batch.validate_at(|| self.shared.env.clock.wall_ms())?,
        }
        let drops = self.family_drops.count();
        self.check_families(&commit.batch)?;
        let bytes = RECORD_HEADER_BYTES + commit_bytes_max(&commit.batch, &commit.streams);
        if bytes > COMMIT_BYTES_MAX {
            let message = format!("a commit has {bytes} bytes; at most {COMMIT_BYTES_MAX} are accepted");
            return Err(Error::InvalidArgument(message));
        }
        if commit.durability == Durability::Derived && !commit.streams.is_empty() {
            return Err(Error::InvalidArgument("a derived commit holds no stream operations".into()));
        }
        if commit.durability == Durability::Derived && !commit.unchanged.is_empty() {
            return Err(Error::InvalidArgument("a derived commit has no conditions".into()));
        }
        let checked_through = self.check_unchanged(&commit.unchanged)?;
        let Commit { batch, streams, durability, unchanged } = commit;
        if durability != Durability::Derived && streams.is_empty() {
            // What replication logs is applied in every case, whatever the load here.
            self.shared.recorder.hot_keys.admit(&batch, || self.shared.recorder.now())?;
        }
        // The large values of derived commits are separated by the flush; and a small commit that waits for the disk
        // should wait only once.
        let together =
            durability == Durability::Sync && batch.as_bytes().len() as u64 <= self.shared.options.sync_value_bytes_max;
        let (batch, values) =
            if durability == Durability::Derived || together { (batch, None) } else { self.separate_values(batch)? };
        let payload = CommitPayload::new(&batch, &streams);
        Ok(PreparedCommit {
            batch,
            streams,
            durability,
            unchanged,
            checked_through,
            drops,
            payload,
            bytes,
            _values: values,
        })
    }
}
