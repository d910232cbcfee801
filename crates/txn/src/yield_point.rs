//! How long reads share a thread, and how their answers are bounded.

use crate::KeyError;
use std::future::Future;
use std::mem::size_of;

/// Keys that a read visits between two yields: with each of them in a different block, some milliseconds of a slow
/// disk.
const SLICE_KEYS: usize = 64;
/// Bytes that it collects between two yields.
const SLICE_BYTES: usize = 256 << 10;

/// Notified of the progress of a read: its executor can run other tasks in between, and limit the size of the answer.
pub trait YieldPoint: Send {
    /// Resolves when the read may continue. `answer_bytes` is the size of its answer in memory so far; an error ends
    /// the read.
    fn yield_now(&mut self, answer_bytes: usize) -> impl Future<Output = Result<(), KeyError>> + Send;
}

/// Without a yield or a bound: for reads that are known to be short.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoYield;

impl YieldPoint for NoYield {
    async fn yield_now(&mut self, _: usize) -> Result<(), KeyError> {
        Ok(())
    }
}

/// Counts the work of a read and yields at the end of each slice.
#[derive(Debug)]
pub struct ReadProgress<'a, P> {
    yields: &'a mut P,
    keys: usize,
    slice_bytes: usize,
    answer_bytes: usize,
}

impl<'a, P: YieldPoint> ReadProgress<'a, P> {
    /// A read that begins.
    pub fn new(yields: &'a mut P) -> ReadProgress<'a, P> {
        ReadProgress { yields, keys: 0, slice_bytes: 0, answer_bytes: 0 }
    }

    /// A key that was visited and is not part of the answer.
    pub async fn passed(&mut self) -> Result<(), KeyError> {
        self.count(0).await
    }

    /// An item of type `T` was added to the answer, with `bytes` of keys and values.
    pub async fn added<T>(&mut self, bytes: usize) -> Result<(), KeyError> {
        self.count(bytes + size_of::<T>()).await
    }

    async fn count(&mut self, bytes: usize) -> Result<(), KeyError> {
        self.keys += 1;
        self.slice_bytes += bytes;
        self.answer_bytes += bytes;
        if self.keys < SLICE_KEYS && self.slice_bytes < SLICE_BYTES {
            return Ok(());
        }
        (self.keys, self.slice_bytes) = (0, 0);
        self.yields.yield_now(self.answer_bytes).await
    }
}

#[cfg(test)]
#[path = "yield_point_test.rs"]
mod tests;
