//! The files that may hold appended bytes which are not durable yet, and how they are synced.
//!
//! A *log position* counts the bytes of records from the start of this run on, across segments: the end of one segment
//! and the place behind the header of the next have the same position. `[0, durable)` in these terms is all that the
//! write path needs to know of durability.

use crate::lock::{Mutex, Rank};
use crate::measure::Recorder;
use crate::vlog::Appender;
use crate::{Error, Result};
use kontiki_env::fs::File;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

/// Syncs that may be in flight at once. One leaves the disk idle while its answer travels: bare syncs of one
/// pre-written file reached 8,600, 12,900 and 22,400 per second with one, two and four at once on one machine. Not
/// tuned beyond that.
pub(crate) const SYNCS_MAX: usize = 4;

struct TailFile {
    number: u64,
    path: PathBuf,
    /// Where it ends, once it is sealed.
    end: Option<u64>,
    handles: [Arc<dyn File>; SYNCS_MAX],
}

impl Default for Tail {
    fn default() -> Tail {
        Tail { files: Mutex::new(Rank::LogTail, VecDeque::new()), values: Mutex::new(Rank::LogTailValues, None) }
    }
}

/// See the head of this file. Shared by the writer and by the threads that sync.
pub(crate) struct Tail {
    files: Mutex<VecDeque<TailFile>>,
    /// Data that records refer to must be durable before they are reported durable. One sync of it at a time: its files
    /// have one handle, and the failure of one sync must be known to the next.
    values: Mutex<Option<(Arc<Appender>, Arc<Recorder>)>>,
}

impl Tail {
    /// Nothing to sync yet; syncs of the log sync these values first.
    pub(crate) fn new(values: Arc<Appender>, recorder: Arc<Recorder>) -> Tail {
        Tail { values: Mutex::new(Rank::LogTailValues, Some((values, recorder))), ..Tail::default() }
    }

    pub(super) fn add(&self, number: u64, path: PathBuf, handles: [Arc<dyn File>; SYNCS_MAX]) {
        let mut files = self.files.lock();
        assert!(files.back().is_none_or(|last| last.number < number && last.end.is_some()), "one segment is open");
        files.push_back(TailFile { number, path, end: None, handles });
    }

    /// The newest segment was sealed and ends at this position, the seal included.
    pub(super) fn seal(&self, number: u64, end: u64) {
        let mut files = self.files.lock();
        let last = files.back_mut().expect("the open segment");
        assert_eq!(last.number, number, "the newest segment is sealed");
        last.end = Some(end);
    }

    /// Makes everything that was appended before this call durable, given that `[0, durable)` is already. `slot` is one
    /// that no other sync in flight uses.
    pub(crate) fn sync(&self, slot: usize, durable: u64) -> Result<()> {
        let files: Vec<(PathBuf, Arc<dyn File>)> = {
            let mut files = self.files.lock();
            while files.front().is_some_and(|first| first.end.is_some_and(|end| end <= durable)) {
                files.pop_front();
            }
            files.iter().map(|file| (file.path.clone(), file.handles[slot].clone())).collect()
        };
        if let Some((values, recorder)) = &*self.values.lock() {
            let started = recorder.now();
            if values.sync()? {
                recorder.end(&recorder.value_sync, Some(started));
            }
        }
        for (path, file) in files {
            file.sync().map_err(|error| Error::Io { file: path, kind: error.kind(), message: error.to_string() })?;
        }
        Ok(())
    }
}
