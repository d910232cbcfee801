//! What was received of snapshots whose connection broke, kept for a while so that the sender can resume.
//!
//! A transfer is received by at most one call. A sender whose connection broke may come back before this end has
//! noticed: asking for the progress of a transfer ends the call that receives it. What is kept holds its slot, so that
//! slots bound it, and is dropped (which removes the file) after [`RESUME_TIME_MAX`].

use kontiki_raftstore::StoreId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};

/// For how long a sender tries to resume, and a receiver keeps what it has: longer than a connection is interrupted by
/// a network that heals itself, short enough that a slot is not held long for a sender that ended.
pub(super) const RESUME_TIME_MAX: Duration = Duration::from_secs(30);

/// A transfer, by its sender and that one's number for it.
pub(super) type Key = (StoreId, u64);

/// A snapshot of which some bytes are here.
pub(super) struct Received<F> {
    pub file: F,
    pub bytes: u64,
    /// By the monotonic clock.
    pub began: Duration,
    pub slot: OwnedSemaphorePermit,
}

enum Partial<F> {
    /// A call receives it, and ends early when this notifies it.
    Active(Arc<Notify>),
    /// The call that received it has ended; the number is that of this end.
    Kept(u64, Received<F>),
}

/// The transfers of one node that can be resumed.
pub(super) struct Partials<F> {
    state: Mutex<State<F>>,
    changed: watch::Sender<()>,
}

struct State<F> {
    partials: BTreeMap<Key, Partial<F>>,
    kept_count: u64,
}

/// A call receives a transfer; when it is dropped, none does.
pub(super) struct Active<F> {
    partials: Arc<Partials<F>>,
    key: Key,
    end: Arc<Notify>,
}

impl<F: Send + 'static> Partials<F> {
    /// None yet.
    pub fn new() -> Arc<Partials<F>> {
        let state = Mutex::new(State { partials: BTreeMap::new(), kept_count: 0 });
        Arc::new(Partials { state, changed: watch::Sender::new(()) })
    }

    /// A call receives a transfer from its beginning.
    pub fn begin(self: &Arc<Self>, key: Key) -> Active<F> {
        let end = Arc::new(Notify::new());
        let before = self.state.lock().partials.insert(key, Partial::Active(end.clone()));
        // Files are removed without the lock.
        drop(before);
        Active { partials: self.clone(), key, end }
    }

    /// A call goes on with what is kept of a transfer.
    pub fn resume(self: &Arc<Self>, key: Key) -> Option<(Active<F>, Received<F>)> {
        let mut state = self.state.lock();
        match state.partials.remove(&key)? {
            Partial::Kept(_, received) => {
                let end = Arc::new(Notify::new());
                state.partials.insert(key, Partial::Active(end.clone()));
                Some((Active { partials: self.clone(), key, end }, received))
            }
            active => {
                state.partials.insert(key, active);
                None
            }
        }
    }

    /// How much is here of a transfer, after the call that receives it, if one does, has ended.
    pub async fn progress(&self, key: Key) -> Option<u64> {
        let mut changed = self.changed.subscribe();
        loop {
            match self.state.lock().partials.get(&key)? {
                Partial::Kept(_, received) => return Some(received.bytes),
                Partial::Active(end) => end.notify_one(),
            }
            changed.changed().await.ok()?;
        }
    }

    fn forget(&self, key: Key, kept: u64) {
        let mut state = self.state.lock();
        if matches!(state.partials.get(&key), Some(Partial::Kept(number, _)) if *number == kept) {
            let forgotten = state.partials.remove(&key);
            drop(state);
            drop(forgotten);
            tracing::info!(store = key.0.0, "a snapshot was not resumed in time; what was received of it is removed");
        }
    }
}

impl<F: Send + 'static> Active<F> {
    /// Done when the call is to end, because the sender asks over another connection.
    pub async fn ended(&self) {
        self.end.notified().await;
    }

    /// The connection broke: keeps what is here, for a while.
    pub fn keep(self, received: Received<F>) {
        let number = {
            let mut state = self.partials.state.lock();
            state.kept_count += 1;
            let number = state.kept_count;
            state.partials.insert(self.key, Partial::Kept(number, received));
            number
        };
        let (partials, key) = (Arc::downgrade(&self.partials), self.key);
        tokio::spawn(async move {
            tokio::time::sleep(RESUME_TIME_MAX).await;
            if let Some(partials) = partials.upgrade() {
                partials.forget(key, number);
            }
        });
    }
}

impl<F> Drop for Active<F> {
    fn drop(&mut self) {
        let mut state = self.partials.state.lock();
        let is_own = |partial: &Partial<F>| matches!(partial, Partial::Active(end) if Arc::ptr_eq(end, &self.end));
        if state.partials.get(&self.key).is_some_and(is_own) {
            state.partials.remove(&self.key);
        }
        drop(state);
        self.partials.changed.send_replace(());
    }
}
