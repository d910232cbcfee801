//! Prewrites, and where the commit timestamp of an async commit or a one-phase commit comes from.
//!
//! The order is what makes it right ([`crate::ConcurrencyManager`]):
//! 1. the greatest read timestamp covers reads at other nodes: once in each leadership of the region, a timestamp of
//!    the oracle is fetched, after a view has shown that no other node can serve reads any more;
//! 2. the latches are held;
//! 3. the locks enter the memory, and the lower bound of the commit timestamp is computed, in one step;
//! 4. the view, the action, the replication; only then the locks leave the memory.

use super::{Held, Outcome, Scheduler};
use crate::action;
use crate::memory_locks::MemoryLockGuard;
use crate::planted::{self, Bug};
use crate::{Failure, KeyError, Lock, LockKind, MutationOp, Prewrite, Prewritten, Replicated, TimeStamp};
use bytes::Bytes;

impl<R: Replicated> Scheduler<R> {
    /// First phase, or all of it in one. Locks all keys or none; several [`crate::KeyError::Locked`] may be returned
    /// together.
    pub async fn prewrite(&self, context: &R::Context, command: Prewrite) -> Outcome<Prewritten, R> {
        let keys: Vec<Bytes> = command.mutations.iter().map(|mutation| mutation.key.clone()).collect();
        if !command.computes_commit_ts() {
            let held = Held { latches: self.latches.acquire(keys).await, memory: None };
            let start_ts = command.start_ts;
            return self.run_latched(context, start_ts, held, |view| action::prewrite(&command, None, view)).await;
        }
        self.sync_max_ts(context).await?;
        let latches = self.latches.acquire(keys).await;
        let (computed, memory) = self.enter_memory(&command).unzip();
        let (held, start_ts) = (Held { latches, memory }, command.start_ts);
        self.run_latched(context, start_ts, held, |view| action::prewrite(&command, computed, view)).await
    }

    /// Makes the greatest read timestamp cover what other nodes have served of the region.
    async fn sync_max_ts(&self, context: &R::Context) -> Outcome<(), R> {
        // It binds the context to this leadership.
        drop(self.replicated.view(context).await.map_err(Failure::Replicated)?);
        let leadership = self.replicated.leadership(context);
        if leadership.is_some_and(|leadership| self.concurrency().is_synced(leadership))
            || planted::is_set(Bug::LeadWithoutTimestamp)
        {
            return Ok(());
        }
        let ts = self.replicated.timestamp().await.map_err(Failure::NoTimestamp)?;
        match leadership {
            Some(leadership) => self.concurrency().synced(leadership, ts),
            None => self.concurrency().observe(ts),
        }
        Ok(())
    }

    /// Notes the timestamp of a read. Refuses one that is not of the oracle.
    pub(super) async fn observe(&self, ts: TimeStamp) -> Outcome<(), R> {
        let concurrency = self.concurrency();
        if concurrency.is_suspicious(ts) {
            // Without an answer it is accepted; the reads that follow are not to wait for one again.
            let newest = self.replicated.timestamp().await.unwrap_or(ts);
            concurrency.learn(newest);
            if concurrency.is_suspicious(ts) {
                let text = format!("the timestamp {ts} is in the future: the placement driver is at {newest}");
                return Err(KeyError::Abort(text).into());
            }
        }
        concurrency.observe(ts);
        Ok(())
    }

    /// Computes a lower bound of the commit timestamp, and shows the locks to reads. `None` if it would exceed the
    /// client's limit.
    fn enter_memory(&self, command: &Prewrite) -> Option<(TimeStamp, MemoryLockGuard)> {
        let hides = |op: &MutationOp| matches!(op, MutationOp::Put(_) | MutationOp::Insert(_) | MutationOp::Delete);
        let changed = command.mutations.iter().filter(|mutation| hides(&mutation.op));
        let mut keys: Vec<Bytes> = changed.map(|mutation| mutation.key.clone()).collect();
        keys.sort();
        keys.dedup(); // Two of one key are refused later.
        let concurrency = self.concurrency();
        let make = || {
            let lowest = concurrency.max_ts().max(command.start_ts).max(command.for_update_ts).next();
            let min_commit_ts = lowest.max(command.min_commit_ts);
            let too_late = !command.max_commit_ts.is_zero() && min_commit_ts > command.max_commit_ts;
            (!too_late).then(|| Lock {
                kind: LockKind::Put,
                start_ts: command.start_ts,
                primary: command.primary.clone(),
                ttl_ms: command.ttl_ms,
                short_value: None,
                for_update_ts: command.for_update_ts,
                min_commit_ts,
                txn_size: command.txn_size,
                // A commit in one phase blocks readers of the newest version, too: it is decided already.
                use_async_commit: true,
                secondaries: Vec::new(),
            })
        };
        concurrency.memory_locks().enter(&keys, make)
    }
}
