//! For tools: the contents of the directory of a stopped node.

use crate::families;
use kontiki_engine::{Db, Error, StreamId};
use kontiki_env::Env;
use kontiki_raftstore::{RegionId, meta};
use std::path::Path;

pub use crate::driver::INCONSISTENT_MARK;
pub use crate::driver::{LostStores, RefusedPlan, RegionPlan, plan_recovery};
pub use kontiki_raftlog::{FilesChecked, LogFileProblem, StoppedLogs, check_files};
pub use kontiki_raftstore::RecoverError;
pub use kontiki_txn::{CommittedReader, TXN_WRITE};

/// The raft logs of the directory of `db`.
pub fn logs<'a>(env: &Env, data_dir: &Path, db: &'a Db) -> Result<StoppedLogs<'a>, Error> {
    StoppedLogs::open(env, data_dir, db, families::LOG_PLACE)
}

/// The number of entries of the directory's raft logs that are not in its tables, over all replicas.
///
/// A node that stops cleanly leaves none, or only some that were not committed yet. After a killed process they are the
/// writes acknowledged since the last flush: the next start applies them again. Copies of the directory, which hold its
/// data without the raft logs, lack them.
///
/// Errors: the directory cannot be read, or contradicts itself.
pub fn entries_not_in_tables(env: &Env, data_dir: &Path, db: &Db) -> Result<u64, RecoverError> {
    let view = db.snapshot();
    let mut missing = 0;
    for (StreamId(region), last_index) in logs(env, data_dir, db)?.last_indices()? {
        let applied = meta::applied_index(families::META, &view, RegionId(region))?.unwrap_or(0);
        missing += last_index.saturating_sub(applied);
    }
    Ok(missing)
}
