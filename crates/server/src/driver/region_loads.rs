//! The loads of the regions that this node leads, and splits of those whose load is too high.
//!
//! What is served is counted elsewhere ([`super::served`]); once in a window the driver looks at the counters of each
//! region that it leads, which costs two loads from memory. docs/internals/split.md ("By load") has the design.

use super::load_boundary::{Choice, SAMPLES_MIN, choose};
use super::load_windows::{Inherited, LoadLimits, Measure, Next, WINDOWS, Windows};
use super::served::{Served, ServedTable};
use super::split::Asked;
use super::{Driver, PLACEMENT_REGION};
use bytes::Bytes;
use kontiki_env::KeyText;
use kontiki_env::rng::Rng;
use kontiki_placement::Now;
use kontiki_raftstore::RegionId;
use kontiki_txn::memcomparable_decode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Splits by load that are under way, of all regions: each costs elections, and clients look up what changed.
const SPLITS_MAX: usize = 4;
/// Regions of which requests are sampled at the same time: each takes up to 2 MiB, if keys are as long as boundaries
/// may be. The others wait.
const SAMPLED_MAX: usize = 64;

/// What is known of a region.
struct Known {
    served: Arc<Served>,
    /// What had been served at the last look.
    seen: (u64, u64),
    windows: Windows,
    is_sampled: bool,
    /// No boundary divides its load.
    is_stuck: bool,
    /// The key that was reported as the cause.
    reported: Option<Bytes>,
}

impl Known {
    fn end_sample(&mut self) {
        if std::mem::take(&mut self.is_sampled) {
            self.served.end_sample();
        }
    }

    fn end_streak(&mut self) {
        self.windows.end_streak();
        self.end_sample();
    }
}

/// The loads of the regions that this node leads.
pub(super) struct RegionLoads {
    limits: LoadLimits,
    regions: BTreeMap<RegionId, Known>,
    /// Shared with the handles; outdated while `is_changed`. Replaced once a tick, because it is copied as a whole.
    table: Arc<ServedTable>,
    is_changed: bool,
    window_began: Duration,
    splitting: BTreeMap<RegionId, Inherited>,
    /// Regions that splits have made and that this node does not lead yet, and until when it may.
    made: BTreeMap<RegionId, (Inherited, Duration)>,
    rng: Rng,
}

impl RegionLoads {
    pub(super) fn new(limits: LoadLimits, rng: Rng, now: Duration) -> RegionLoads {
        RegionLoads {
            limits,
            regions: BTreeMap::new(),
            table: Arc::default(),
            is_changed: false,
            window_began: now,
            splitting: BTreeMap::new(),
            made: BTreeMap::new(),
            rng,
        }
    }

    pub(super) fn table(&self) -> Arc<ServedTable> {
        self.table.clone()
    }

    pub(super) fn leads(&mut self, region: RegionId, now: Duration) {
        if region == PLACEMENT_REGION || self.limits.is_off() {
            return;
        }
        let mut windows = Windows::default();
        if let Some((inherited, _)) = self.made.remove(&region) {
            windows.inherit(inherited, now, self.limits.window);
        }
        let served = Arc::new(Served::new(Rng::new(self.rng.next_u64())));
        let (seen, is_sampled, is_stuck, reported) = ((0, 0), false, false, None);
        self.regions.insert(region, Known { served, seen, windows, is_sampled, is_stuck, reported });
        self.is_changed = true;
    }

    pub(super) fn leads_no_more(&mut self, region: RegionId) {
        self.is_changed |= self.regions.remove(&region).is_some();
    }

    pub(super) fn range_changed(&mut self, region: RegionId) {
        if let Some(known) = self.regions.get_mut(&region) {
            known.windows.range_changed();
            known.end_sample();
            known.is_stuck = false;
        }
    }

    /// A split by load ended; `parts` are the regions that it leaves, none if it failed.
    pub(super) fn split_ended(&mut self, region: RegionId, parts: &[RegionId], now: Duration) {
        let window = self.limits.window;
        let Some(inherited) = self.splitting.remove(&region) else { return };
        for part in parts {
            match self.regions.get_mut(part) {
                Some(known) => known.windows.inherit(inherited, now, window),
                None => _ = self.made.insert(*part, (inherited, now + window * WINDOWS)),
            }
        }
        if parts.is_empty()
            && let Some(known) = self.regions.get_mut(&region)
        {
            known.windows.rest(now, window);
        }
    }

    /// At the end of a window: the regions that should be split, and by which measure.
    fn look(&mut self, now: Duration) -> Vec<(RegionId, Measure)> {
        if std::mem::take(&mut self.is_changed) {
            self.table.replace(self.regions.iter().map(|(region, known)| (*region, known.served.clone())).collect());
        }
        let elapsed = now.saturating_sub(self.window_began);
        if elapsed < self.limits.window {
            return Vec::new();
        }
        self.window_began = now;
        self.made.retain(|_, (_, until)| now < *until);
        let mut sampled = self.regions.values().filter(|known| known.is_sampled).count();
        let mut due = Vec::new();
        for (region, known) in &mut self.regions {
            let (requests, bytes) = known.served.so_far();
            let (requests_seen, bytes_seen) = std::mem::replace(&mut known.seen, (requests, bytes));
            let load = self.limits.load(requests - requests_seen, bytes - bytes_seen, elapsed);
            match known.windows.pass(load, now, self.limits.window) {
                Next::Calm => {
                    sampled -= usize::from(known.is_sampled);
                    known.end_sample();
                    known.is_stuck &= known.windows.is_above();
                }
                Next::Sample if sampled < SAMPLED_MAX => {
                    known.served.begin_sample();
                    (known.is_sampled, sampled) = (true, sampled + 1);
                }
                Next::Sample => known.windows.end_streak(),
                Next::Wait => {}
                Next::Decide => due.push((*region, load.measure)),
            }
        }
        due
    }
}

impl Driver {
    /// Looks at the loads, once in a window, and splits regions of which too much is served.
    pub(super) fn tend_region_loads(&mut self, now: Now) {
        for (region, measure) in self.region_loads.look(now.monotonic) {
            self.divide_load(region, measure, now);
        }
        let regions = || self.region_loads.regions.values();
        let counters = &self.shared.counters;
        counters.regions_overloaded.set(regions().filter(|known| known.windows.is_above()).count() as u64);
        counters.regions_indivisible.set(regions().filter(|known| known.is_stuck).count() as u64);
    }

    fn divide_load(&mut self, id: RegionId, measure: Measure, now: Now) {
        let loads = &mut self.region_loads;
        let (Some(known), Some((region, _))) = (loads.regions.get_mut(&id), self.shared.readers.region(id)) else {
            return;
        };
        if region.merges.preparing.is_some() {
            known.end_streak(); // Its range is about to be another region's.
            return;
        }
        let samples = known.served.sample();
        if loads.splitting.len() >= SPLITS_MAX || samples.len() < SAMPLES_MIN {
            return; // The next window asks again.
        }
        known.end_sample();
        let window = loads.limits.window;
        if !known.windows.split_helped(now.monotonic, window) {
            tracing::info!(region = id.0, "a split has not divided the load of a region");
            return;
        }
        match choose(&region, &samples, measure) {
            Choice::At(boundary) => {
                tracing::info!(region = id.0, ?measure, boundary = %boundary.escape_ascii(), "a load is divided");
                known.is_stuck = false;
                loads.splitting.insert(id, known.windows.split());
                self.start_split(id, region.epoch, vec![boundary], Asked::ByLoad, now);
            }
            Choice::OneKey { key, is_raw, percent } => {
                known.windows.rest(now.monotonic, window);
                known.is_stuck = true;
                if known.reported.as_ref() != Some(&key) {
                    self.shared.counters.hot_keys_reported.increment();
                    report(id, &key, is_raw, percent);
                    known.reported = Some(key);
                }
            }
            Choice::Nowhere => {
                known.windows.rest(now.monotonic, window);
                known.is_stuck = true;
                tracing::info!(region = id.0, ?measure, "no boundary divides the load of a region");
            }
        }
    }
}

/// Reports a key that has most of a region's load.
fn report(region: RegionId, key: &Bytes, is_raw: bool, percent: u64) {
    let kind = if is_raw { "raw" } else { "transactional" };
    // A key that was cut is no whole encoding: it is shown as it is.
    let decoded = if is_raw { None } else { memcomparable_decode(key).ok() };
    let user_key = decoded.as_deref().unwrap_or(key);
    let shown = KeyText(user_key);
    tracing::warn!(
        region = region.0,
        "a hot key: {percent}% of the requests that the region serves, above its limit, are for the {kind} key \
         {shown}, which no split can divide"
    );
}

#[cfg(test)]
#[path = "region_loads_test.rs"]
mod tests;
