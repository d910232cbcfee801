//! Everything that comes out of a store.

use crate::error::{Fault, RegionError};
use crate::region::{Peer, Region, RegionId, StoreId, Ticket};
use crate::snapshot::{FileId, SnapshotId};
use bytes::Bytes;
use kontiki_engine::{Commit, Family, WriteBatch};
use std::ops::Range;
use std::sync::Arc;

/// Names a [`Persist`]; ascending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// Names an [`Apply`]; ascending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApplyId(pub u64);

/// Names an [`EntriesTask`]; never used twice by a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// Names an engine view that is kept for sending a region's snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId(pub u64);

/// What [`crate::Store::poll`] asks to be done, for all regions at once. The parts may be done in any order and at the
/// same time, except that persists, and likewise applies, complete in the order of their ids.
#[derive(Debug, Default)]
pub struct Effects {
    /// Encoded store messages that may leave at once. Any may be lost.
    pub send: Vec<(StoreId, Bytes)>,
    /// One commit for the log of every region.
    pub persist: Option<Persist>,
    /// One batch for the state of every region.
    pub apply: Option<Apply>,
    /// Answers to proposals and read barriers; each ticket is answered exactly once.
    pub answers: Vec<(Ticket, Answer)>,
    /// Checksums to compute. Their views are taken before `apply` is begun: they must not contain it.
    pub checksums: Vec<ChecksumTask>,
    /// Work on snapshot files.
    pub snapshots: Vec<SnapshotTask>,
    /// Entries to read from streams.
    pub entries: Vec<EntriesTask>,
    /// Observations for other parts of the node.
    pub observations: Vec<Observation>,
    /// Regions whose oldest lock is to be found. Their view, one for all of them, is taken at once.
    pub safe_ts: Vec<SafeTsTask>,
    /// A timestamp of placement is needed: [`crate::Event::Timestamp`]. Set again until it comes.
    pub wants_timestamp: bool,
    /// Memtables should be flushed, in the background: the log entries of their data fill the memory. May be set often;
    /// during a flush it can be ignored.
    pub flush: bool,
    /// The node must stop; all other effects are to be ignored.
    pub fault: Option<Fault>,
}

impl Effects {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.send.is_empty()
            && self.persist.is_none()
            && self.apply.is_none()
            && self.answers.is_empty()
            && self.checksums.is_empty()
            && self.snapshots.is_empty()
            && self.entries.is_empty()
            && self.observations.is_empty()
            && self.safe_ts.is_empty()
            && !self.wants_timestamp
            && !self.flush
            && self.fault.is_none()
    }
}

/// To be written to the log, `Durability::Sync`. A failed commit must not be answered with [`crate::Event::Persisted`]:
/// it is tried again, before any later one, if the error permits; otherwise the node stops.
///
/// Messages that may be sent only when the commit is durable (votes, a follower's acknowledgements) are retained by the
/// store and returned with the effects after the event, so that no answer to them can overtake it.
#[derive(Debug)]
pub struct Persist {
    /// Comes back in [`crate::Event::Persisted`].
    pub id: PersistId,
    /// Stream operations of all regions, and what ends replicas that were removed.
    pub commit: Commit,
}

/// To be written with `Durability::Derived`.
#[derive(Debug)]
pub struct Apply {
    /// Comes back in [`crate::Event::Applied`].
    pub id: ApplyId,
    /// Data of all regions, with their applied indices.
    pub batch: WriteBatch,
    /// Which operations of `batch` belong to which region and command: they cover it, in its order. A region may have
    /// several, with ascending indices.
    pub parts: Vec<ApplyPart>,
}

/// Consecutive commands of one region in an [`Apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyPart {
    /// The region.
    pub region: RegionId,
    /// Its applied index after them, and so the index of the last one.
    pub index: u64,
    /// The term of the last one.
    pub term: u64,
    /// The commands that have an effect, by ascending index.
    pub commands: Vec<AppliedCommand>,
    /// The operations of the part, counted in the batch. The one after the commands' sets the applied position.
    pub operations: Range<usize>,
}

/// What one command wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedCommand {
    /// Its index in the region's log.
    pub index: u64,
    /// Its operations, counted in the batch.
    pub operations: Range<usize>,
}

/// The one answer to a ticket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A proposal: it is applied and visible here. A read barrier: a snapshot taken from now on is fresh.
    Ok {
        /// The region's applied index at which that became true.
        index: u64,
    },
    /// It did not happen and never will.
    Refused(RegionError),
    /// A proposal whose outcome is unknown: it was in the log when leadership was lost.
    Dropped,
}

/// Take an engine view now, compute the [`crate::Checksum`] of the region in it, in the background, and then
/// [`crate::Event::Checksummed`].
#[derive(Clone, Debug)]
pub struct ChecksumTask {
    /// The descriptor as of the index: what counts.
    pub region: Arc<Region>,
    /// The region's applied index, which the view contains exactly. Comes back in the event.
    pub index: u64,
    /// Only keys that do not expire before this wall time (milliseconds) count. A view of a later time has lost some of
    /// them: then the result is an error. 0: the leader is of a release without keys that expire.
    pub expires_after_ms: u64,
}

/// Take an engine view now, find the oldest lock in it, in the background, and then [`crate::Event::SafeTs`].
///
/// Everything that was acknowledged in the region before `ts` was handed out is in the view.
#[derive(Clone, Debug)]
pub struct SafeTsTask {
    /// The region as it is in the view. If the view has another version of it, nothing follows.
    pub region: Arc<Region>,
    /// What is claimed is at most this, and below the start of every transaction that holds a lock.
    pub ts: u64,
}

/// A replica of the region that has applied `index` has everything that is ever committed at or below `safe_ts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SafeTsClaim {
    /// The region.
    pub region: RegionId,
    /// Its version in the view: it says which keys this is about.
    pub version: u64,
    /// The applied index in the view.
    pub index: u64,
    /// The timestamp.
    pub safe_ts: u64,
}

/// Read entries of a region's stream, in the background, and then [`crate::Event::EntriesRead`], always. They are
/// durable, unless the stream is truncated, or removed, meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntriesTask {
    /// Comes back in the event.
    pub id: ReadId,
    /// The region.
    pub region: RegionId,
    /// Their indices. They count for the store's memory budget until the event.
    pub indices: Range<u64>,
    /// Their bytes, about.
    pub bytes: usize,
}

/// What came of comparing the replicas of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOutcome {
    /// The checksum that a majority of the replicas has, if one has.
    pub checksum: Option<u64>,
    /// The stores whose replicas have that; without a majority, those that gave a result, if it is the same.
    pub agreeing: Vec<StoreId>,
    /// The stores whose replicas have another one: they stop. Without a majority, those that gave a result, if they
    /// differ: it is not known which of them are right, so none stops.
    pub differing: Vec<StoreId>,
    /// The stores that gave no result in time. They compare theirs with that of the majority when they have it.
    pub missing: Vec<StoreId>,
}

impl CheckOutcome {
    /// Whether all replicas have the same data.
    pub fn is_equal(&self) -> bool {
        self.checksum.is_some() && self.differing.is_empty() && self.missing.is_empty()
    }
}

/// Work on snapshots, for the background. Received ones are files: [`FileId::file_name`] under `snapshots/`.
#[derive(Clone, Debug)]
pub enum SnapshotTask {
    /// Take an engine view and keep it under this name, with what [`crate::snapshot::describe`] says of it; then
    /// [`crate::Event::SnapshotPrepared`]. May wait until few enough views are kept.
    Prepare {
        /// The region.
        region: RegionId,
        /// Comes back in the event.
        view: ViewId,
    },
    /// Stream the view's data, by [`crate::snapshot::write`], and then the message; then
    /// [`crate::Event::SnapshotSent`], always. A send that makes no progress must end.
    Send {
        /// The receiving peer.
        to: StoreId,
        /// The store message that announces it; goes to the receiver's [`crate::Event::SnapshotReceived`].
        message: Bytes,
        /// A view that is kept.
        view: ViewId,
        /// What it holds.
        snapshot: SnapshotId,
        /// A planted bug; otherwise `None`. For [`crate::snapshot::write`].
        left_out: Option<Family>,
    },
    /// The view is not needed any more.
    Release {
        /// Which.
        view: ViewId,
    },
    /// Replace the region's state by the file's with [`crate::snapshot::install`]; then
    /// [`crate::Event::SnapshotInstalled`]. No apply of that region is emitted meanwhile.
    Install {
        /// The region.
        region: RegionId,
        /// Which file.
        file: FileId,
    },
    /// The file is not needed any more (it may already be removed). It may be removed at any later time, after another
    /// check of [`crate::Store::may_remove`].
    Remove {
        /// Which.
        file: FileId,
    },
}

/// An event of interest to other parts of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// This replica leads, and has applied an entry of its own term: its state is complete.
    BecameLeader {
        /// The region.
        region: RegionId,
        /// The term.
        term: u64,
    },
    /// This replica no longer leads. Sent if and only if [`Observation::BecameLeader`] was.
    SteppedDown {
        /// The region.
        region: RegionId,
        /// The term in which it led.
        term: u64,
    },
    /// The leader that this replica knows of changed.
    LeaderChanged {
        /// The region.
        region: RegionId,
        /// The leader, if one is known.
        leader: Option<Peer>,
        /// The term.
        term: u64,
    },
    /// The replicas of a region that is led here were compared.
    Checked {
        /// The region.
        region: RegionId,
        /// As of this index of its log.
        index: u64,
        /// What came of it.
        outcome: CheckOutcome,
    },
    /// A peer sent a message that no correct peer sends; it was ignored. A log, here or there, is damaged or has lost
    /// its end.
    Refused {
        /// The region.
        region: RegionId,
        /// The sender.
        from: StoreId,
        /// What was wrong.
        why: &'static str,
    },
    /// The replica here was removed from its region, and nothing of it is left.
    RegionRemoved {
        /// The region.
        region: RegionId,
    },
    /// The range of the region is that of another one now, here, and its replica is gone.
    RegionMerged {
        /// The region.
        region: RegionId,
        /// What took it over.
        into: RegionId,
    },
    /// A region appeared here or its descriptor changed.
    RegionChanged {
        /// The descriptor now.
        region: Arc<Region>,
    },
}
