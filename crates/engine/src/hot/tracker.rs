//! The keys with the most operations: Space-Saving (Metwally, Agrawal, El Abbadi, "Efficient computation of frequent
//! and top-k elements in data streams", ICDT 2005) in sets, with counts that fade.
//!
//! Space-Saving keeps a fixed number of counters. A key that has none takes over the smallest one, count and all: so a
//! count is never too small, what it may be too large by is known (the count that was taken over), and a key with more
//! than its share of one in all counters is surely there. Here a key may only use the counters of one set, chosen by
//! its hash, as in a cache of a processor: to find a key or the smallest count costs three cache lines, and
//! each set has its own lock. Keys are spread evenly, so the bound stays about the same.
//!
//! At the end of each window all counts are halved, the next time their set is used. So a key that is used at a
//! steady rate has a count of once to twice its operations in a window, and one that is not used any more is dropped
//! within a few windows. Memory is fixed: 512 counters, with the first bytes of each key.
//!
//! docs/internals/hot-keys.md has the figures, also those of the rejected designs.

use crate::lock::{Mutex, Rank};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Two to this power sets: more than the threads that would contend for one.
const SET_BITS: u32 = 5;
/// Counters of a set: their counts are one cache line.
const WAYS: usize = 16;
/// A key is hot from this share of all operations on: the largest share that may remain undetected, one in the number
/// of counters.
const HOT_SHARE: u64 = (WAYS as u64) << SET_BITS;
/// So many operations must have been seen of a key before it is called hot.
const HOT_SEEN_MIN: u32 = 8;
/// What is stored of a key.
pub(crate) const KEY_BYTES_KEPT: usize = 64;

/// See the head of this file.
pub(crate) struct Tracker {
    window_ns: u64,
    sets: [Line; 1 << SET_BITS],
    /// Weights of all operations, faded like the counts, and the window that it was last faded in.
    total: AtomicU64,
    total_window: AtomicU64,
}

/// A set in separate cache lines.
#[repr(align(128))]
struct Line(Mutex<Set>);

struct Set {
    /// The window in which the counts were last halved.
    window: u64,
    /// Of family and key; 0 for a counter that is free.
    hashes: [u64; WAYS],
    counts: [u32; WAYS],
    /// What a count may be too large by.
    errors: [u32; WAYS],
    /// How many operations were counted, whatever they weigh.
    seen: [u32; WAYS],
    /// See [`Tracker::charge`].
    due_ns: [u64; WAYS],
    keys: [KeptKey; WAYS],
}

/// A key, or its beginning.
#[derive(Clone, Copy)]
struct KeptKey {
    family: u32,
    bytes: u32,
    start: [u8; KEY_BYTES_KEPT],
}

/// A key with many operations.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tracked {
    pub(crate) family: u32,
    /// The first [`KEY_BYTES_KEPT`] bytes.
    pub(crate) start: Vec<u8>,
    /// Length of the whole key.
    pub(crate) key_bytes: usize,
    /// Operations per second, estimated.
    pub(crate) per_second: f64,
}

/// How often each key may be used: see [`Tracker::charge`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Nanoseconds between two operations at the limit.
    pub(crate) interval_ns: u64,
    /// A key may be this far ahead of the limit.
    pub(crate) burst_ns: u64,
}

impl Tracker {
    /// With windows of this length.
    pub(crate) fn new(window: Duration) -> Tracker {
        let set = || Set {
            window: 0,
            hashes: [0; WAYS],
            counts: [0; WAYS],
            errors: [0; WAYS],
            seen: [0; WAYS],
            due_ns: [0; WAYS],
            keys: [KeptKey { family: 0, bytes: 0, start: [0; KEY_BYTES_KEPT] }; WAYS],
        };
        Tracker {
            window_ns: u64::try_from(window.as_nanos()).unwrap_or(u64::MAX).max(1),
            sets: std::array::from_fn(|_| Line(Mutex::new(Rank::HotKeys, set()))),
            total: AtomicU64::new(0),
            total_window: AtomicU64::new(0),
        }
    }

    /// An operation on a key with this hash that stands for `weight` of them. Returns whether the key is hot. If
    /// another thread holds the set's lock, the operation is not counted: a frequent key is used again.
    pub(crate) fn touch(&self, hash: u64, family: u32, key: &[u8], weight: u32, now: Duration) -> bool {
        let hash = hash.max(1);
        let Some(mut set) = self.set(hash).0.try_lock() else { return false };
        let window = self.window(now);
        let total = self.count_total(weight, window);
        set.fade(window);
        let at = set.count(hash, family, key, weight);
        set.is_hot(at, total)
    }

    /// As [`Tracker::touch`] with weight 1, for a key with a limited rate. If it is used more often, it is
    /// refused with the nanoseconds after which it may be used again, and not counted.
    ///
    /// By the generic cell rate algorithm: a counter has the time at which its key will have used up its operations so
    /// far at the limit, and that must not be further ahead than the burst. A counter that a key has just taken over
    /// starts at zero, so no key is refused below its limit.
    pub(crate) fn charge(
        &self,
        hash: u64,
        family: u32,
        key: &[u8],
        rate: Rate,
        now: Duration,
    ) -> std::result::Result<(), u64> {
        let hash = hash.max(1);
        let mut set = self.set(hash).0.lock();
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let window = self.window(now);
        set.fade(window);
        let due_ns = set.find(hash).and_then(|at| set.due_ns.get(at).copied()).unwrap_or(0).max(now_ns);
        let next_ns = due_ns.saturating_add(rate.interval_ns);
        let ahead_ns = next_ns - now_ns;
        if ahead_ns > rate.burst_ns {
            return Err(ahead_ns - rate.burst_ns);
        }
        self.count_total(1, window);
        let at = set.count(hash, family, key, 1);
        if let Some(due) = set.due_ns.get_mut(at) {
            *due = next_ns;
        }
        Ok(())
    }

    /// The keys with the most operations, the hottest first; those that are not hot are omitted.
    pub(crate) fn top(&self, count: usize, now: Duration) -> Vec<Tracked> {
        let window = self.window(now);
        let total = self.count_total(0, window);
        // A steady rate has filled a window, and this part of the next, since the halving.
        let since_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX) % self.window_ns;
        let seconds = (self.window_ns + since_ns) as f64 / 1e9;
        let mut found = Vec::new();
        for line in &self.sets {
            let mut set = line.0.lock();
            set.fade(window);
            for at in (0..WAYS).filter(|at| set.is_hot(*at, total)) {
                let (key, counted) = (&set.keys[at], set.counts[at] - set.errors[at]);
                let kept = (key.bytes as usize).min(KEY_BYTES_KEPT);
                found.push(Tracked {
                    family: key.family,
                    start: key.start[..kept].to_vec(),
                    key_bytes: key.bytes as usize,
                    per_second: f64::from(counted) / seconds,
                });
            }
        }
        found.sort_by(|left, right| right.per_second.total_cmp(&left.per_second));
        found.truncate(count);
        found
    }

    fn set(&self, hash: u64) -> &Line {
        self.sets.get((hash >> (u64::BITS - SET_BITS)) as usize).expect("so many bits name a set")
    }

    fn window(&self, now: Duration) -> u64 {
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX) / self.window_ns
    }

    /// The total with `weight` more. Two threads that run this at the end of a window may fade it by a little too much.
    fn count_total(&self, weight: u32, window: u64) -> u64 {
        let before = self.total_window.load(Relaxed);
        if before < window && self.total_window.compare_exchange(before, window, Relaxed, Relaxed).is_ok() {
            let total = self.total.load(Relaxed);
            self.total.store(total.checked_shr(windows(before, window)).unwrap_or(0), Relaxed);
        }
        self.total.fetch_add(u64::from(weight), Relaxed) + u64::from(weight)
    }
}

fn windows(from: u64, to: u64) -> u32 {
    u32::try_from(to.saturating_sub(from)).unwrap_or(u32::MAX)
}

impl Set {
    /// Halves the counts once for each window that has ended since the last time.
    fn fade(&mut self, window: u64) {
        let halvings = windows(self.window, window);
        if halvings == 0 {
            return;
        }
        self.window = window;
        for numbers in [&mut self.counts, &mut self.errors, &mut self.seen] {
            numbers.iter_mut().for_each(|number| *number = number.checked_shr(halvings).unwrap_or(0));
        }
    }

    fn find(&self, hash: u64) -> Option<usize> {
        self.hashes.iter().position(|other| *other == hash)
    }

    /// Counts an operation; returns the place of its counter.
    fn count(&mut self, hash: u64, family: u32, key: &[u8], weight: u32) -> usize {
        let at = match self.find(hash) {
            Some(at) => at,
            None => self.take_over(hash, family, key),
        };
        self.counts[at] = self.counts[at].saturating_add(weight);
        self.seen[at] = self.seen[at].saturating_add(1);
        at
    }

    fn take_over(&mut self, hash: u64, family: u32, key: &[u8]) -> usize {
        let mut at = 0;
        for other in 1..WAYS {
            if self.counts[other] < self.counts[at] {
                at = other;
            }
        }
        self.hashes[at] = hash;
        self.errors[at] = self.counts[at];
        self.seen[at] = 0;
        self.due_ns[at] = 0;
        let kept = &mut self.keys[at];
        kept.family = family;
        kept.bytes = u32::try_from(key.len()).unwrap_or(u32::MAX);
        let start = key.len().min(KEY_BYTES_KEPT);
        kept.start[..start].copy_from_slice(&key[..start]);
        at
    }

    /// Whether a counter's key certainly has its share of the total.
    fn is_hot(&self, at: usize, total: u64) -> bool {
        let counted = u64::from(self.counts[at] - self.errors[at]);
        self.seen[at] >= HOT_SEEN_MIN && counted * HOT_SHARE >= total
    }
}

#[cfg(test)]
#[path = "tracker_test.rs"]
mod tests;
