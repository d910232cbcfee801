//! Garbage collection of transactional versions: how far it reaches, and what holds it back.
//!
//! Two points, both timestamps that only grow:
//! - the *transaction safe point*: no transaction that started below it continues. It moves first, so that a collector
//!   can resolve the locks below it before anything is dropped;
//! - the *GC safe point*: versions that no read at or above it needs are dropped, and reads below it are refused.
//!
//! *Barriers* hold the transaction safe point back: each names a timestamp that its owner (a backup, a change feed)
//! still reads at, for a limited time or until it is removed. Service safe points are barriers with another API; the
//! service `gc_worker` is no barrier, but an older way to move the transaction safe point.
//!
//! Invariants, of every state:
//! 1. GC safe point <= transaction safe point <= every barrier that has not expired;
//! 2. neither point ever goes back.
//!
//! A change is made to the *wanted* state at once, so that later calls see it, and answered when a write that contains
//! it is durable; what is answered to readers is the *durable* state.

use crate::call::{Answer, CallId};
use crate::gc_record::{Barrier, GC_BARRIER_TTL_FOREVER, GcRecord, NEVER_MS};
use crate::planted::{self, Bug};
use crate::{
    GcBarrier, GcPoints, LOGICAL_BITS, Outcome, Refusal, RefusalCode, SafePoint, SafePointMoved, ServiceSafePoint,
    UpdateServiceSafePoint,
};

/// The maximum number of barriers and service safe points together: each is in every write of this state. More than the
/// tools of a cluster need.
pub const GC_BARRIERS_MAX: usize = 256;
/// The maximum length of the name of a barrier or service, in bytes.
pub const GC_BARRIER_NAME_BYTES_MAX: usize = 128;
/// The service whose safe point is the transaction safe point.
pub const GC_WORKER: &str = "gc_worker";

/// The state at the leader.
#[derive(Debug)]
pub(crate) struct Gc {
    durable: GcRecord,
    wanted: GcRecord,
    /// What the write in flight contains.
    in_flight: Option<GcRecord>,
    /// Calls whose change is not durable, in order of arrival, with their answers.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    id: CallId,
    answer: Outcome,
    /// A write that contains the change is in flight.
    is_in_flight: bool,
}

impl Gc {
    pub fn new(loaded: GcRecord) -> Gc {
        loaded.check();
        Gc { durable: loaded.clone(), wanted: loaded, in_flight: None, waiting: Vec::new() }
    }

    /// The durable GC safe point.
    pub fn safe_point(&self) -> u64 {
        self.durable.safe_point
    }

    /// The durable state.
    pub fn points(&self, now_ms: u64) -> GcPoints {
        let live = self.durable.barriers.iter().filter(|(_, barrier)| !barrier.has_expired(now_ms));
        GcPoints {
            gc_safe_point: self.durable.safe_point,
            txn_safe_point: self.durable.txn_safe_point,
            barriers: live.map(|(name, barrier)| wire(name, barrier, now_ms)).collect(),
        }
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The calls that wait.
    pub fn into_waiting(self) -> impl Iterator<Item = CallId> {
        self.waiting.into_iter().map(|waiting| waiting.id)
    }

    /// Answers at once if nothing has to become durable first; otherwise the call waits.
    fn settle(&mut self, id: CallId, answer: Outcome) -> Option<Answer> {
        self.wanted.check();
        if self.wanted == self.durable && self.in_flight.is_none() {
            return Some(Ok(answer));
        }
        if planted::is_set(Bug::SafePointBeforeDurable) {
            return Some(Ok(answer));
        }
        self.waiting.push(Waiting { id, answer, is_in_flight: false });
        None
    }

    /// What is to be written, if it is not durable.
    pub fn plan(&mut self) -> Option<GcRecord> {
        debug_assert!(self.in_flight.is_none(), "one write at a time");
        if self.wanted == self.durable && self.waiting.is_empty() {
            return None;
        }
        self.waiting.iter_mut().for_each(|waiting| waiting.is_in_flight = true);
        self.in_flight = Some(self.wanted.clone());
        self.in_flight.clone()
    }

    /// The write that was planned has ended; returns the answers that waited for it.
    pub fn written(&mut self, ok: bool) -> Vec<(CallId, Answer)> {
        let Some(record) = self.in_flight.take() else { return Vec::new() };
        if !ok {
            self.waiting.iter_mut().for_each(|waiting| waiting.is_in_flight = false);
            return Vec::new();
        }
        assert!(record.safe_point >= self.durable.safe_point, "the safe point never goes back");
        assert!(record.txn_safe_point >= self.durable.txn_safe_point, "nor does that of transactions");
        self.durable = record;
        let done = self.waiting.extract_if(.., |waiting| waiting.is_in_flight);
        done.map(|waiting| (waiting.id, Ok(waiting.answer))).collect()
    }

    /// Moves the GC safe point, and with it that of transactions, as far as the barriers permit.
    pub fn update(&mut self, id: CallId, target: u64, now_ms: u64) -> Option<Answer> {
        if let Err(refusal) = not_in_future("safe point", target, now_ms) {
            return Some(Err(refusal));
        }
        if target > self.wanted.safe_point {
            let held = self.move_txn(target.max(self.wanted.txn_safe_point), now_ms);
            let reached = held.map_or(target, |(_, ts)| target.min(ts));
            self.wanted.safe_point = reached.max(self.wanted.safe_point);
        }
        let safe_point = self.wanted.safe_point;
        self.settle(id, Outcome::SafePoint(SafePoint { safe_point }))
    }

    /// Moves the GC safe point to what the transaction safe point has reached already.
    pub fn advance(&mut self, id: CallId, target: u64) -> Option<Answer> {
        let (old, txn) = (self.wanted.safe_point, self.wanted.txn_safe_point);
        if target < old {
            return Some(invalid(format!("the GC safe point is {old} and never goes back to {target}")));
        }
        if target > txn {
            let what = format!("the GC safe point cannot pass the transaction safe point {txn} to {target}");
            return Some(invalid(what + ": advance that one first, and resolve the locks below"));
        }
        self.wanted.safe_point = target;
        self.settle(id, Outcome::SafePointMoved(SafePointMoved { old, new: target, blocker: String::new() }))
    }

    /// Moves the transaction safe point as far as the barriers permit.
    pub fn advance_txn(&mut self, id: CallId, target: u64, now_ms: u64) -> Option<Answer> {
        let old = self.wanted.txn_safe_point;
        if let Err(refusal) = not_in_future("transaction safe point", target, now_ms) {
            return Some(Err(refusal));
        }
        if target < old {
            return Some(invalid(format!("the transaction safe point is {old} and never goes back to {target}")));
        }
        let held = self.move_txn(target, now_ms);
        let blocker = held.map(|(name, ts)| format!("barrier \"{name}\" at {ts}")).unwrap_or_default();
        let new = self.wanted.txn_safe_point;
        self.settle(id, Outcome::SafePointMoved(SafePointMoved { old, new, blocker }))
    }

    /// Returns what held it back below `target`.
    fn move_txn(&mut self, target: u64, now_ms: u64) -> Option<(String, u64)> {
        self.wanted.barriers.retain(|_, barrier| !barrier.has_expired(now_ms));
        let held = self.wanted.lowest(now_ms).filter(|(_, barrier)| barrier.ts < target);
        let held = held.map(|(name, barrier)| (name.to_owned(), barrier.ts));
        let reached = held.as_ref().map_or(target, |(_, ts)| *ts);
        self.wanted.txn_safe_point = self.wanted.txn_safe_point.max(reached);
        held
    }

    /// The older API of barriers.
    pub fn update_service(&mut self, id: CallId, ask: UpdateServiceSafePoint, now_ms: u64) -> Option<Answer> {
        let UpdateServiceSafePoint { service, ttl_seconds, safe_point } = ask;
        if let Err(refusal) = check_name("service", &service) {
            return Some(Err(refusal));
        }
        let mut held = None;
        if service == GC_WORKER {
            if ttl_seconds != GC_BARRIER_TTL_FOREVER {
                return Some(invalid(format!("the service {GC_WORKER} never expires: send the TTL {}", i64::MAX)));
            }
            if let Err(refusal) = not_in_future("safe point", safe_point, now_ms) {
                return Some(Err(refusal));
            }
            held = self.move_txn(safe_point, now_ms);
        } else if ttl_seconds <= 0 {
            self.wanted.barriers.remove(&service);
        } else if safe_point >= self.wanted.txn_safe_point
            && let Err(refusal) = self.put(service, safe_point, ttl_seconds, now_ms)
        {
            return Some(Err(refusal));
        }
        // By invariant 1 the transaction safe point is the minimum of all.
        let min_safe_point = self.wanted.txn_safe_point;
        let at = held.and_then(|(name, _)| self.wanted.barriers.get_key_value(&name));
        let (service, ttl_seconds) = match at {
            Some((name, barrier)) => (name.clone(), barrier.ttl_seconds(now_ms)),
            None => (GC_WORKER.to_owned(), GC_BARRIER_TTL_FOREVER),
        };
        self.settle(id, Outcome::ServiceSafePoint(ServiceSafePoint { service, ttl_seconds, min_safe_point }))
    }

    /// Sets a barrier, or moves the one of that name.
    pub fn set_barrier(&mut self, id: CallId, ask: GcBarrier, now_ms: u64) -> Option<Answer> {
        let GcBarrier { name, ts, ttl_seconds } = ask;
        if let Err(refusal) = check_name("barrier", &name) {
            return Some(Err(refusal));
        }
        if name == GC_WORKER {
            return Some(invalid(format!(
                "the name {GC_WORKER} is that of the transaction safe point; choose another"
            )));
        }
        if ttl_seconds <= 0 {
            return Some(invalid(format!("barrier \"{name}\": the TTL is 1 or more seconds, not {ttl_seconds}")));
        }
        let txn = self.wanted.txn_safe_point;
        if ts < txn {
            let what = format!("barrier \"{name}\": {ts} is below the transaction safe point {txn} already");
            return Some(invalid(what));
        }
        if let Err(refusal) = self.put(name.clone(), ts, ttl_seconds, now_ms) {
            return Some(Err(refusal));
        }
        let barrier = self.wanted.barriers.get(&name).map(|barrier| wire(&name, barrier, now_ms));
        self.settle(id, Outcome::GcBarrier(crate::GcBarrierChanged { barrier }))
    }

    /// Removes a barrier; the answer is what it was.
    pub fn delete_barrier(&mut self, id: CallId, name: &str, now_ms: u64) -> Option<Answer> {
        let removed = self.wanted.barriers.remove(name).filter(|barrier| !barrier.has_expired(now_ms));
        let barrier = removed.map(|barrier| wire(name, &barrier, now_ms));
        self.settle(id, Outcome::GcBarrier(crate::GcBarrierChanged { barrier }))
    }

    fn put(&mut self, name: String, ts: u64, ttl_seconds: i64, now_ms: u64) -> Result<(), Refusal> {
        self.wanted.barriers.retain(|_, barrier| !barrier.has_expired(now_ms));
        if !self.wanted.barriers.contains_key(&name) && self.wanted.barriers.len() >= GC_BARRIERS_MAX {
            let what = format!(
                "there are {GC_BARRIERS_MAX} barriers and service safe points, the maximum: remove one before \"{name}\""
            );
            return Err(Refusal::new(RefusalCode::Busy, what));
        }
        let expires_at_ms = match u64::try_from(ttl_seconds) {
            Ok(seconds) if ttl_seconds != GC_BARRIER_TTL_FOREVER => now_ms.saturating_add(seconds.saturating_mul(1000)),
            _ => NEVER_MS,
        };
        self.wanted.barriers.insert(name, Barrier { ts, expires_at_ms });
        Ok(())
    }
}

fn wire(name: &str, barrier: &Barrier, now_ms: u64) -> GcBarrier {
    GcBarrier { name: name.to_owned(), ts: barrier.ts, ttl_seconds: barrier.ttl_seconds(now_ms) }
}

fn invalid(what: String) -> Answer {
    Err(Refusal::new(RefusalCode::Invalid, what))
}

fn not_in_future(what: &str, ts: u64, now_ms: u64) -> Result<(), Refusal> {
    if ts >> LOGICAL_BITS <= now_ms {
        return Ok(());
    }
    let what = format!("{what} {ts} lies in the future: its time is beyond {now_ms} ms");
    Err(Refusal::new(RefusalCode::Invalid, what))
}

fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    if (1..=GC_BARRIER_NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    let max = GC_BARRIER_NAME_BYTES_MAX;
    Err(Refusal::new(RefusalCode::Invalid, format!("the name of a {what} has 1 to {max} bytes, not {}", name.len())))
}

#[cfg(test)]
#[path = "gc_test.rs"]
mod tests;
