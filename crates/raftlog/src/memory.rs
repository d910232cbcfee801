//! Raft logs in memory, for tests of what is above. **Nothing survives**: after any restart the logs are gone.

use crate::ops::{Bounds, check};
use crate::{Done, LogChoice, LogUsage, RaftLog};
use bytes::Bytes;
use kontiki_engine::{Commit, Durability, Result, StreamContents, StreamId, StreamOp};
use kontiki_state::StateEngine;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// See the module.
pub struct MemoryLog {
    state: Arc<dyn StateEngine>,
    logs: Mutex<BTreeMap<StreamId, StreamContents>>,
}

impl MemoryLog {
    /// Empty logs; batches go to the engine.
    pub fn new(state: Arc<dyn StateEngine>) -> MemoryLog {
        MemoryLog { state, logs: Mutex::default() }
    }
}

fn bounds(contents: &StreamContents) -> Bounds {
    let truncated_through = contents.truncated_through;
    Bounds { truncated_through, last_index: truncated_through + contents.entries.len() as u64 }
}

fn apply(logs: &mut BTreeMap<StreamId, StreamContents>, op: StreamOp) {
    let contents = logs.entry(op.stream()).or_default();
    match op {
        StreamOp::Append { first_index, entries, .. } => {
            contents.entries.truncate((first_index - contents.truncated_through - 1) as usize);
            contents.entries.extend(entries);
        }
        StreamOp::State { state, .. } => contents.state = state,
        StreamOp::Truncate { through_index, .. } if through_index > contents.truncated_through => {
            let gone = (through_index - contents.truncated_through).min(contents.entries.len() as u64);
            contents.entries.drain(..gone as usize);
            contents.truncated_through = through_index;
        }
        StreamOp::Truncate { .. } => {}
        StreamOp::Remove { stream } => {
            logs.remove(&stream);
        }
    }
}

impl RaftLog for MemoryLog {
    fn choice(&self) -> LogChoice {
        LogChoice::Memory
    }

    fn ids(&self) -> Vec<StreamId> {
        self.logs.lock().keys().copied().collect()
    }

    fn read(&self, id: StreamId) -> Result<StreamContents> {
        Ok(self.logs.lock().get(&id).cloned().unwrap_or_default())
    }

    fn entries(&self, id: StreamId, range: Range<u64>) -> Result<Vec<Bytes>> {
        let logs = self.logs.lock();
        let Some(contents) = logs.get(&id).filter(|contents| range.start > contents.truncated_through) else {
            return Ok(Vec::new());
        };
        let skipped = range.start - contents.truncated_through - 1;
        let count = range.end.saturating_sub(range.start);
        let entries = contents.entries.iter().skip(usize::try_from(skipped).unwrap_or(usize::MAX));
        Ok(entries.take(usize::try_from(count).unwrap_or(usize::MAX)).cloned().collect())
    }

    fn submit(&self, commit: Commit, done: Done) {
        done(self.commit(commit));
    }

    fn commit(&self, commit: Commit) -> Result<()> {
        let bounds_of = |logs: &BTreeMap<_, _>, id| logs.get(&id).map(bounds).unwrap_or_default();
        {
            let logs = self.logs.lock();
            check(&commit.streams, |id| bounds_of(&logs, id))?;
        }
        if !commit.batch.is_empty() {
            self.state.commit(commit.batch.clone(), Durability::Sync)?;
        }
        let mut logs = self.logs.lock();
        commit.streams.into_iter().for_each(|op| apply(&mut logs, op));
        Ok(())
    }

    fn usage(&self) -> LogUsage {
        LogUsage::default()
    }

    fn stop(&self) {}

    fn close(&self) {}
}
