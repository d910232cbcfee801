//! Raft logs as streams of the engine's own log: one record and one sync for all regions, and for everything else that
//! is written at the time. The engine does all of it (docs/internals/log.md).

use crate::{Done, LogChoice, LogUsage, RaftLog};
use bytes::Bytes;
use kontiki_engine::{Commit, Db, Result, StreamContents, StreamHead, StreamId, StreamVisitor};
use std::ops::Range;

/// See the module.
pub struct SharedLog {
    db: Db,
}

impl SharedLog {
    /// The streams of an engine.
    pub fn new(db: Db) -> SharedLog {
        SharedLog { db }
    }
}

impl RaftLog for SharedLog {
    fn choice(&self) -> LogChoice {
        LogChoice::Shared
    }

    fn ids(&self) -> Vec<StreamId> {
        self.db.streams()
    }

    fn read(&self, id: StreamId) -> Result<StreamContents> {
        self.db.stream(id)
    }

    fn entries(&self, id: StreamId, range: Range<u64>) -> Result<Vec<Bytes>> {
        self.db.stream_entries(id, range)
    }

    fn heads(&self) -> Result<Vec<(StreamId, StreamHead)>> {
        Ok(self.db.stream_heads())
    }

    fn scan(&self, visit: &mut StreamVisitor<'_>) -> Result<()> {
        self.db.scan_streams(visit)
    }

    fn submit(&self, commit: Commit, done: Done) {
        self.db.submit(commit, Box::new(move |result| done(result.map(drop))));
    }

    fn commit(&self, commit: Commit) -> Result<()> {
        self.db.commit(commit).map(drop)
    }

    fn usage(&self) -> LogUsage {
        LogUsage::default()
    }

    /// The engine writes until it is closed itself.
    fn stop(&self) {}

    fn close(&self) {}
}
