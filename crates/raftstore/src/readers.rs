//! Lease checks from any thread.
//!
//! A replica that leads publishes, per region: the descriptor, its term, whether an entry of that term is applied, and
//! until when its lease holds. A reader must see the *same* publication before and after it takes its view of the
//! engine, and the lease must hold at a time that is read afterwards:
//!
//! - publication before: everything acknowledged by earlier leaders is applied before the view is taken;
//! - clock after: no other leader can have acknowledged anything before the view was taken.
//!
//! One check is not enough: a view taken before the own-term entry was applied would pass a check made after it.
//! [`Readers::read`] does both in the right order. It takes no lock and does not wait for writes.
//!
//! Writing order (only the store writes): the lease is zeroed before a publication is replaced and set only after, so
//! a lease read between two loads of one and the same publication belongs to it.

use crate::error::RegionError;
use crate::region::{Epoch, Peer, PeerId, Region, RegionId, Space, StoreId};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What a replica publishes about itself. Replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub region: Arc<Region>,
    pub term: u64,
    pub leader: Option<Peer>,
    /// Leads, and has applied an entry of its own term.
    pub readable: bool,
    /// Whether the leader is this replica.
    pub leads: bool,
}

/// One region's slot in [`Readers`].
#[derive(Debug)]
pub(crate) struct Slot {
    publication: ArcSwap<Publication>,
    /// End of the lease, in nanoseconds of the store's monotonic clock; 0 is none.
    lease_until_ns: AtomicU64,
    /// A view was read since the store last asked.
    was_read: AtomicBool,
    /// Counts beginnings and ends of installs. While it is odd a snapshot is being installed, and views of the region
    /// hold a part of it; one that was taken while it was the same even number holds none.
    installs: AtomicU64,
    /// What the replica has is all that is ever committed at or below this timestamp, in the range of the publication's
    /// version. 0: not known.
    safe_ts: AtomicU64,
    /// A read at a timestamp came since the store last asked.
    was_read_at: AtomicBool,
}

impl Slot {
    /// Whether a view was read since the last call.
    pub fn take_read(&self) -> bool {
        self.was_read.swap(false, Ordering::Relaxed)
    }

    /// The region is in use. Written once between two calls of [`Slot::take_read`], so that readers share the line.
    fn note_read(&self) {
        if !self.was_read.load(Ordering::Relaxed) {
            self.was_read.store(true, Ordering::Relaxed);
        }
    }

    /// Replaces the publication and clears the lease.
    pub fn publish(&self, publication: Publication) {
        assert!(publication.leads || !publication.readable, "only a leader is readable");
        assert!(publication.term >= self.publication.load().term, "terms only grow");
        self.lease_until_ns.store(0, Ordering::SeqCst);
        if publication.region.epoch.version != self.publication.load().region.epoch.version {
            // It was about another range. A reader that gets one of the new version has the new publication afterwards.
            self.safe_ts.store(0, Ordering::SeqCst);
        }
        self.publication.store(Arc::new(publication));
    }

    /// A snapshot's install begins, before its first write. If one has begun and found its file lost, it may have
    /// written a part: this one takes its place.
    pub fn install_begins(&self) {
        if self.installs.load(Ordering::SeqCst).is_multiple_of(2) {
            self.installs.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// All that it writes is visible.
    pub fn install_ended(&self) {
        let before = self.installs.fetch_add(1, Ordering::SeqCst);
        assert!(!before.is_multiple_of(2), "it has begun");
    }

    /// Reads at this timestamp, in the version that is published, need nothing that is not visible.
    pub fn raise_safe_ts(&self, safe_ts: u64) {
        self.safe_ts.fetch_max(safe_ts, Ordering::SeqCst);
    }

    /// Nothing is known of what may be read.
    pub fn reset_safe_ts(&self) {
        self.safe_ts.store(0, Ordering::SeqCst);
    }

    /// Takes a view that holds the region's data as of one applied index, unless a snapshot is being installed.
    fn take_whole<V>(&self, take: impl FnOnce() -> V) -> Option<V> {
        let installs = self.installs_if_whole()?;
        let view = take();
        self.is_whole_since(installs).then_some(view)
    }

    /// The count of installs, unless one is in progress.
    fn installs_if_whole(&self) -> Option<u64> {
        Some(self.installs.load(Ordering::SeqCst)).filter(|installs| installs.is_multiple_of(2))
    }

    /// Whether none has begun since it was this.
    fn is_whole_since(&self, installs: u64) -> bool {
        self.installs.load(Ordering::SeqCst) == installs
    }

    /// Sets the end of the lease of the present publication; `None` clears it.
    pub fn set_lease(&self, until: Option<Duration>) {
        assert!(until.is_none() || self.publication.load().readable, "a lease belongs to a leader that is readable");
        let until_ns = until.map_or(0, |until| u64::try_from(until.as_nanos()).unwrap_or(u64::MAX));
        self.lease_until_ns.store(until_ns, Ordering::SeqCst);
    }
}

/// Why a view may not be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadRefusal {
    /// The request does not belong to this replica.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// This replica leads but has no lease now: a [`crate::Event::ReadBarrier`] decides.
    #[error("no lease; a read barrier is needed")]
    NoLease,
}

/// A view that may be served, and what it is a view of.
#[derive(Clone, Debug)]
pub struct Readable<V> {
    /// What `take` returned.
    pub view: V,
    /// The region as it was when the view was taken: keys are checked against it.
    pub region: Arc<Region>,
    /// The term in which this replica leads it.
    pub term: u64,
}

/// The regions of a store, for any thread.
#[derive(Debug, Default)]
pub struct Readers {
    slots: ArcSwap<BTreeMap<RegionId, Arc<Slot>>>,
    /// Added, and not shown yet: each change of `slots` copies it.
    added: Mutex<BTreeMap<RegionId, Arc<Slot>>>,
    /// Regions that were read at timestamps since the store last asked.
    read_at: Mutex<BTreeSet<RegionId>>,
    /// Stores that are probably dead: they are not named as leaders.
    silent: ArcSwap<BTreeSet<StoreId>>,
    /// A planted bug: see [`crate::planted::Planted::read_without_lease`].
    without_lease: bool,
    /// A planted bug: see [`crate::planted::Planted::barrier_before_apply`].
    barrier_before_apply: bool,
}

impl Readers {
    pub(crate) fn new(planted: crate::planted::Planted) -> Readers {
        Readers {
            slots: ArcSwap::default(),
            added: Mutex::default(),
            read_at: Mutex::default(),
            silent: ArcSwap::default(),
            without_lease: planted.read_without_lease,
            barrier_before_apply: planted.barrier_before_apply,
        }
    }

    /// A planted bug: the term in which this replica leads, without regard to what it has applied. `None` unless it is
    /// planted.
    pub fn term_before_apply(&self, region: RegionId) -> Option<u64> {
        let publication = self.slots.load().get(&region)?.publication.load_full();
        Some(publication.term).filter(|_| self.barrier_before_apply && publication.leads)
    }

    /// Takes a view with `take` and returns it if it is fresh: it holds everything that was acknowledged before the
    /// call. `now` reads the clock whose times [`crate::Store::handle`] is given.
    pub fn read<V>(
        &self,
        region: RegionId,
        epoch: Epoch,
        now: impl FnOnce() -> Duration,
        take: impl FnOnce() -> V,
    ) -> Result<Readable<V>, ReadRefusal> {
        let slot = self.slots.load().get(&region).cloned().ok_or(RegionError::RegionNotFound { region })?;
        let before = slot.publication.load_full();
        if !before.leads {
            return Err(RegionError::NotLeader { region, leader: self.likely(before.leader) }.into());
        }
        RegionError::check_epoch(&before.region, epoch)?;
        slot.note_read();
        if !before.readable {
            return Err(ReadRefusal::NoLease);
        }
        let view = take();
        let now = now();
        let until = Duration::from_nanos(slot.lease_until_ns.load(Ordering::SeqCst));
        let after = slot.publication.load();
        if (!Arc::ptr_eq(&before, &after) || now >= until) && !self.without_lease {
            return Err(ReadRefusal::NoLease);
        }
        Ok(Readable { view, region: before.region.clone(), term: before.term })
    }

    /// Whether a read of the region could be served by lease at `now`. To serve one, use [`Readers::read`].
    pub fn holds_lease(&self, region: RegionId, now: Duration) -> bool {
        self.slots.load().get(&region).is_some_and(|slot| {
            slot.publication.load().readable && now < Duration::from_nanos(slot.lease_until_ns.load(Ordering::SeqCst))
        })
    }

    /// A request for the region came: if it hibernates and its leader is gone, it wakes up before others.
    pub fn note_request(&self, region: RegionId) {
        if let Some(slot) = self.slots.load().get(&region) {
            slot.note_read();
        }
    }

    /// The region's descriptor here, and its leader as far as this replica knows; `None` also if that store is probably
    /// dead.
    pub fn region(&self, region: RegionId) -> Option<(Arc<Region>, Option<Peer>)> {
        let publication = self.slots.load().get(&region)?.publication.load_full();
        Some((publication.region.clone(), self.likely(publication.leader)))
    }

    /// Takes a view with `take` and returns it if it holds the region's data as of one applied index: the replica is
    /// here before and after, and no snapshot is being installed. With it the descriptor, as of after the view.
    pub fn view_of_replica<V>(&self, region: RegionId, take: impl FnOnce() -> V) -> Option<(V, Arc<Region>)> {
        let slot = self.slots.load().get(&region).cloned()?;
        let view = slot.take_whole(take)?;
        // A replica that ends is hidden before its data are deleted.
        let is_here = self.slots.load().get(&region).is_some_and(|now| Arc::ptr_eq(now, &slot));
        is_here.then(|| (view, slot.publication.load().region.clone()))
    }

    /// Takes a view with `take` for a read at `ts`, at the replica on this store whether it leads or not, and returns
    /// it with the descriptor: it holds all that is ever committed at or below `ts`. Otherwise
    /// [`RegionError::DataIsNotReady`]; the read is counted as one that wants the safe timestamp to be advanced.
    pub fn read_at<V>(
        &self,
        own: StoreId,
        region: RegionId,
        epoch: Epoch,
        ts: u64,
        take: impl FnOnce() -> V,
    ) -> Result<(V, Arc<Region>), RegionError> {
        let slot = self.slots.load().get(&region).cloned().ok_or(RegionError::RegionNotFound { region })?;
        let before = slot.publication.load_full();
        RegionError::check_epoch(&before.region, epoch)?;
        if !slot.was_read_at.swap(true, Ordering::Relaxed) {
            self.read_at.lock().insert(region);
        }
        let safe_ts = slot.safe_ts.load(Ordering::SeqCst);
        let peer = before.region.peer_on(own).map_or(PeerId(0), |peer| peer.id);
        let not_ready = |safe_ts| RegionError::DataIsNotReady { region, peer, safe_ts };
        if safe_ts == 0 || ts > safe_ts {
            return Err(not_ready(safe_ts));
        }
        let (view, now) = self.view_of_replica(region, take).ok_or_else(|| not_ready(0))?;
        // Versions only grow: with the same one before and after, the safe timestamp was of that version.
        RegionError::check_epoch(&now, epoch)?;
        Ok((view, now))
    }

    /// The regions that were read at timestamps since the last call, with their safe timestamps.
    pub(crate) fn take_stale_reads(&self) -> BTreeMap<RegionId, u64> {
        let read = std::mem::take(&mut *self.read_at.lock());
        let slots = self.slots.load();
        let known = read.into_iter().filter_map(|region| slots.get(&region).map(|slot| (region, slot)));
        let take = |(region, slot): (RegionId, &Arc<Slot>)| {
            slot.was_read_at.store(false, Ordering::Relaxed);
            (region, slot.safe_ts.load(Ordering::SeqCst))
        };
        known.map(take).collect()
    }

    /// The lowest safe timestamp of the data regions here with keys in a range (an empty end is unbounded), of those
    /// that have one.
    pub fn safe_ts(&self, start: &[u8], end: &[u8]) -> Option<u64> {
        let slots = self.slots.load();
        let safe_ts = |slot: &Arc<Slot>| {
            let region = slot.publication.load().region.clone();
            let overlaps = (end.is_empty() || region.start_key[..] < *end)
                && (region.end_key.is_empty() || *start < region.end_key[..]);
            let safe_ts = slot.safe_ts.load(Ordering::SeqCst);
            Some(safe_ts).filter(|safe_ts| overlaps && region.space == Space::Data && *safe_ts != 0)
        };
        slots.values().filter_map(safe_ts).min()
    }

    /// All regions with a replica here, by id, each with its leader as far as this replica knows.
    pub fn regions(&self) -> Vec<(Arc<Region>, Option<Peer>)> {
        let slots = self.slots.load();
        slots
            .values()
            .map(|slot| slot.publication.load_full())
            .map(|p| (p.region.clone(), self.likely(p.leader)))
            .collect()
    }

    /// Takes a view, and returns it with the descriptors, as of before it, of the regions of which it holds the data as
    /// of one applied index: no snapshot of them is being installed, and their replicas have not ended.
    pub fn view_of_whole<V>(&self, take: impl FnOnce() -> V) -> (V, Vec<Arc<Region>>) {
        let slots = self.slots.load_full();
        let whole = slots.iter().filter_map(|(id, slot)| Some((id, slot, slot.installs_if_whole()?)));
        let before: Vec<_> =
            whole.map(|(id, slot, installs)| (id, slot, installs, slot.publication.load().region.clone())).collect();
        let view = take();
        let now = self.slots.load();
        let is_whole = |id: &RegionId, slot: &Arc<Slot>, installs: u64| {
            let is_here = now.get(id).is_some_and(|now| Arc::ptr_eq(now, slot));
            is_here && slot.is_whole_since(installs)
        };
        let whole = before.into_iter().filter(|(id, slot, installs, _)| is_whole(id, slot, *installs));
        (view, whole.map(|(.., region)| region).collect())
    }

    /// Replaces the set of stores that are probably dead.
    pub(crate) fn set_silent(&self, silent: BTreeSet<StoreId>) {
        self.silent.store(Arc::new(silent));
    }

    /// A leader, unless its store is probably dead.
    fn likely(&self, leader: Option<Peer>) -> Option<Peer> {
        leader.filter(|leader| !self.silent.load().contains(&leader.store))
    }

    /// The number of regions with a replica here.
    pub fn count(&self) -> usize {
        self.slots.load().len()
    }

    /// Adds a region, which readers see after the next [`Readers::show_added`]; returns its slot.
    pub(crate) fn add(&self, publication: Publication) -> Arc<Slot> {
        let id = publication.region.id;
        let slot = Arc::new(Slot {
            publication: ArcSwap::from_pointee(publication),
            lease_until_ns: AtomicU64::new(0),
            was_read: AtomicBool::new(false),
            installs: AtomicU64::new(0),
            safe_ts: AtomicU64::new(0),
            was_read_at: AtomicBool::new(false),
        });
        let is_new = self.added.lock().insert(id, slot.clone()).is_none() && !self.slots.load().contains_key(&id);
        assert!(is_new, "a region has one slot");
        slot
    }

    /// Shows the regions that were added.
    pub(crate) fn show_added(&self) {
        let mut added = self.added.lock();
        if !added.is_empty() {
            let mut slots = BTreeMap::clone(&self.slots.load());
            slots.append(&mut added);
            self.slots.store(Arc::new(slots));
        }
    }

    /// Hides a region, if it is there: its replica was removed.
    pub(crate) fn remove(&self, region: RegionId) {
        self.show_added();
        if self.slots.load().contains_key(&region) {
            let mut slots = BTreeMap::clone(&self.slots.load());
            slots.remove(&region);
            self.slots.store(Arc::new(slots));
        }
    }
}

#[cfg(test)]
#[path = "readers_test.rs"]
mod tests;
