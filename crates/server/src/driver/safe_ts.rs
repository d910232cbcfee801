//! Safe timestamps: the rounds of raftstore get a timestamp of placement, and the search for locks.

use super::Driver;
use super::calls::Origin;
use crate::planted::{self, Bug};
use kontiki_placement::{Command, LOGICAL_BITS, Now, Outcome, Request, Response, Timestamps};
use kontiki_raftstore::{Event, SafeTsTask};
use kontiki_txn::TimeStamp;
use std::time::Duration;

/// How long a round waits for its timestamp.
const TIMESTAMP_TIMEOUT: Duration = Duration::from_secs(1);

impl Driver {
    /// raftstore wants to begin a round.
    pub(super) fn ask_timestamp(&mut self, now: Now) {
        if !std::mem::replace(&mut self.asks_timestamp, true) {
            let request = Request::from(Command::Timestamps(Timestamps { count: 1 }));
            self.start_call(Origin::SafeTs, request, now.monotonic + TIMESTAMP_TIMEOUT, now);
        }
    }

    /// Placement has answered, or did not in time: then the next round asks again.
    pub(super) fn begin_safe_ts(&mut self, response: Option<Response>, now: Now) {
        self.asks_timestamp = false;
        if let Some(Outcome::Timestamps(granted)) = response.and_then(|response| response.outcome) {
            // Read after the timestamp was handed out: leases have to hold then.
            let now = self.clock_now(now);
            self.store.handle(Event::Timestamp { ts: granted.last() }, now.monotonic);
        }
    }

    /// Everything that was acknowledged before the timestamps of these tasks were handed out is visible now.
    pub(super) fn find_oldest_locks(&mut self, mut tasks: Vec<SafeTsTask>) {
        // In this order, as a read does it: no transaction chooses a commit timestamp at or below the round's any more;
        // one that has chosen one before is on its way, or its lock is in the view.
        let Some(newest) = tasks.iter().map(|task| task.ts).max() else { return };
        let lowest = self.shared.concurrency.begin_round(TimeStamp(newest));
        if let Some(lowest) = lowest.filter(|_| !planted::is_set(Bug::SafeTsPastLocks)) {
            for task in &mut tasks {
                task.ts = task.ts.min(lowest.0.saturating_sub(1));
            }
        }
        self.oldest_locks.begin(tasks, self.state.snapshot());
    }

    pub(super) fn tend_safe_ts(&self, now: Now) {
        let lag = self.store.lowest_safe_ts().map(|ts| now.wall_ms.saturating_sub(ts >> LOGICAL_BITS));
        self.shared.counters.safe_ts_lag_ms.set(lag.unwrap_or(0));
    }
}
