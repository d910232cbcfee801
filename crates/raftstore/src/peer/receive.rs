//! The receiving side of a snapshot: accept, restore the log, install the data, remove the file.
//!
//! | stage | on disk | a crash now leads to |
//! |---|---|---|
//! | accepted | the file | nothing: recovery ignores and removes the file, the leader sends again |
//! | restoring | the persist that truncates the stream is in flight | the row before or the row after |
//! | ready, installing | the stream is truncated through the snapshot, whose name is in the state blob | installed again from the file: applied < truncated |
//! | installed | the data is visible, in memory | installed again from the file |
//! | flushed | the data is in tables | the file is not needed: removed |
//! | lost | the file is missing or damaged | found again at the next install; another snapshot is asked for |
//!
//! The file replaces the log for the data that it holds, and a half-installed state is never used. Names of files are
//! used once ([`crate::snapshot::FileId`]), so a removal cannot affect a file that arrives later.
//!
//! A replica that waits for an install, or has lost the file, follows and votes (its log is complete) but never stands
//! for election: as leader it could neither apply nor serve.

use super::Peer;
use crate::consensus::log::Position;
use crate::consensus::step::Stepped;
use crate::consensus::wire::RaftMessage;
use crate::effect::SnapshotTask;
use crate::error::{Fault, FaultKind};
use crate::outbox::Outbox;
use crate::region;
use crate::snapshot::{FileId, InstallError, SnapshotFile};
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
    Lost,
}

/// A snapshot whose file is still needed.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub file: Box<SnapshotFile>,
    stage: Stage,
    /// Files of earlier snapshots that are not needed once this one is restored.
    superseded: Vec<FileId>,
}

impl Incoming {
    /// As found at recovery: the stream is truncated, the data is missing or incomplete.
    pub fn recovered(file: SnapshotFile) -> Incoming {
        Incoming { file: Box::new(file), stage: Stage::Ready, superseded: Vec::new() }
    }

    pub fn is_installed(&self) -> bool {
        self.stage == Stage::Installed
    }

    fn is_lost(&self) -> bool {
        self.stage == Stage::Lost
    }
}

impl Peer {
    /// A snapshot message whose file has arrived.
    pub fn snapshot_received(&mut self, from: region::Peer, raft: RaftMessage, file: SnapshotFile, out: &mut Outbox) {
        let lost = self.has_lost_snapshot();
        let busy = self.waits_for_install() && !lost;
        // A snapshot that replaces a lost file must contain everything that the log above the file contains, because
        // that is acknowledged.
        let short = (lost || self.has_lost_source()) && file.id.index < self.group.last_index();
        if busy || short || file.region.peer(self.me.id) != Some(self.me) {
            // The leader sends again when it sees that this replica is still behind.
            return self.discard(file.name(), out);
        }
        let index = file.id.index;
        let stepped = self.group.step(from.id, raft, &file.region, Duration::ZERO);
        if !matches!(stepped, Stepped::Taken(_)) || self.group.pending_snapshot() != Some(index) {
            // Stale, or the log already matches it: raft has already answered.
            return self.discard(file.name(), out);
        }
        let mut superseded = Vec::new();
        if let Some(before) = self.incoming.take() {
            superseded = before.superseded;
            superseded.push(before.file.name());
        }
        self.incoming = Some(Incoming { file: Box::new(file), stage: Stage::Accepted, superseded });
    }

    fn discard(&self, file: FileId, out: &mut Outbox) {
        if !self.needs_file(&file) {
            out.snapshots.push(SnapshotTask::Remove { file });
        }
    }

    pub fn needs_file(&self, file: &FileId) -> bool {
        let incoming = self.incoming.as_ref();
        incoming.is_some_and(|incoming| incoming.file.name() == *file || incoming.superseded.contains(file))
    }

    /// Whether this file's snapshot is accepted, and takes the place of the log with the next persist.
    pub fn restores(&self, file: &FileId) -> bool {
        let is_it = |incoming: &Incoming| incoming.stage == Stage::Accepted && incoming.file.name() == *file;
        self.incoming.as_ref().is_some_and(is_it)
    }

    /// The received files that are needed.
    pub fn needed_files(&self) -> impl Iterator<Item = FileId> {
        let incoming = self.incoming.iter();
        incoming.flat_map(|incoming| incoming.superseded.iter().copied().chain([incoming.file.name()]))
    }

    /// Whether an install writes to the region's range now.
    pub(super) fn is_installing(&self) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| incoming.stage == Stage::Installing)
    }

    /// Whether the file of an accepted snapshot is lost: only another snapshot brings this replica up to date.
    pub fn has_lost_snapshot(&self) -> bool {
        self.incoming.as_ref().is_some_and(Incoming::is_lost)
    }

    /// Asks for a snapshot that replaces a lost one, repeatedly: the request may be lost, too.
    pub(super) fn tick_lost(&mut self) {
        if self.has_lost_snapshot() && self.ticks.is_multiple_of(self.config.heartbeat_ticks as u64) {
            self.group.request_snapshot();
        }
    }

    /// The core restored its log to `position`.
    pub(super) fn restore(&mut self, position: Position, dropped_above: bool, out: &mut Outbox) {
        let incoming = self.incoming.as_mut().expect("the core restores only what was accepted");
        let id = incoming.file.id;
        assert_eq!((incoming.stage, id.index, id.term), (Stage::Accepted, position.index, position.term));
        assert!(self.deferred.back().is_none_or(|last| last.index <= position.index), "deferred entries are committed");
        incoming.stage = Stage::Restoring;
        assert!(position.index >= self.handed, "a snapshot does not take the state back");
        self.deferred.clear();
        self.changes.clear();
        self.members = Arc::new(incoming.file.region.clone());
        self.members_replaced(position.index, out);
        self.forget_merges();
        self.noted.clear();
        self.handed = position.index;
        self.drop_all_proposals(out);
        self.truncations.clear();
        let stream = StreamId(self.region.id.0);
        if dropped_above {
            // The entries above belong to another history: an empty append drops them.
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
            for file in std::mem::take(&mut incoming.superseded) {
                out.snapshots.push(SnapshotTask::Remove { file });
            }
        }
    }

    /// Starts the install when nothing else is writing the region's range.
    pub(super) fn start_install(&mut self, out: &mut Outbox) {
        let idle = self.applies_in_flight == 0;
        if let Some(incoming) = self.incoming.as_mut().filter(|i| i.stage == Stage::Ready && idle) {
            incoming.stage = Stage::Installing;
            self.slot.install_begins();
            let file = incoming.file.name();
            out.snapshots.push(SnapshotTask::Install { region: file.snapshot.region, file });
        }
    }

    /// The install ended.
    pub fn installed(&mut self, file: FileId, result: Result<(), InstallError>, out: &mut Outbox) {
        let ours = |i: &&mut Incoming| i.stage == Stage::Installing && i.file.name() == file;
        let Some(incoming) = self.incoming.as_mut().filter(ours) else { return };
        match result {
            Ok(()) => {}
            Err(InstallError::FileLost(error)) if !self.config.planted().snapshot_names_reused => {
                let (region, name) = (self.region.id.0, file.file_name());
                tracing::error!(region, error, "the snapshot file {name} is lost; another snapshot is asked for");
                incoming.stage = Stage::Lost;
                return self.group.request_snapshot();
            }
            Err(error) => {
                let what = format!("the snapshot {} could not be installed: {error}", file.file_name());
                out.fail(Fault { region: self.region.id, what, kind: FaultKind::Unable });
                return;
            }
        }
        let snapshot = file.snapshot;
        assert!(self.applied.index < snapshot.index, "a snapshot moves the state forward");
        assert_eq!(self.applies_in_flight, 0, "nothing else wrote meanwhile");
        incoming.stage = Stage::Installed;
        self.slot.install_ended();
        let before = std::mem::replace(&mut self.region, Arc::new(incoming.file.region.clone()));
        // Tables may have taken it in before this event came: then they are not reported again, and have no old range.
        if before.epoch.version != self.region.epoch.version && self.flushed < snapshot.index {
            self.replaced.push_back((snapshot.index, before));
        }
        self.applied = Position { index: snapshot.index, term: snapshot.term };
        self.group.applied(snapshot.index);
        self.release_flushed_file(out);
    }

    /// Tables hold the state through `index`.
    pub fn flushed_through(&mut self, index: u64, out: &mut Outbox) {
        self.flushed = self.flushed.max(index);
        self.made_by = 0;
        self.replaced.retain(|(replaced_at, _)| *replaced_at > index);
        self.release_flushed_file(out);
    }

    /// The file of a snapshot is not needed when tables hold its data.
    fn release_flushed_file(&mut self, out: &mut Outbox) {
        let index = self.flushed;
        if self.incoming.as_ref().is_some_and(|i| i.is_installed() && i.file.id.index <= index) {
            let incoming = self.incoming.take().expect("just seen");
            assert!(incoming.superseded.is_empty(), "superseded files went when this one was restored");
            out.snapshots.push(SnapshotTask::Remove { file: incoming.file.name() });
        }
    }
}
