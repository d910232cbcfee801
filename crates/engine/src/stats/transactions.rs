//! Transactions.

use super::metric::Subsystem;
use super::metric::Unit::{None as No, Seconds};
use super::{Stats, seconds};

impl Stats {
    pub(super) fn describe_transactions(&self, subsystem: &mut Subsystem<'_>) {
        let transactions = &self.transactions;
        subsystem.counter("started", No, "Transactions begun", transactions.started);
        subsystem.counter("committed", No, "Transactions committed", transactions.committed);
        subsystem.counter("rolled_back", No, "Transactions that ended without effect", transactions.rolled_back);
        subsystem.counter(
            "conflicts",
            No,
            "Commits and locks refused because of a newer write",
            transactions.conflicts,
        );
        subsystem.counter("retries", No, "Times that transact tried again", transactions.retries);
        subsystem.gauge("open", No, "Open transactions", transactions.active);
        let oldest = transactions.oldest_start.unwrap_or(self.visible_sequence);
        subsystem.gauge("oldest_start", No, "The read watermark: what is newer must be kept", oldest);
        subsystem.gauge("oldest_age", Seconds, "Age of the oldest", transactions.oldest_age_ms as f64 / 1e3);
        subsystem.gauge("locks", No, "Locks held", transactions.locks);
        subsystem.gauge("waiting", No, "Transactions that wait for a lock", transactions.waiting);
        subsystem.counter("lock_waits", No, "Waits for locks", transactions.lock_waits);
        subsystem.counter("lock_waited", Seconds, "Time spent in them", seconds(transactions.lock_wait_us));
        subsystem.counter("lock_timeouts", No, "Waits that reached their limit", transactions.lock_timeouts);
        subsystem.counter("deadlocks", No, "Locks refused because waiting would close a cycle", transactions.deadlocks);
    }
}
