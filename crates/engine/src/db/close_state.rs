//! How a database ends: what a close releases, and the callers that wait for it.

use crate::lock::{Condvar, Mutex, Rank};
use kontiki_env::fs::FileLock;

/// How a database ends.
pub(super) struct CloseState {
    /// The directory's lock, until the database is closed. `None` also if it is open for reading only.
    pub(super) directory_lock: Mutex<Option<Box<dyn FileLock>>>,
    /// Where a thread waits that closes a database which another thread is closing.
    pub(super) closing: Closing,
}

impl CloseState {
    pub(super) fn new(directory_lock: Option<Box<dyn FileLock>>) -> CloseState {
        CloseState {
            directory_lock: Mutex::new(Rank::DirectoryLock, directory_lock),
            closing: Closing { ended: Mutex::new(Rank::Closing, false), changed: Condvar::new() },
        }
    }

    /// Waits until a close that another thread has begun has ended.
    pub(super) fn wait_until_closed(&self) {
        self.closing.wait();
    }
}

/// Notifies the waiters when a close has ended.
pub(super) struct Closing {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Closing {
    /// Waits for the end.
    fn wait(&self) {
        let mut ended = self.ended.lock();
        while !*ended {
            self.changed.wait(&mut ended);
        }
    }

    /// The waiters are notified when what this returns is dropped, on every path.
    pub(super) fn end_when_dropped(&self) -> impl Drop + '_ {
        struct End<'a>(&'a Closing);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                *self.0.ended.lock() = true;
                self.0.changed.notify_all();
            }
        }
        End(self)
    }
}
