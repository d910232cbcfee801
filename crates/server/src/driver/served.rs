//! What is served of each region that this node leads: how many requests and bytes, and a sample of their keys.
//!
//! Requests are served by many threads, so counting must not make them wait for each other. A request looks its region
//! up in a table that is replaced as a whole, and adds to two atomic counters of the region. The sum before the
//! addition is the request's number, and by it the request knows whether it is in the sample. Almost none is: of a
//! region that is within its limits no request is, and of the others some hundred in each streak of windows. Those try
//! the region's lock, and are left out if another one has it.
//!
//! # The sample
//! The numbers of requests are divided into strata of equal length, and of each stratum one number, drawn at random, is
//! taken: each request has the same probability, and no period of the load agrees with that of the sample. When there
//! are twice as many as wanted, a random half is dropped, and strata become twice as long. A sample of a streak
//! therefore has between 128 and 256 requests once there were as many, however many there are. *Rejected:* a reservoir
//! that draws for each request (a random generator for each thread, or a lock); every n-th request (periods).

use arc_swap::ArcSwap;
use bytes::Bytes;
use kontiki_env::rng::Rng;
use kontiki_raftstore::RegionId;
use kontiki_raftstore::command::SPLIT_KEY_BYTES_MAX;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Samples of a region; at twice as many, half of them are dropped. With 128, a share of a half is known to within
/// about a tenth.
const SAMPLES: usize = 128;
/// No request is sampled.
const NONE: u64 = u64::MAX;

/// A served request: the keys that it touched, as they are compared with boundaries of regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The least key.
    pub(super) first: Bytes,
    /// The greatest one; of a request for one key, the same.
    pub(super) last: Bytes,
    /// The keys are not encoded.
    pub(super) is_raw: bool,
    pub(super) bytes: u64,
}

impl Sample {
    /// A request for raw keys between two, in any order, both included.
    pub fn raw(one: &[u8], other: &[u8]) -> Sample {
        Sample::new(one, other, true)
    }

    /// The same for transactional keys in their memcomparable encoding.
    pub fn encoded(one: &[u8], other: &[u8]) -> Sample {
        Sample::new(one, other, false)
    }

    fn new(one: &[u8], other: &[u8], is_raw: bool) -> Sample {
        // The beginning of a longer key says where it lies, and no boundary is longer.
        let copy = |key: &[u8]| Bytes::copy_from_slice(key.get(..=SPLIT_KEY_BYTES_MAX).unwrap_or(key));
        let first = copy(one.min(other));
        let last = if one == other { first.clone() } else { copy(one.max(other)) };
        Sample { first, last, is_raw, bytes: 0 }
    }
}

/// What was served of a region since this node leads it.
pub(super) struct Served {
    requests: AtomicU64,
    bytes: AtomicU64,
    /// A copy of the sampler's next number.
    next: AtomicU64,
    sampler: Mutex<Sampler>,
}

struct Sampler {
    taken: Vec<Sample>,
    /// The length of a stratum.
    stride: u64,
    /// The begin of the next stratum.
    stratum: u64,
    /// The number of the next request that is sampled.
    next: u64,
    rng: Rng,
}

impl Served {
    pub(super) fn new(rng: Rng) -> Served {
        let sampler = Sampler { taken: Vec::new(), stride: 1, stratum: 0, next: NONE, rng };
        Served {
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            next: AtomicU64::new(NONE),
            sampler: Mutex::new(sampler),
        }
    }

    /// Counts as many requests. `sample` is called, with the index of a request among them, for those in the sample.
    pub(super) fn count(&self, requests: u64, bytes: u64, sample: &mut dyn FnMut(u64) -> Sample) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let before = self.requests.fetch_add(requests, Ordering::Relaxed);
        if before + requests <= self.next.load(Ordering::Relaxed) {
            return;
        }
        if let Some(mut sampler) = self.sampler.try_lock() {
            let each = bytes / requests.max(1);
            sampler.take(before, requests, &mut |index| Sample { bytes: each, ..sample(index) });
            self.next.store(sampler.next, Ordering::Relaxed);
        }
    }

    /// Requests and bytes so far.
    pub(super) fn so_far(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Begins a sample of what is served from now on.
    pub(super) fn begin_sample(&self) {
        let now = self.requests.load(Ordering::Relaxed);
        let mut sampler = self.sampler.lock();
        (sampler.stride, sampler.stratum, sampler.next) = (1, now + 1, now);
        sampler.taken.clear();
        self.next.store(now, Ordering::Relaxed);
    }

    /// Ends the sample, and drops it.
    pub(super) fn end_sample(&self) {
        let mut sampler = self.sampler.lock();
        (sampler.next, sampler.taken) = (NONE, Vec::new());
        self.next.store(NONE, Ordering::Relaxed);
    }

    pub(super) fn sample(&self) -> Vec<Sample> {
        self.sampler.lock().taken.clone()
    }
}

impl Sampler {
    /// Takes those of the requests with the numbers `before..before + requests` that are due.
    fn take(&mut self, before: u64, requests: u64, sample: &mut dyn FnMut(u64) -> Sample) {
        if self.next < before {
            // The one that was due did not get the lock.
            self.stratum = before;
            self.draw_next();
        }
        // It ends: each turn moves `next`, and strata become longer.
        while self.next < before + requests {
            self.taken.push(sample(self.next - before));
            if self.taken.len() >= 2 * SAMPLES {
                self.rng.shuffle(&mut self.taken);
                self.taken.truncate(SAMPLES);
                self.stride *= 2;
            }
            self.draw_next();
        }
    }

    fn draw_next(&mut self) {
        self.next = self.stratum + self.rng.below(self.stride);
        self.stratum += self.stride;
    }
}

/// The regions that this node leads. Read by all threads, replaced by the driver.
#[derive(Default)]
pub(super) struct ServedTable(ArcSwap<BTreeMap<RegionId, Arc<Served>>>);

impl ServedTable {
    pub(super) fn replace(&self, regions: BTreeMap<RegionId, Arc<Served>>) {
        self.0.store(Arc::new(regions));
    }

    /// Counts requests to a region, if this node leads it; see [`Served::count`].
    pub(super) fn count(&self, region: RegionId, requests: u64, bytes: u64, sample: &mut dyn FnMut(u64) -> Sample) {
        if let Some(served) = self.0.load().get(&region) {
            served.count(requests, bytes, sample);
        }
    }
}

#[cfg(test)]
#[path = "served_test.rs"]
mod tests;
