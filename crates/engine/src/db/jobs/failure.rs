//! What a job does when its work fails.

use crate::Error;
use crate::db::shared::Shared;
use crate::db::write::WritePath;
use std::time::Duration;

/// How long a flush or compaction that found no space waits before it tries again. Each attempt may write as much as
/// the disk still takes, so not too often; and writing should resume soon after space was freed.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Returns whether a job whose step found no space should be called again, after a wait: commits may depend on it
/// that no writer waits for, so the retry must not need a write. The wait ends early when the database closes or
/// stops. In a stepped world time does not advance; there only writes try again.
pub(crate) fn wait_after_failure(shared: &Shared) -> bool {
    if !shared.env.tasks.threaded() {
        return false;
    }
    shared.progress.wait_for_end(RETRY_DELAY, || shared.health.check_writable().is_err());
    shared.health.check_writable().is_ok()
}

/// A full disk is waited out; the end of the database is no error; anything else stops writes.
pub(crate) fn background_failed(write: &WritePath, error: &Error) {
    match error {
        Error::Closed => {}
        error if error.is_retryable() => {
            tracing::warn!(%error, "background work is put off");
            if let Error::NoSpace { .. } = error {
                write.log.next_segments.release();
            }
        }
        error => write.stop(error),
    }
}
