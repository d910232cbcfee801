//! What a node does while it leads placement.
//!
//! At most one write is in flight. It contains everything that has to become durable when it is planned, so writes need
//! no order beyond that of the log, and under load their number does not grow with the number of calls. A write that
//! failed, or whose outcome is unknown, is repeated at the next tick, with values at or above the old ones.

use crate::call::{Answer, CallId};
use crate::gc::Gc;
use crate::ids::{ID_COUNT_MAX, Ids};
use crate::oracle::{Oracle, TIMESTAMP_COUNT_MAX};
use crate::planted::{self, Bug};
use crate::records::Records;
use crate::regions::Regions;
use crate::state::{self, Loaded};
use crate::stores::Stores;
use crate::{
    Accepted, ClusterInfo, Command, Config, IdsGranted, Now, Outcome, Refusal, RefusalCode, RegionList, SafePoint,
    StoreInfo, StoreList,
};
use kontiki_engine::WriteBatch;
use std::collections::VecDeque;
use std::time::Duration;

/// The maximum number of calls that wait for a write at once; further calls are refused as busy. It is far above what
/// batching clients send during one window's write (a few milliseconds), and takes little memory.
pub const PENDING_CALLS_MAX: usize = 10_000;

/// The state at the leader.
#[derive(Debug)]
pub(crate) struct Leader {
    config: Config,
    oracle: Oracle,
    ids: Ids,
    stores: Stores,
    regions: Regions,
    gc: Gc,
    /// Calls that wait for the bound of timestamps, in order of arrival.
    timestamps_waiting: VecDeque<(CallId, u32)>,
    /// Calls that wait for the bound of ids, in order of arrival.
    ids_waiting: VecDeque<(CallId, u32)>,
    records: Records,
    /// Whether timestamps were requested since their bound was last raised: an idle cluster writes nothing.
    timestamps_used: bool,
    in_flight: Option<Pending>,
    /// After a failure: the next write is planned at the next tick, not in a hot loop.
    hold_writes: bool,
    /// When store records may be written again.
    stores_not_before: Duration,
}

/// What the write in flight makes durable.
#[derive(Debug, Default)]
struct Pending {
    timestamp_bound_ms: Option<u64>,
    id_bound: Option<u64>,
    stores: Vec<u64>,
}

impl Leader {
    pub fn new(config: &Config, loaded: Loaded, now: Now) -> Leader {
        assert!(loaded.bootstrapped, "the state of a cluster that exists");
        Leader {
            config: config.clone(),
            // Nothing is handed out before a higher bound is durable, so a minimum needs no write of its own.
            oracle: Oracle::new(config, loaded.timestamp_bound_ms.max(config.timestamp_min_ms), now),
            ids: Ids::new(loaded.id_bound.max(config.id_min)),
            stores: Stores::new(loaded.stores, now.monotonic),
            regions: Regions::new(loaded.regions),
            gc: Gc::new(loaded.gc),
            timestamps_waiting: VecDeque::new(),
            ids_waiting: VecDeque::new(),
            records: Records::new(loaded.keyspaces, loaded.external_timestamp),
            // The first call then finds the bound already raised.
            timestamps_used: true,
            in_flight: None,
            hold_writes: false,
            stores_not_before: Duration::ZERO,
        }
    }

    /// Answers, or returns `None`: then the call waits for a write.
    pub fn call(&mut self, id: CallId, command: Command, now: Now) -> Option<Answer> {
        let answer = match command {
            Command::Timestamps(ask) => return self.timestamps(id, ask.count, now),
            Command::AllocateIds(ask) => return self.allocate_ids(id, ask.count),
            Command::UpdateGcSafePoint(_)
            | Command::UpdateServiceSafePoint(_)
            | Command::AdvanceTxnSafePoint(_)
            | Command::AdvanceGcSafePoint(_)
            | Command::SetGcBarrier(_)
            | Command::DeleteGcBarrier(_) => return self.change_gc(id, command, now),
            Command::StoreHeartbeat(heartbeat) => self.stores.heartbeat(heartbeat, now.monotonic).map(accepted),
            Command::RegionHeartbeat(heartbeat) => self.regions.heartbeat(heartbeat).map(accepted),
            Command::RegionByKey(ask) => self.regions.by_key(&ask.key).cloned().map(Outcome::Region),
            Command::PreviousRegion(ask) => self.regions.previous(&ask.key).cloned().map(Outcome::Region),
            Command::RegionById(ask) => self.regions.by_id(ask.id).cloned().map(Outcome::Region),
            Command::ScanRegions(ask) => Ok(Outcome::Regions(RegionList { regions: self.regions.scan(&ask) })),
            Command::StoreById(ask) => self.stores.get(ask.id, now.monotonic).map(Outcome::Store),
            Command::AllStores(_) => Ok(Outcome::Stores(StoreList { stores: self.stores.all(now.monotonic) })),
            Command::GcSafePoint(_) => Ok(Outcome::SafePoint(SafePoint { safe_point: self.gc.safe_point() })),
            Command::GcState(_) => Ok(Outcome::GcPoints(self.gc.points(self.oracle.time_ms(now)))),
            Command::Cluster(_) => Ok(Outcome::Cluster(self.cluster(now))),
            about_records => {
                let (capacity, now_ms) = (self.room_to_wait(), self.oracle.time_ms(now));
                return self.records.call(id, about_records, capacity, now_ms);
            }
        };
        Some(answer)
    }

    /// A tick: a write held back after a failure may be tried again.
    pub fn tick(&mut self) {
        self.hold_writes = false;
    }

    /// The next write, if something has to become durable and no write is in flight.
    pub fn plan(&mut self, now: Now) -> Option<WriteBatch> {
        if self.in_flight.is_some() || self.hold_writes {
            return None;
        }
        let mut pending = Pending::default();
        let mut batch = WriteBatch::new();
        if !self.timestamps_waiting.is_empty() || (self.timestamps_used && self.oracle.runs_low(now)) {
            let bound_ms = self.oracle.next_bound(now);
            state::put_timestamp_bound(&mut batch, bound_ms);
            pending.timestamp_bound_ms = Some(bound_ms);
            self.timestamps_used = false;
        }
        if !self.ids_waiting.is_empty() {
            let needed = self.ids_waiting.iter().map(|(_, count)| u64::from(*count)).sum();
            let bound = self.ids.bound_for(needed, self.config.ids_per_write);
            state::put_id_bound(&mut batch, bound);
            pending.id_bound = Some(bound);
        }
        if let Some(record) = self.gc.plan() {
            state::put_gc(&mut batch, &record);
        }
        // A write that happens for another reason includes the stores only when they are due, so their minimum interval
        // holds.
        if self.stores.has_unwritten() && now.monotonic >= self.stores_not_before {
            for store in self.stores.take_unwritten() {
                state::put_store(&mut batch, &store);
                pending.stores.push(store.id);
            }
            self.stores_not_before = now.monotonic + self.config.store_write_interval;
        }
        self.records.plan(&mut batch);
        if batch.is_empty() {
            return None;
        }
        self.in_flight = Some(pending);
        Some(batch)
    }

    /// The write in flight ended; returns the answers that were waiting for it. `ok == false` means that it is unknown
    /// whether it took effect.
    pub fn written(&mut self, ok: bool, now: Now) -> Vec<(CallId, Answer)> {
        let pending = self.in_flight.take().expect("the machine passes on results of the write in flight only");
        let mut answers = Vec::new();
        if !ok && !planted::is_set(Bug::UnknownWriteCounts) {
            self.stores.failed(&pending.stores);
            self.records.failed();
            self.timestamps_used |= pending.timestamp_bound_ms.is_some();
            self.hold_writes = true;
            self.gc.written(false);
            return answers;
        }
        if let Some(bound_ms) = pending.timestamp_bound_ms {
            self.oracle.raised(bound_ms);
            while let Some((id, count)) = self.timestamps_waiting.front().copied()
                && let Some(granted) = self.oracle.allocate_late(count, now)
            {
                self.timestamps_waiting.pop_front();
                answers.push((id, Ok(Outcome::Timestamps(granted))));
            }
        }
        if let Some(bound) = pending.id_bound {
            self.ids.raised(bound);
            while let Some((id, count)) = self.ids_waiting.front().copied()
                && let Some(first) = self.ids.allocate(count)
            {
                self.ids_waiting.pop_front();
                answers.push((id, Ok(Outcome::Ids(IdsGranted { first, count }))));
            }
        }
        answers.extend(self.gc.written(true));
        answers.extend(self.records.written());
        answers
    }

    /// Every call that still waits when the leadership ends.
    pub fn into_waiting(self) -> impl Iterator<Item = CallId> {
        let timestamps = self.timestamps_waiting.into_iter().map(|(id, _)| id);
        let ids = self.ids_waiting.into_iter().map(|(id, _)| id);
        let records: Vec<CallId> = self.records.waiting().collect();
        timestamps.chain(ids).chain(self.gc.into_waiting()).chain(records)
    }

    fn timestamps(&mut self, id: CallId, count: u32, now: Now) -> Option<Answer> {
        if let Err(refusal) = check_count("timestamps", count, TIMESTAMP_COUNT_MAX) {
            return Some(Err(refusal));
        }
        self.timestamps_used = true;
        // A new call does not overtake the waiting ones.
        if self.timestamps_waiting.is_empty()
            && let Some(granted) = self.oracle.allocate(count, now)
        {
            return Some(Ok(Outcome::Timestamps(granted)));
        }
        self.room_to_wait().map_or_else(
            |refusal| Some(Err(refusal)),
            |()| {
                self.timestamps_waiting.push_back((id, count));
                None
            },
        )
    }

    fn allocate_ids(&mut self, id: CallId, count: u32) -> Option<Answer> {
        if let Err(refusal) = check_count("ids", count, ID_COUNT_MAX) {
            return Some(Err(refusal));
        }
        if self.ids_waiting.is_empty()
            && let Some(first) = self.ids.allocate(count)
        {
            return Some(Ok(Outcome::Ids(IdsGranted { first, count })));
        }
        if let Err(refusal) = self.room_to_wait() {
            return Some(Err(refusal));
        }
        self.ids_waiting.push_back((id, count));
        None
    }

    fn change_gc(&mut self, id: CallId, command: Command, now: Now) -> Option<Answer> {
        if let Err(refusal) = self.room_to_wait() {
            return Some(Err(refusal));
        }
        let now_ms = self.oracle.time_ms(now);
        match command {
            Command::UpdateGcSafePoint(ask) => self.gc.update(id, ask.safe_point, now_ms),
            Command::UpdateServiceSafePoint(ask) => self.gc.update_service(id, ask, now_ms),
            Command::AdvanceTxnSafePoint(ask) => self.gc.advance_txn(id, ask.target, now_ms),
            Command::AdvanceGcSafePoint(ask) => self.gc.advance(id, ask.target),
            Command::SetGcBarrier(ask) => self.gc.set_barrier(id, ask, now_ms),
            Command::DeleteGcBarrier(ask) => self.gc.delete_barrier(id, &ask.name, now_ms),
            _ => unreachable!("the caller passes these"),
        }
    }

    fn room_to_wait(&self) -> Result<(), Refusal> {
        let count = self.timestamps_waiting.len() + self.ids_waiting.len() + self.gc.waiting();
        let count = count + self.records.waiting().count();
        if count < PENDING_CALLS_MAX {
            return Ok(());
        }
        Err(Refusal::new(RefusalCode::Busy, format!("{count} calls wait for placement already; try again later")))
    }

    fn cluster(&self, now: Now) -> ClusterInfo {
        let mut members: Vec<StoreInfo> = Vec::new();
        let peers = self.regions.system_peers();
        for info in self.stores.all(now.monotonic) {
            if peers.is_empty() || peers.iter().any(|peer| peer.store_id == info.store.id) {
                members.push(info);
            }
        }
        ClusterInfo {
            cluster_id: self.config.cluster_id,
            leader_store_id: self.config.store_id,
            members,
            region_count: self.regions.len() as u64,
            store_count: self.stores.len() as u64,
        }
    }
}

fn accepted(_: ()) -> Outcome {
    Outcome::Accepted(Accepted {})
}

fn check_count(what: &str, count: u32, max: u32) -> Result<(), Refusal> {
    if (1..=max).contains(&count) {
        return Ok(());
    }
    Err(Refusal::new(RefusalCode::Invalid, format!("the count of {what} is 1 to {max}, not {count}")))
}
