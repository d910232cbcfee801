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
use crate::region::{Epoch, Peer, Region, RegionId, StoreId};
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
    /// A snapshot is being installed: views of the region hold a part of it.
    installs: AtomicBool,
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
        self.publication.store(Arc::new(publication));
    }

    /// A snapshot's install begins, before its first write, or has ended.
    pub fn set_installs(&self, installs: bool) {
        self.installs.store(installs, Ordering::SeqCst);
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

    /// The region's descriptor here, if a view that was taken before this call holds its data as of one applied index:
    /// the replica is still here, and no snapshot is being installed.
    pub fn region_of_view(&self, region: RegionId) -> Option<Arc<Region>> {
        let slot = self.slots.load().get(&region).cloned()?;
        let is_whole = !slot.installs.load(Ordering::SeqCst);
        is_whole.then(|| slot.publication.load().region.clone())
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
            installs: AtomicBool::new(false),
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
