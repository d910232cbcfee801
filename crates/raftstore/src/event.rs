//! The inputs of a store.

use crate::command::Command;
use crate::effect::{ApplyId, PersistId, ReadId, SafeTsClaim, ViewId};
use crate::region::{Epoch, RegionId, StoreId, Ticket};
use crate::snapshot::{FileId, InstallError, SnapshotFile, SnapshotHead};
use bytes::Bytes;
use kontiki_engine::WriteBatch;

/// One thing that happened, for [`crate::Store::handle`].
#[derive(Clone, Debug)]
pub enum Event {
    /// Time passes. To be sent at least once every `tick_interval`; more often is harmless, because ticks are counted
    /// by the time given with the event.
    Tick,
    /// One encoded store message from another store, as it came: it is checked here.
    Message(Bytes),
    /// Replicate a batch. Answered once: `Ok` when it is applied and visible here.
    Propose {
        /// The region.
        region: RegionId,
        /// The epoch by which the caller routed the request.
        epoch: Epoch,
        /// What to write: keys of the region's families and range.
        batch: WriteBatch,
        /// For the answer.
        ticket: Ticket,
    },
    /// Confirm leadership with a quorum. Answered once: `Ok` when everything that was committed at the time of this
    /// event is applied and visible here, so a snapshot taken after the answer is fresh.
    ReadBarrier {
        /// The region.
        region: RegionId,
        /// The epoch by which the caller routed the request.
        epoch: Epoch,
        /// For the answer.
        ticket: Ticket,
    },
    /// A read at this replica, which may follow. Answered once: `Ok` when everything that was acknowledged before this
    /// event is applied and visible here, with an index that the leader has applied.
    ReplicaRead {
        /// The region.
        region: RegionId,
        /// The epoch by which the caller routed the request.
        epoch: Epoch,
        /// What the leader's read gate has to know of it ([`crate::ReadGate`]); 0: nothing.
        read_at: u64,
        /// For the answer.
        ticket: Ticket,
    },
    /// A view for such a read has `index` applied. Answered once: `Ok` when the leader has applied as much, so that no
    /// read there is older than what this one shows.
    ReplicaShows {
        /// The region.
        region: RegionId,
        /// The applied index in the view.
        index: u64,
        /// For the answer.
        ticket: Ticket,
    },
    /// [`crate::Persist`] `batch` is durable, and so is every earlier one.
    Persisted {
        /// Which.
        batch: PersistId,
    },
    /// [`crate::Apply`] `through`, and every earlier one, is visible to readers.
    Applied {
        /// Which.
        through: ApplyId,
    },
    /// A view was taken for sending, and is kept until [`crate::SnapshotTask::Release`].
    SnapshotPrepared {
        /// The region.
        region: RegionId,
        /// Its name.
        view: ViewId,
        /// What it holds, or why there is none, and then nothing is kept (it is tried again when needed).
        result: Result<SnapshotHead, String>,
    },
    /// A send task ended.
    SnapshotSent {
        /// The region.
        region: RegionId,
        /// The peer.
        to: StoreId,
        /// From which view.
        view: ViewId,
        /// Whether the receiver has it whole.
        ok: bool,
    },
    /// A snapshot arrived: `file` is whole, checked, synced and under its final name, which no file had before.
    SnapshotReceived {
        /// The store message that announced it.
        message: Bytes,
        /// The file.
        file: SnapshotFile,
    },
    /// An install task ended: all of it, and last the applied index, is visible.
    SnapshotInstalled {
        /// The region.
        region: RegionId,
        /// Which.
        file: FileId,
        /// After a lost file another snapshot is requested; any other error is a fault.
        result: Result<(), InstallError>,
    },
    /// An [`crate::EntriesTask`] ended.
    EntriesRead {
        /// The region.
        region: RegionId,
        /// Which.
        id: ReadId,
        /// The entries that the stream has, from the first index on without a gap: none if that one is gone. Or why
        /// they cannot be read; then it is tried again when a follower asks again.
        result: Result<Vec<Bytes>, String>,
    },
    /// A [`crate::ChecksumTask`] ended.
    Checksummed {
        /// The region.
        region: RegionId,
        /// The task's.
        index: u64,
        /// The checksum, or why there is none; then the check does without this replica.
        result: Result<u64, String>,
    },
    /// Applied indices that tables hold (a crash cannot take them away), of the regions where they changed: log
    /// truncation may follow.
    Flushed {
        /// Region and flushed applied index.
        applied: Vec<(RegionId, u64)>,
    },
    /// `false`: the log cannot be written for the time being, because the disk is full or a write takes too long.
    /// `true`: it can be written again, which is also the state after a start. While it is `false`, this store
    /// transfers the leadership of the regions that it leads and does not campaign.
    LogWritable {
        /// Whether it can be written.
        writable: bool,
    },
    /// The process is about to end, or data here are damaged: from now on this store transfers the leadership of the
    /// regions that it leads, where the others can lead, and does not campaign.
    /// [`crate::Store::leaderships_to_hand_over`] says when that is done.
    StopLeading,
    /// The connection to another store broke, or could not be made. Until something is heard from it, it is not named
    /// to clients as a leader.
    Unreachable {
        /// The store.
        store: StoreId,
    },
    /// Try to become leader now, if no leader is known.
    Campaign {
        /// The region.
        region: RegionId,
    },
    /// Replicate a command other than a write, at the leader. Answered as a proposal is; `Refused` also if the region
    /// as it is now does not permit it, and while something that excludes it is under way.
    Command {
        /// The region.
        region: RegionId,
        /// The command, with the epoch of the descriptor by which the caller chose: both versions must still be these.
        command: Command,
        /// For the answer.
        ticket: Ticket,
    },
    /// A timestamp that placement handed out after [`Effects::wants_timestamp`] was set, and before this event: a round
    /// of safe timestamps begins with it.
    ///
    /// [`Effects::wants_timestamp`]: crate::Effects::wants_timestamp
    Timestamp {
        /// The timestamp.
        ts: u64,
    },
    /// [`crate::SafeTsTask`]s ended: what came of them.
    SafeTs {
        /// One for each region for which the view had one.
        claims: Vec<SafeTsClaim>,
    },
    /// Transfer leadership, if this replica leads.
    TransferLeader {
        /// The region.
        region: RegionId,
        /// The peer.
        to: StoreId,
    },
}
