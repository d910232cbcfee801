//! Collects the effects of one poll, for all regions.

use crate::consensus::Entry;
use crate::consensus::log::Position;
use crate::effect::{
    Answer, ApplyId, ApplyPart, ChecksumTask, EntriesTask, Observation, PersistId, ReadId, SafeTsTask, SnapshotTask,
    ViewId,
};
use crate::error::{Fault, FaultKind};
use crate::leadership::Leadership;
use crate::memory::Memory;
use crate::region::{Region, RegionId, StoreId, Ticket};
use bytes::Bytes;
use kontiki_engine::{StreamOp, WriteBatch};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Asked by a leader before it answers a follower's read, with the region and what the reader says of its read
/// ([`crate::Event::ReplicaRead`]). If it does not admit the read, the follower asks again a heartbeat later.
pub type ReadGate = Arc<dyn Fn(&Region, u64) -> bool + Send + Sync>;

/// A region's share of an apply batch.
#[derive(Debug)]
pub(crate) struct AppliedRegion {
    pub region: RegionId,
    pub position: Position,
    /// Bytes of proposals made here.
    pub bytes: usize,
    /// Bytes of the entries.
    pub entry_bytes: usize,
}

/// Regions that a committed split makes: their logs are to begin.
#[derive(Debug)]
pub(crate) struct SplitBegun {
    pub parent: RegionId,
    pub children: Vec<Region>,
}

/// A committed merge needs the source's replica here, complete and stopped.
#[derive(Debug)]
pub(crate) struct AbsorptionBegun {
    pub target: RegionId,
    /// Its version after the commit.
    pub version: u64,
    pub source: RegionId,
    /// The source has to be applied through here.
    pub prepared_index: u64,
    /// Of the source's log, as far as a replica may lack them.
    pub entries: Vec<Entry>,
}

/// The commit of a merge is handed out for apply.
#[derive(Debug)]
pub(crate) struct AbsorptionHanded {
    pub source: RegionId,
    pub target: RegionId,
    /// Of the commit, in the target's log.
    pub index: u64,
}

/// The owner's read gate; without one, every read is admitted.
#[derive(Default)]
pub(crate) struct Gate(pub Option<ReadGate>);

impl Gate {
    pub fn admits(&self, region: &Region, read_at: u64) -> bool {
        self.0.as_ref().is_none_or(|gate| gate(region, read_at))
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gate").field(&self.0.is_some()).finish()
    }
}

/// Collects effects.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub now: Duration,
    pub read_gate: Gate,
    pub memory: Memory,
    pub leadership: Leadership,
    /// Log entries in memory wait for a flush.
    pub flush: bool,
    /// The persist that this poll's streams will go into.
    pub persist_id: PersistId,
    pub apply_id: ApplyId,
    last_view: u64,
    pub send: Vec<(StoreId, Bytes)>,
    pub streams: Vec<StreamOp>,
    /// Of the same commit.
    pub persist_batch: WriteBatch,
    /// Regions with Ready batches in this poll's persist.
    pub persisting: BTreeSet<RegionId>,
    pub apply: WriteBatch,
    pub apply_parts: Vec<ApplyPart>,
    pub applied: Vec<AppliedRegion>,
    /// Given when the batch is visible.
    pub apply_answers: Vec<(Ticket, Answer)>,
    pub splits: Vec<SplitBegun>,
    /// Commits of merges that wait for their source.
    pub absorptions: Vec<AbsorptionBegun>,
    /// Commits of merges in this poll's apply.
    pub absorbed: Vec<AbsorptionHanded>,
    /// Regions whose descriptors are in this poll's apply.
    pub made: Vec<RegionId>,
    answers: Vec<(Ticket, Answer)>,
    pub checksums: Vec<ChecksumTask>,
    pub snapshots: Vec<SnapshotTask>,
    pub entries: Vec<EntriesTask>,
    last_read: u64,
    /// Regions that wait for their turn to read entries.
    pub readers: VecDeque<RegionId>,
    pub observations: Vec<Observation>,
    pub safe_ts: Vec<SafeTsTask>,
    pub wants_timestamp: bool,
    pub fault: Option<Fault>,
    /// Tickets that are not answered yet.
    open: BTreeSet<Ticket>,
}

impl Outbox {
    /// An empty outbox; its ids begin at 1.
    pub fn new(memory: Memory, leadership: Leadership) -> Outbox {
        Outbox { memory, leadership, persist_id: PersistId(1), apply_id: ApplyId(1), ..Outbox::default() }
    }

    /// The node must stop. The first reason is the cause, unless a later one is about the data.
    pub fn fail(&mut self, fault: Fault) {
        if self.fault.is_none() || fault.kind == FaultKind::Inconsistent {
            self.fault = Some(fault);
        }
    }

    /// Registers a ticket.
    pub fn open(&mut self, ticket: Ticket) {
        assert!(self.open.insert(ticket), "{ticket:?} is already in use");
    }

    /// Answers a ticket, exactly once.
    pub fn answer(&mut self, ticket: Ticket, answer: Answer) {
        assert!(self.open.remove(&ticket), "{ticket:?} is answered once");
        self.answers.push((ticket, answer));
    }

    pub fn take_answers(&mut self) -> Vec<(Ticket, Answer)> {
        std::mem::take(&mut self.answers)
    }

    /// The number of open tickets.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    pub fn next_read(&mut self) -> ReadId {
        self.last_read += 1;
        ReadId(self.last_read)
    }

    pub fn next_view(&mut self) -> ViewId {
        self.last_view += 1;
        ViewId(self.last_view)
    }
}
