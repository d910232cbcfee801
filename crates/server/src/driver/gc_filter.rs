//! Which entries of this store's tables no transaction needs any more: the engine asks when it merges tables.
//!
//! The safe point of a key is that of its region's descriptor, as far as two places agree on it:
//! - *published* (`Readers`): from then on reads below it are refused here, so a view that was taken before a drop is
//!   still served, and one that was taken after it is not, if it needs what was dropped;
//! - *in tables*: a restart finds it. It could otherwise find data without versions that its descriptor still promises.
//!
//! An entry is dropped if it is dead in two views: one of everything, because what it depends on may not be in tables,
//! and one of tables, because what has killed it may not be there, and a restart would begin without it. A region of
//! which a snapshot is being installed has no safe point: values may be visible before their records.

use crate::families::META;
use bytes::Bytes;
use kontiki_engine::{CompactionFilter, Direction, Entries, Family, FilterPass, Range, Result, View};
use kontiki_raftstore::{ChecksumFilter, Readers, Region, RegionId, Space, meta};
use kontiki_state::{StateEngine, StateView};
use kontiki_txn::{GcError, GcPass, SafePoints, TimeStamp, can_be_dead};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where the safe points are, and the data.
type Source = (Arc<Readers>, Arc<dyn StateEngine>);

/// The filter in the engine's options. It drops nothing before [`GcFilter::start`] and after [`GcFilter::stop`].
#[derive(Default)]
pub(super) struct GcFilter {
    /// Not in a cycle for ever: the engine owns the filter, and the driver ends it before it closes the engine.
    source: Mutex<Option<Source>>,
}

impl GcFilter {
    pub(super) fn start(&self, readers: Arc<Readers>, state: Arc<dyn StateEngine>) {
        *self.source.lock() = Some((readers, state));
    }

    pub(super) fn stop(&self) {
        *self.source.lock() = None;
    }
}

/// The safe points below which this store may drop versions of these regions now. `flushed` is a view of tables.
fn safe_points(published: &[Arc<Region>], flushed: &dyn View) -> SafePoints {
    if !published.iter().any(|region| collects(region)) {
        return SafePoints::default();
    }
    let flushed: BTreeMap<RegionId, Region> = match meta::regions(META, flushed) {
        Ok(regions) => regions.into_iter().map(|region| (region.id, region)).collect(),
        Err(error) => {
            tracing::warn!(%error, "the descriptors in tables cannot be read: no versions are dropped");
            return SafePoints::default();
        }
    };
    let of = |region: &Arc<Region>| {
        // Of another version, tables have another range, with parts that may have another safe point.
        let flushed = flushed.get(&region.id).filter(|flushed| flushed.epoch.version == region.epoch.version);
        let safe_point = flushed.map_or(0, |flushed| flushed.gc_safe_point).min(region.gc_safe_point);
        (Range::region(&region.start_key, &region.end_key), TimeStamp(safe_point))
    };
    SafePoints::new(published.iter().filter(|region| collects(region)).map(of))
}

fn collects(region: &Region) -> bool {
    region.space == Space::Data && region.gc_safe_point != 0
}

impl CompactionFilter for GcFilter {
    fn filters(&self, family: Family) -> bool {
        can_be_dead(family)
    }

    fn begin(&self, family: Family) -> Option<Box<dyn FilterPass>> {
        if !can_be_dead(family) {
            return None;
        }
        let (readers, state) = self.source.lock().clone()?;
        let ((flushed, view), regions) = readers.view_of_whole(|| (state.flushed_view(), state.snapshot()));
        let safe_points = safe_points(&regions, &*flushed);
        if safe_points.is_empty() {
            return None;
        }
        let flushed = SharedView(Arc::from(flushed));
        let in_all = GcPass::over_some(family, safe_points.clone(), view);
        Some(Box::new(Pass { in_all, in_tables: GcPass::over_some(family, safe_points, flushed) }))
    }
}

struct Pass {
    in_all: GcPass<StateView>,
    in_tables: GcPass<SharedView>,
}

impl FilterPass for Pass {
    fn drops(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<bool> {
        // Both see every entry: a pass remembers what it has seen of a key.
        let (in_all, in_tables) = (is_dead(&mut self.in_all, key, value)?, is_dead(&mut self.in_tables, key, value)?);
        Ok(in_all && in_tables)
    }
}

/// What cannot be decoded stays: a read that needs it reports it.
fn is_dead<V: View>(pass: &mut GcPass<V>, key: &[u8], value: Option<&[u8]>) -> Result<bool> {
    match pass.is_dead(key, value) {
        Ok(dead) => Ok(dead),
        Err(GcError::Storage(error)) => Err(error.0),
        Err(error) => {
            tracing::error!(%error, "garbage collection met a record that cannot be decoded, and keeps it");
            Ok(false)
        }
    }
}

/// A view that several share.
#[derive(Clone)]
struct SharedView(Arc<dyn View>);

impl View for SharedView {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(family, key)
    }

    fn entries(&self, family: Family, range: Range, direction: Direction) -> Result<Box<dyn Entries>> {
        self.0.entries(family, range, direction)
    }
}

/// Leaves dead entries out of checksums: each replica drops them at its own time.
pub(super) struct LiveEntries {
    safe_points: SafePoints,
    view: StateView,
    pass: Option<(Family, GcPass<StateView>)>,
}

impl LiveEntries {
    /// Of a region, as its descriptor says at the index of the checksum.
    pub(super) fn new(region: &Region, view: StateView) -> LiveEntries {
        let range = Range::region(&region.start_key, &region.end_key);
        let safe_points = SafePoints::new([(range, TimeStamp(region.gc_safe_point))]);
        LiveEntries { safe_points, view, pass: None }
    }
}

impl ChecksumFilter for LiveEntries {
    fn counts(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<bool> {
        let (of, mut pass) = match self.pass.take() {
            Some((of, pass)) if of == family => (of, pass),
            _ => (family, GcPass::over_all(family, self.safe_points.clone(), self.view.clone())),
        };
        let dead = is_dead(&mut pass, key, Some(value));
        self.pass = Some((of, pass));
        Ok(!dead?)
    }
}
