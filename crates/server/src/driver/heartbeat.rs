//! Heartbeats to placement: this store's description and the regions that it leads. They are ordinary placement calls,
//! so they find the leader by themselves; the next heartbeat makes up for a lost one.

use super::calls::Origin;
use super::{Driver, PLACEMENT_REGION};
use kontiki_placement as placement;
use kontiki_placement::{Command, Now, RegionHeartbeat, Request, StoreHeartbeat, StoreStats};
use kontiki_raftstore::{Peer, Region, RegionId, Space};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

/// How often a store reports. Placement loses the reports at a failover, so this also bounds how long its catalogue
/// has gaps.
const STORE_INTERVAL: Duration = Duration::from_secs(5);
/// How often leaders report regions in which nothing changed.
const REGION_INTERVAL: Duration = Duration::from_secs(5);
/// The maximum number of those at a time, in turn: with more regions each is reported less often. That is enough,
/// because placement keeps what it knows.
const REGIONS_PER_INTERVAL_MAX: usize = 200;
/// How long after a start, or after a change of the placement leader, the first reports are sent.
const SOON: Duration = Duration::from_millis(100);

/// When the next heartbeats are due.
pub(super) struct Heartbeats {
    store_at: Duration,
    regions_at: Duration,
    /// Regions that changed.
    changed: BTreeSet<RegionId>,
    /// The last region that was reported although nothing had changed.
    turn: RegionId,
}

impl Heartbeats {
    pub(super) fn new(now: Duration) -> Heartbeats {
        Heartbeats { store_at: now + SOON, regions_at: now + SOON, changed: BTreeSet::new(), turn: RegionId(0) }
    }

    /// A region changed, or its leadership here did.
    pub(super) fn region_changed(&mut self, region: RegionId) {
        self.changed.insert(region);
    }

    /// The regions of `led` whose turn it is.
    fn next_turns(&mut self, led: &BTreeMap<RegionId, u64>) -> Vec<RegionId> {
        let later = led.range((Bound::Excluded(self.turn), Bound::Unbounded));
        let all = later.chain(led.range(..=self.turn)).map(|(region, _)| *region);
        let turns: Vec<_> = all.take(REGIONS_PER_INTERVAL_MAX).collect();
        self.turn = turns.last().copied().unwrap_or(self.turn);
        turns
    }
}

impl Driver {
    /// Another node leads placement now, which knows only the durable state: everything is reported at once.
    pub(super) fn placement_leader_changed(&mut self, now: Duration) {
        self.heartbeats.store_at = self.heartbeats.store_at.min(now);
        self.heartbeats.changed.extend(self.shared.leader_terms.lock().keys());
    }

    /// Sends what is due. Called on ticks and after changes.
    pub(super) fn send_heartbeats(&mut self, now: Now) {
        if now.monotonic >= self.heartbeats.store_at {
            self.heartbeats.store_at = now.monotonic + STORE_INTERVAL;
            let request = self.store_heartbeat();
            self.start_call(Origin::Own, request, now.monotonic + STORE_INTERVAL, now);
        }
        if self.heartbeats.changed.is_empty() && now.monotonic < self.heartbeats.regions_at {
            return;
        }
        let mut due = std::mem::take(&mut self.heartbeats.changed);
        let terms = self.shared.leader_terms.lock();
        if now.monotonic >= self.heartbeats.regions_at {
            self.heartbeats.regions_at = now.monotonic + REGION_INTERVAL;
            due.extend(self.heartbeats.next_turns(&terms));
        }
        let due: Vec<_> = due.into_iter().filter_map(|region| Some((region, *terms.get(&region)?))).collect();
        drop(terms);
        for (region, term) in due {
            if let Some(request) = self.region_heartbeat(region, term) {
                self.start_call(Origin::Own, request, now.monotonic + REGION_INTERVAL, now);
            }
        }
    }

    fn store_heartbeat(&self) -> Request {
        let store = placement::Store {
            id: self.config.store_id,
            address: self.config.address().to_owned(),
            status_address: self.config.status_address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.surveys.space(); // For the next one.
        let available_bytes = self.available_bytes;
        let used_bytes = self.state.stats().disk_bytes;
        let stats = StoreStats {
            // Space that other programs use on the volume is not counted.
            capacity_bytes: used_bytes.saturating_add(available_bytes),
            used_bytes,
            available_bytes,
            region_count: self.shared.readers.count() as u64,
            leader_count: self.shared.leader_terms.lock().len() as u64,
        };
        Command::StoreHeartbeat(StoreHeartbeat { store, stats }).into()
    }

    fn region_heartbeat(&self, region: RegionId, term: u64) -> Option<Request> {
        let (region, _) = self.shared.readers.region(region)?;
        let leader = placement_peer(&region, region.peer_on(self.shared.store_id)?);
        let size = self.region_sizes.size(region.id);
        let heartbeat = RegionHeartbeat {
            region: placement_region(&region),
            leader,
            term,
            approximate_bytes: size.bytes,
            approximate_keys: size.keys,
            down_peers: Vec::new(),
            pending_peers: Vec::new(),
        };
        Some(Command::RegionHeartbeat(heartbeat).into())
    }
}

fn placement_peer(region: &Region, peer: Peer) -> placement::Peer {
    // The numbers of roles are the same everywhere: those of the protocol.
    placement::Peer { id: peer.id.0, store_id: peer.store.0, role: region.role(peer.id) as i32 }
}

/// A region as a placement message.
pub(crate) fn placement_region(region: &Region) -> placement::Region {
    debug_assert_eq!(region.space == Space::System, region.id == PLACEMENT_REGION, "one system region");
    placement::Region {
        id: region.id.0,
        start_key: region.start_key.clone(),
        end_key: region.end_key.clone(),
        epoch: placement::Epoch { conf_ver: region.epoch.conf_version, version: region.epoch.version },
        peers: region.peers.iter().map(|peer| placement_peer(region, *peer)).collect(),
        system: region.space == Space::System,
    }
}
