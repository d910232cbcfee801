//! The safe point of garbage collection on its way from placement to the regions (docs/internals/gc.md).
//!
//! Every store asks placement for it. Each leader puts it into the logs of its regions, as part of their descriptors:
//! so it has a place among the writes of a region, and a replica that has the region's data also knows which versions
//! may be missing in them. Then a job of the store has tables compacted where versions are dead
//! ([`super::gc_collector`]).

use super::calls::Origin;
use super::{Driver, PLACEMENT_REGION, Pending};
use kontiki_placement::{Command as Ask, GcSafePoint, LOGICAL_BITS, Now, Outcome, Request, Response};
use kontiki_raftstore::command::{Action, Command};
use kontiki_raftstore::{Event, RegionId};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

/// How often placement is asked: a small part of any life time of versions.
const ASK_INTERVAL: Duration = Duration::from_secs(5);
/// How long after a start it is first asked.
const SOON: Duration = Duration::from_secs(1);
/// How often regions are looked at that lack the safe point.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How many regions that are led here are looked at each time, in turn.
const LOOKED_AT_MAX: usize = 1_024;
/// How many of them get it at a time, in turn: each costs a log entry and a synced write.
const PROPOSALS_MAX: usize = 64;

/// The driver's side of garbage collection.
pub(super) struct Gc {
    /// The newest that placement has answered.
    safe_point: u64,
    ask_at: Duration,
    look_at: Duration,
    /// What was put into the logs of the regions that this node leads, since it leads them: no write that was made of
    /// a view with an earlier one follows it there.
    proposed: BTreeMap<RegionId, Proposed>,
    /// The last region that was looked at.
    turn: RegionId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proposed {
    safe_point: u64,
    /// It is not known yet whether it is applied.
    is_pending: bool,
}

impl Gc {
    pub(super) fn new(now: Duration) -> Gc {
        let (ask_at, look_at) = (now + SOON, now + SOON);
        Gc { safe_point: 0, ask_at, look_at, proposed: BTreeMap::new(), turn: RegionId(0) }
    }

    /// Whether a safe point above that of a view is in the region's log, or may be.
    fn has_passed(&self, region: RegionId, of_view: u64) -> bool {
        self.proposed.get(&region).is_some_and(|proposed| proposed.safe_point > of_view)
    }

    /// Proposals of a leadership that has ended are followed by no write of it.
    pub(super) fn leads_no_more(&mut self, region: RegionId) {
        self.proposed.remove(&region);
    }
}

impl Driver {
    pub(super) fn tend_gc(&mut self, now: Now) {
        if now.monotonic >= self.gc.ask_at {
            self.gc.ask_at = now.monotonic + ASK_INTERVAL;
            let request = Request::from(Ask::GcSafePoint(GcSafePoint {}));
            self.start_call(Origin::GcSafePoint, request, now.monotonic + ASK_INTERVAL, now);
        }
        if now.monotonic >= self.gc.look_at && self.gc.safe_point != 0 {
            self.gc.look_at = now.monotonic + LOOK_INTERVAL;
            let age_ms = now.wall_ms.saturating_sub(self.gc.safe_point >> LOGICAL_BITS);
            self.shared.counters.gc_safe_point_age_ms.set(age_ms);
            self.propose_safe_points(now);
            self.gc_collector.look(now.monotonic);
        }
    }

    /// Placement has answered, or did not in time.
    pub(super) fn gc_answered(&mut self, response: Option<Response>) {
        if let Some(Outcome::SafePoint(point)) = response.and_then(|response| response.outcome) {
            self.gc.safe_point = self.gc.safe_point.max(point.safe_point);
            self.shared.counters.gc_safe_point.set(self.gc.safe_point);
        }
    }

    fn propose_safe_points(&mut self, now: Now) {
        let safe_point = self.gc.safe_point;
        let led: Vec<RegionId> = {
            let terms = self.shared.leader_terms.lock();
            let later = terms.range((Bound::Excluded(self.gc.turn), Bound::Unbounded));
            later.chain(terms.range(..=self.gc.turn)).map(|(region, _)| *region).take(LOOKED_AT_MAX).collect()
        };
        let mut left = PROPOSALS_MAX;
        for region in led.into_iter().filter(|region| *region != PLACEMENT_REGION) {
            if left == 0 {
                break;
            }
            self.gc.turn = region;
            let Some((descriptor, _)) = self.shared.readers.region(region) else { continue };
            let is_due = descriptor.gc_safe_point < safe_point && descriptor.merging().is_none();
            if !is_due || self.gc.proposed.get(&region).is_some_and(|proposed| proposed.is_pending) {
                continue;
            }
            left -= 1;
            self.gc.proposed.insert(region, Proposed { safe_point, is_pending: true });
            let ticket = self.pending.add(Pending::GcSafePoint { region, safe_point });
            let command = Command { epoch: descriptor.epoch, action: Action::SetGcSafePoint(safe_point) };
            self.store.handle(Event::Command { region, command, ticket }, now.monotonic);
        }
    }

    /// A region's safe point was raised, or was not: then it is tried again.
    pub(super) fn gc_proposal_ended(&mut self, region: RegionId, safe_point: u64, is_applied: bool) {
        let pending = Proposed { safe_point, is_pending: true };
        if self.gc.proposed.get(&region) != Some(&pending) {
            return; // Of an earlier leadership.
        }
        if is_applied {
            // Kept: the view of a write that comes now may be older.
            self.gc.proposed.insert(region, Proposed { is_pending: false, ..pending });
        } else {
            self.gc.proposed.remove(&region);
        }
    }

    /// Whether a write depends on a view in which versions are missing no more that may be missing elsewhere when the
    /// write is applied.
    pub(super) fn is_older_than_safe_point(&self, region: RegionId, of_view: u64) -> bool {
        let published = self.shared.readers.region(region).map_or(0, |(region, _)| region.gc_safe_point);
        published > of_view || self.gc.has_passed(region, of_view)
    }
}
