//! Latencies: recorded by many threads without a lock, read rarely.
//!
//! Buckets are log-linear (as in HdrHistogram): four for each power of two, so a bucket is at most a quarter as wide as
//! its values are large, from a nanosecond to two minutes, in 145 counters. Each thread counts in one of a few stripes
//! in separate cache lines, so that recording costs two additions without contention.

use super::stripe::stripe_of_thread;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Two to this power buckets for each power of two.
const SUB_BITS: u32 = 2;
const SUBS: usize = 1 << SUB_BITS;
/// Durations of two to this power nanoseconds (137 s) and more share the last bucket.
const OCTAVES: u32 = 37;
/// Number of buckets: the values below `SUBS` have one each, then `SUBS` for each octave, and the last one.
const BUCKETS: usize = (OCTAVES - SUB_BITS + 1) as usize * SUBS + 1;
/// The least and the largest bound, as powers of two of nanoseconds, that are shown to Prometheus: 256 ns to 34 s.
const SHOWN_OCTAVES: std::ops::RangeInclusive<u32> = 8..=35;

/// What has been recorded: a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    sum_ns: u64,
    max_ns: u64,
}

impl Histogram {
    /// Number of observations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Sum of all observations.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// The largest observation.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The mean; zero if there is none.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum_ns / self.count().max(1))
    }

    /// A duration that `percent` of the observations did not exceed, at most a quarter too large; zero if there is
    /// none.
    pub fn percentile(&self, percent: f64) -> Duration {
        let count = self.count();
        let rank = ((count as f64 * percent / 100.0).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0;
        for (bucket, here) in self.counts.iter().enumerate() {
            below += here;
            if below >= rank {
                return Duration::from_nanos(upper_ns(bucket).min(self.max_ns));
            }
        }
        Duration::ZERO
    }

    /// Upper bounds in seconds, with the number of observations between each and the one before; the last bound is
    /// [`f64::MAX`]. The same bounds for every histogram.
    pub fn buckets_seconds(&self) -> Vec<(f64, u64)> {
        let count_at = |bucket: usize| self.counts.get(bucket).copied().unwrap_or(0);
        let mut shown = Vec::with_capacity(SHOWN_OCTAVES.count() + 1);
        let mut next = 0;
        for octave in SHOWN_OCTAVES {
            let end = bucket_of(1 << octave);
            let count = (next..end).map(count_at).sum();
            shown.push(((1_u64 << octave) as f64 / 1e9, count));
            next = end;
        }
        shown.push((f64::MAX, (next..BUCKETS).map(count_at).sum()));
        shown
    }
}

/// Records durations. See the head of this file.
pub(crate) struct Recording {
    stripes: Box<[Stripe]>,
}

/// Aligned so that no two stripes share a cache line, nor a pair of lines that the processor fetches together.
#[repr(align(128))]
struct Stripe {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Recording {
    /// For so many threads at once without contention.
    pub(crate) fn new(stripes: usize) -> Recording {
        let stripe = |_| Stripe {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
        };
        Recording { stripes: (0..stripes.max(1)).map(stripe).collect() }
    }

    /// Adds an observation.
    pub(crate) fn record(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let stripe =
            self.stripes.get(stripe_of_thread() % self.stripes.len()).expect("a remainder is below the divisor");
        if let Some(bucket) = stripe.buckets.get(bucket_of(ns)) {
            bucket.fetch_add(1, Relaxed);
        }
        stripe.sum_ns.fetch_add(ns, Relaxed);
        if ns > stripe.max_ns.load(Relaxed) {
            stripe.max_ns.fetch_max(ns, Relaxed);
        }
    }

    /// What has been recorded so far.
    pub(crate) fn get(&self) -> Histogram {
        let mut histogram = Histogram { counts: vec![0; BUCKETS], sum_ns: 0, max_ns: 0 };
        for stripe in &self.stripes {
            for (sum, bucket) in histogram.counts.iter_mut().zip(&stripe.buckets) {
                *sum += bucket.load(Relaxed);
            }
            histogram.sum_ns = histogram.sum_ns.saturating_add(stripe.sum_ns.load(Relaxed));
            histogram.max_ns = histogram.max_ns.max(stripe.max_ns.load(Relaxed));
        }
        histogram
    }
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recording({} observations)", self.get().count())
    }
}

/// The bucket of a duration.
fn bucket_of(ns: u64) -> usize {
    if ns < SUBS as u64 {
        return ns as usize;
    }
    let octave = ns.ilog2();
    let sub = (ns >> (octave - SUB_BITS)) as usize - SUBS;
    (((octave - SUB_BITS + 1) as usize) * SUBS + sub).min(BUCKETS - 1)
}

/// The largest duration of a bucket.
fn upper_ns(bucket: usize) -> u64 {
    if bucket < SUBS {
        return bucket as u64;
    }
    if bucket >= BUCKETS - 1 {
        return u64::MAX;
    }
    let shift = (bucket / SUBS - 1) as u32;
    let first = ((SUBS + bucket % SUBS) as u64) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
#[path = "histogram_test.rs"]
mod tests;
