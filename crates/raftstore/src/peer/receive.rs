//! The receiving side of a snapshot: accept, restore the log, install the data, remove the file.
//!
//! | stage | on disk | a crash now leads to |
//! |---|---|---|
//! | accepted | the file | nothing: recovery does not know it, the file is removed, the leader sends again |
//! | restoring | the persist that truncates the stream is on its way | either of its neighbours |
//! | ready, installing | the stream is truncated through the snapshot, whose name is in the state blob | installed again from the file: applied < truncated |
//! | installed | the data is visible, in memory | installed again from the file |
//! | flushed | the data is in tables | the file is not needed: removed |
//!
//! So the file plays the log's part for the data it holds, and a half-installed state is never trusted.

use super::Peer;
use crate::consensus::log::Position;
use crate::consensus::step::Stepped;
use crate::consensus::wire::RaftMessage;
use crate::effect::SnapshotTask;
use crate::error::Fault;
use crate::outbox::Outbox;
use crate::region;
use crate::snapshot::{SnapshotFile, SnapshotId};
use kontiki_engine::{StreamId, StreamOp};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Accepted,
    Restoring,
    Ready,
    Installing,
    Installed,
}

/// A snapshot whose file is still needed.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub file: SnapshotFile,
    stage: Stage,
    /// Files of earlier snapshots that this one makes superfluous once it is restored.
    superseded: Vec<SnapshotId>,
}

impl Incoming {
    /// As found at recovery: the stream is truncated, the data is not (wholly) there.
    pub fn recovered(file: SnapshotFile) -> Incoming {
        Incoming { file, stage: Stage::Ready, superseded: Vec::new() }
    }

    pub fn is_installed(&self) -> bool {
        self.stage == Stage::Installed
    }
}

impl Peer {
    /// A snapshot message whose file is here.
    pub fn snapshot_received(&mut self, from: region::Peer, raft: RaftMessage, file: SnapshotFile, out: &mut Outbox) {
        let busy = self.incoming.as_ref().is_some_and(|incoming| !incoming.is_installed());
        if busy || file.region.peer(self.me.id) != Some(self.me) {
            // The leader sends again when it finds this replica still behind.
            return self.discard(file.id, out);
        }
        let index = file.id.index;
        let stepped = self.group.step(from.id, raft, &file.region, Duration::ZERO);
        if !matches!(stepped, Stepped::Taken(_)) || self.group.pending_snapshot() != Some(index) {
            // Stale, or the log already matches it: raft has answered what there is to say.
            return self.discard(file.id, out);
        }
        let mut superseded = Vec::new();
        if let Some(before) = self.incoming.take() {
            superseded = before.superseded;
            superseded.push(before.file.id);
        }
        self.incoming = Some(Incoming { file, stage: Stage::Accepted, superseded });
    }

    fn discard(&self, snapshot: SnapshotId, out: &mut Outbox) {
        if !self.needs_snapshot(&snapshot) {
            out.snapshots.push(SnapshotTask::Remove { snapshot });
        }
    }

    pub fn needs_snapshot(&self, snapshot: &SnapshotId) -> bool {
        let incoming = self.incoming.as_ref();
        incoming.is_some_and(|incoming| incoming.file.id == *snapshot || incoming.superseded.contains(snapshot))
            || self.serving.needs(snapshot)
    }

    /// The core restored its log to `position`.
    pub(super) fn restore(&mut self, position: Position, dropped_above: bool, out: &mut Outbox) {
        let incoming = self.incoming.as_mut().expect("the core restores only what was accepted");
        let id = incoming.file.id;
        assert_eq!((incoming.stage, id.index, id.term), (Stage::Accepted, position.index, position.term));
        assert!(self.deferred.is_empty(), "entries are deferred only while a snapshot is being installed");
        incoming.stage = Stage::Restoring;
        assert!(position.index > self.handed, "a snapshot moves the state forward");
        self.handed = position.index;
        self.drop_all_proposals(out);
        self.truncations.clear();
        let stream = StreamId(self.region.id.0);
        if dropped_above {
            // What lies above belongs to another history: an append of nothing drops it.
            out.streams.push(StreamOp::Append { stream, first_index: position.index + 1, entries: Vec::new() });
        }
        out.streams.push(StreamOp::Truncate { stream, through_index: position.index });
        self.state_dirty = true;
    }

    /// After a persist: the restored log may be durable now.
    pub(super) fn restored(&mut self, out: &mut Outbox) {
        let restoring = self.group.is_restoring();
        if let Some(incoming) = self.incoming.as_mut().filter(|i| i.stage == Stage::Restoring && !restoring) {
            incoming.stage = Stage::Ready;
            assert!(self.group.truncated().index >= incoming.file.id.index, "the log begins after the snapshot");
            for snapshot in std::mem::take(&mut incoming.superseded) {
                out.snapshots.push(SnapshotTask::Remove { snapshot });
            }
        }
    }

    /// Starts the install when nothing else is writing the region's range.
    pub(super) fn start_install(&mut self, out: &mut Outbox) {
        let idle = self.applies_in_flight == 0;
        if let Some(incoming) = self.incoming.as_mut().filter(|i| i.stage == Stage::Ready && idle) {
            incoming.stage = Stage::Installing;
            let snapshot = incoming.file.id;
            out.snapshots.push(SnapshotTask::Install { region: snapshot.region, snapshot });
        }
    }

    /// The install ended.
    pub fn installed(&mut self, snapshot: SnapshotId, result: Result<(), String>, out: &mut Outbox) {
        let ours = |i: &&mut Incoming| i.stage == Stage::Installing && i.file.id == snapshot;
        let Some(incoming) = self.incoming.as_mut().filter(ours) else { return };
        if let Err(error) = result {
            let what = format!("the snapshot {} could not be installed: {error}", snapshot.file_name());
            out.fault = Some(Fault { region: self.region.id, what });
            return;
        }
        assert!(self.applied.index < snapshot.index, "a snapshot moves the state forward");
        assert_eq!(self.applies_in_flight, 0, "nothing else wrote meanwhile");
        incoming.stage = Stage::Installed;
        self.region = Arc::new(incoming.file.region.clone());
        self.applied = Position { index: snapshot.index, term: snapshot.term };
        self.group.applied(snapshot.index);
        // Tables may have taken it in before this event came.
        self.flushed_through(self.flushed, out);
    }

    /// Entries that were committed while the install ran.
    pub(super) fn hand_out_deferred(&mut self, out: &mut Outbox) {
        if !self.deferred.is_empty() && self.incoming.as_ref().is_none_or(Incoming::is_installed) {
            let entries = std::mem::take(&mut self.deferred).into();
            self.hand_out(entries, out);
        }
    }

    /// Tables hold the state through `index`.
    pub fn flushed_through(&mut self, index: u64, out: &mut Outbox) {
        self.flushed = self.flushed.max(index);
        if self.incoming.as_ref().is_some_and(|i| i.is_installed() && i.file.id.index <= index) {
            let incoming = self.incoming.take().expect("just seen");
            assert!(incoming.superseded.is_empty(), "superseded files went when this one was restored");
            out.snapshots.push(SnapshotTask::Remove { snapshot: incoming.file.id });
        }
    }
}
