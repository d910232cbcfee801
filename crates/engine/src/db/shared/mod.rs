//! What all parts of an open database use: the lowest of its parts, which knows none of the others.
//!
//! - `health`: whether the database is open and may be written to;
//! - `job_notifier`: wakes the background jobs; `progress`: what they have achieved, for those who wait for it;
//! - `subscribers`: those of the change feed; `counters`: what is counted while the database runs.

pub(crate) mod counters;
pub(crate) mod health;
pub(crate) mod job_notifier;
pub(crate) mod progress;
pub(crate) mod subscribers;

use self::counters::Counters;
use self::health::Health;
use self::job_notifier::JobNotifier;
use self::progress::{Progress, ProgressState};
use self::subscribers::Subscribers;
use crate::compaction::CompactionContext;
use crate::db::options::Options;
use crate::lock::check_wait;
use crate::measure::Recorder;
use crate::{Error, Result};
use kontiki_env::Env;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// See the head of this file.
pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) directory: PathBuf,
    pub(crate) options: Options,
    /// Tables, versions and the value log.
    pub(crate) context: CompactionContext,
    pub(crate) health: Health,
    pub(crate) jobs: JobNotifier,
    pub(crate) progress: Progress,
    /// The subscribers of the change feed.
    pub(crate) subscribers: Subscribers,
    pub(crate) counters: Counters,
    pub(crate) recorder: Arc<Recorder>,
}

impl Shared {
    /// Whether background work should end early.
    pub(crate) fn is_stopping(&self) -> bool {
        self.context.stop.load(Ordering::Relaxed)
    }

    /// Waits until `done` returns a result; it is called whenever background work has achieved something. In
    /// a stepped world, steps jobs instead.
    pub(crate) fn wait_for<T>(&self, mut done: impl FnMut(&ProgressState) -> Option<Result<T>>) -> Result<T> {
        check_wait();
        if self.env.tasks.threaded() {
            return self.progress.wait_for(done);
        }
        loop {
            if let Some(result) = done(&self.progress.get()) {
                return result;
            }
            if !self.env.tasks.step() {
                return Err(Error::Bug("a wait for background work that no job does".into()));
            }
        }
    }

    /// See [`Db::expires_at_ms`](crate::Db::expires_at_ms).
    pub(crate) fn expires_at_ms(&self, ttl: Duration) -> u64 {
        let ttl_ms = u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        self.env.clock.wall_ms().saturating_add(ttl_ms)
    }
}
