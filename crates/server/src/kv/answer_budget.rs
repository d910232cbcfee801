//! How long reads share the threads that requests run on, and how large an answer may be.
//!
//! A scan yields every few keys to the end of the executor's queue, so short requests that arrived meanwhile are served
//! first. An answer above [`ANSWER_BYTES_MAX`] is refused: every client would take a shorter one as the end of the
//! range and miss data. The client has to continue with a smaller limit, as the error says; our own client does so by
//! itself. Of the answers that are large but allowed, a few are built at a time; the others wait.

use crate::config::ENTRY_BYTES_LIMIT;
use kontiki_proto::ANSWER_TOO_LARGE;
use kontiki_txn::{KeyError, YieldPoint};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Largest answer in memory: the largest value that a node may be configured for, and its framing. Many clients refuse
/// much smaller ones (4 MiB by default), others ask for ten thousand keys at a time.
pub const ANSWER_BYTES_MAX: usize = ENTRY_BYTES_LIMIT as usize + (1 << 20);
/// An answer above this is large.
const LARGE_BYTES: usize = 1 << 20;
/// Maximum number of large answers that are built at a time: with the bound above, half a GiB of memory.
const LARGE_ANSWERS_MAX: usize = 8;

/// The permits for large answers, shared by a node's requests.
#[derive(Clone)]
pub(super) struct LargeAnswers(Arc<Semaphore>);

impl Default for LargeAnswers {
    fn default() -> LargeAnswers {
        LargeAnswers(Arc::new(Semaphore::new(LARGE_ANSWERS_MAX)))
    }
}

impl LargeAnswers {
    /// For one read.
    pub(super) fn budget(&self) -> AnswerBudget {
        AnswerBudget { large: self.0.clone(), held: None }
    }
}

/// One read's progress. Keep it until the answer is built.
pub(super) struct AnswerBudget {
    large: Arc<Semaphore>,
    held: Option<OwnedSemaphorePermit>,
}

impl YieldPoint for AnswerBudget {
    async fn yield_now(&mut self, answer_bytes: usize) -> Result<(), KeyError> {
        if answer_bytes > ANSWER_BYTES_MAX {
            let text = format!(
                "{ANSWER_TOO_LARGE} {ANSWER_BYTES_MAX} bytes; ask for fewer keys at a time, and continue after the last one"
            );
            return Err(KeyError::Abort(text));
        }
        if answer_bytes > LARGE_BYTES && self.held.is_none() {
            // Never closed: it lives as long as the node's services.
            self.held = self.large.clone().acquire_owned().await.ok();
        }
        yield_to_others().await;
        Ok(())
    }
}

/// Goes to the end of the queue of the executor that runs this.
async fn yield_to_others() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
#[path = "answer_budget_test.rs"]
mod tests;
