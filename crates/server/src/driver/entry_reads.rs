//! Entries of raft logs that are not in memory, read back in the background for followers that lag.
//!
//! One at a time, in the order of the requests. raftstore bounds their number and bytes, and counts them for its budget
//! until they come back.

use super::inbox::{Inbox, Input};
use kontiki_engine::StreamId;
use kontiki_env::Env;
use kontiki_env::tasks::{Progress, TaskHandle};
use kontiki_raftlog::RaftLog;
use kontiki_raftstore::EntriesTask;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// The driver's side of the job.
pub(super) struct EntryReads {
    waiting: Arc<Mutex<VecDeque<EntriesTask>>>,
    task: Option<Box<dyn TaskHandle>>,
}

impl EntryReads {
    pub(super) fn start(env: &Env, log: &Arc<dyn RaftLog>, inbox: &Arc<Inbox>) -> EntryReads {
        let waiting: Arc<Mutex<VecDeque<EntriesTask>>> = Arc::default();
        let (queue, inbox, log) = (waiting.clone(), inbox.clone(), log.clone());
        let step = move || {
            let Some(EntriesTask { id, region, indices, .. }) = queue.lock().pop_front() else {
                return Progress::Idle;
            };
            let result = log.entries(StreamId(region.0), indices);
            inbox.push(Input::EntriesRead { region, id, result });
            Progress::Worked
        };
        EntryReads { waiting, task: Some(env.tasks.spawn("raft-entries", Box::new(step))) }
    }

    pub(super) fn begin(&self, tasks: Vec<EntriesTask>) {
        self.waiting.lock().extend(tasks);
        if let Some(task) = &self.task {
            task.wake();
        }
    }

    /// Stops the job: it is not running when this returns.
    pub(super) fn stop(&mut self) {
        self.task = None;
        self.waiting.lock().clear();
    }
}
