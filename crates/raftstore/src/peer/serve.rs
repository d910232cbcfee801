//! The sending side of snapshots: take an engine view when a follower needs one, stream from it, release it.
//!
//! Nothing is written to this store's disk: a view is taken in microseconds and read while it is sent. One view serves
//! every follower until the log is truncated past it or no follower has asked for a while.
//!
//! *The log is retained* from the order to take the view until the follower has caught up ([`Serving::lowest_in_use`]):
//! a follower that receives a snapshot and then finds that the log begins above it needs another one, and under a
//! steady load yet another, without end. The retention is bounded in space by [`crate::Config::snapshot_log_bytes_max`]
//! and [`crate::Config::stored_bytes_max`], and in time: the transport ends a send that makes no progress, and the
//! retention for a follower whose log makes no progress ends, too. After a failed send to a store, or while its disk
//! cannot be written, no view is taken for it for a while.

use super::Peer;
use crate::consensus::wire::SnapshotInfo;
use crate::effect::{SnapshotTask, ViewId};
use crate::outbox::Outbox;
use crate::region::{self, PeerId, StoreId};
use crate::snapshot::SnapshotHead;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// Backoff in ticks after the first failed send to a store; doubled with each further failure.
const RETRY_TICKS: u64 = 5;
/// The maximum number of doublings: with ticks of 100 ms, half a minute.
const RETRY_DOUBLINGS_MAX: u32 = 6;

#[derive(Default)]
pub(super) struct Serving {
    /// A view that was requested, and the minimum index that it will contain.
    preparing: Option<(ViewId, u64)>,
    /// On offer to followers.
    current: Option<(ViewId, Box<SnapshotHead>)>,
    sends: BTreeMap<ViewId, Sends>,
    /// Followers that have a snapshot but not yet the entries after it.
    catching_up: BTreeMap<PeerId, CatchUp>,
    failures: BTreeMap<PeerId, Failures>,
    idle_ticks: u64,
}

/// A send from a view.
struct Sends {
    index: u64,
    to: BTreeMap<StoreId, PeerId>,
}

struct CatchUp {
    /// The follower's log is known through here, by the snapshot or by its own messages.
    through: u64,
    /// When that last changed.
    since_tick: u64,
    /// It has confirmed the snapshot.
    is_confirmed: bool,
}

/// Consecutive failed sends to a follower.
struct Failures {
    count: u32,
    retry_tick: u64,
}

impl Serving {
    /// The indices from which the log is retained: each follower that is catching up by a snapshot will need the
    /// entries above one of them.
    fn holds(&self) -> impl Iterator<Item = u64> + '_ {
        let preparing = self.preparing.iter().map(|(_, index)| *index);
        let current = self.current.iter().map(|(_, head)| head.id.index);
        let sends = self.sends.values().map(|sends| sends.index);
        let catching_up = self.catching_up.values().map(|state| state.through);
        preparing.chain(current).chain(sends).chain(catching_up)
    }

    /// The lowest index from which a follower needs the log. An index below the log's beginning does not count: that
    /// follower needs another snapshot.
    pub fn lowest_in_use(&self, truncated: u64) -> Option<u64> {
        self.holds().filter(|index| *index >= truncated).min()
    }

    /// The number of followers that catch up from indices in the range, by a send or by themselves.
    fn followers_from(&self, range: Range<u64>) -> usize {
        let sends = self.sends.values().filter(|sends| range.contains(&sends.index)).map(|sends| sends.to.len());
        sends.sum::<usize>() + self.catching_up.values().filter(|state| range.contains(&state.through)).count()
    }

    /// Whether no follower needs or gets a snapshot.
    pub fn is_idle(&self) -> bool {
        self.preparing.is_none() && self.current.is_none() && self.sends.is_empty() && self.catching_up.is_empty()
    }

    /// Whether a view is being sent from.
    pub fn is_sending(&self) -> bool {
        !self.sends.is_empty()
    }

    fn failed(&mut self, to: PeerId, tick: u64) {
        let failures = self.failures.entry(to).or_insert(Failures { count: 0, retry_tick: 0 });
        failures.retry_tick = tick + (RETRY_TICKS << failures.count.min(RETRY_DOUBLINGS_MAX));
        failures.count += 1;
    }

    fn pauses(&self, to: PeerId, tick: u64) -> bool {
        self.failures.get(&to).is_some_and(|failures| tick < failures.retry_tick)
    }
}

impl Peer {
    /// Orders a view if the core needed a snapshot and had none.
    pub(super) fn want_snapshot(&mut self, out: &mut Outbox) {
        let Some(to) = self.group.take_snapshot_wanted() else { return };
        let able = self.leading.is_some() && self.serving.preparing.is_none() && !self.waits_for_install();
        if able && self.is_worth_a_snapshot(to, out) {
            let view = out.next_view();
            self.serving.preparing = Some((view, self.applied.index));
            out.snapshots.push(SnapshotTask::Prepare { region: self.region.id, view });
        }
    }

    /// Whether a follower can be expected to accept a snapshot now. Otherwise the core asks again with the follower's
    /// next answer.
    fn is_worth_a_snapshot(&self, to: PeerId, out: &Outbox) -> bool {
        // A store that cannot lead can write no snapshot, or will not be there for its end.
        let is_able = self.address(to).is_none_or(|peer| out.leadership.is_able_elsewhere(peer.store));
        !self.serving.pauses(to, self.ticks) && is_able
    }

    /// A view was taken, or could not be.
    pub fn snapshot_prepared(&mut self, view: ViewId, result: Result<SnapshotHead, String>, out: &mut Outbox) {
        let expected = self.serving.preparing.take_if(|(preparing, _)| *preparing == view);
        let head = match result {
            Ok(head) => head,
            Err(error) => {
                tracing::warn!(region = self.region.id.0, error, "taking a snapshot view failed; it is tried again");
                return;
            }
        };
        // One taken before a split that is handed out holds the range of other regions.
        let is_current = head.region.epoch.version == self.members.epoch.version;
        let reaches = head.id.index >= self.group.truncated().index && is_current;
        let Some((_, at_least)) = expected.filter(|_| self.leading.is_some() && reaches) else {
            return out.snapshots.push(SnapshotTask::Release { view });
        };
        assert!(
            (at_least..=self.group.committed()).contains(&head.id.index) && head.id.region == self.region.id,
            "a view holds what is applied"
        );
        assert!(!self.waits_for_install(), "no snapshot is taken of a half-installed state");
        self.retire(out);
        self.group.offer_snapshot(Some(&head.to_info()), &head.region);
        self.serving.current = Some((view, Box::new(head)));
        self.serving.idle_ticks = 0;
    }

    /// The core addressed a snapshot to a follower.
    pub(super) fn send_snapshot(&mut self, to: region::Peer, info: &SnapshotInfo, message: Bytes, out: &mut Outbox) {
        if self.serving.current.as_ref().is_some_and(|(_, head)| head.region.peer(to.id).is_none()) {
            // Taken before the replica was added: it could not start from a state that does not contain it.
            self.retire(out);
        }
        let offered =
            |(_, head): &&(ViewId, Box<SnapshotHead>)| (head.id.index, head.id.term) == (info.index, info.term);
        match self.serving.current.as_ref().filter(offered).filter(|_| self.is_worth_a_snapshot(to.id, out)) {
            Some((view, head)) => {
                let (view, snapshot) = (*view, head.id);
                let sends =
                    self.serving.sends.entry(view).or_insert(Sends { index: snapshot.index, to: BTreeMap::new() });
                sends.to.insert(to.store, to.id);
                self.serving.catching_up.remove(&to.id);
                let left_out = self.config.planted().snapshot_without;
                out.snapshots.push(SnapshotTask::Send { to: to.store, message, view, snapshot, left_out });
            }
            // Replaced or withdrawn between the core's decision and now, or too early after a failure: it asks again.
            None => self.group.report_snapshot(to.id, false),
        }
    }

    /// A send ended.
    pub fn snapshot_sent(&mut self, to: StoreId, view: ViewId, ok: bool, out: &mut Outbox) {
        let Some(sends) = self.serving.sends.get_mut(&view) else { return };
        let (index, sent_to) = (sends.index, sends.to.remove(&to));
        if sends.to.is_empty() {
            self.serving.sends.remove(&view);
            self.release_unused(view, out);
        }
        let Some(peer) = sent_to.and_then(|id| self.members.peer(id)).filter(|_| self.leads()) else { return };
        if ok {
            self.serving.failures.remove(&peer.id);
            if index >= self.group.truncated().index {
                let state = CatchUp { through: index, since_tick: self.ticks, is_confirmed: false };
                self.serving.catching_up.insert(peer.id, state);
            }
        } else {
            self.serving.failed(peer.id, self.ticks);
        }
        self.group.report_snapshot(peer.id, ok);
    }

    fn release_unused(&self, view: ViewId, out: &mut Outbox) {
        let offered = self.serving.current.as_ref().is_some_and(|(current, _)| *current == view);
        if !offered && !self.serving.sends.contains_key(&view) {
            out.snapshots.push(SnapshotTask::Release { view });
        }
    }

    /// Withdraws the offer.
    pub(super) fn retire(&mut self, out: &mut Outbox) {
        if let Some((view, _)) = self.serving.current.take() {
            self.group.offer_snapshot(None, &self.region);
            self.release_unused(view, out);
        }
    }

    /// A replica that does not lead sends no snapshots. Sends in progress end by themselves.
    pub(super) fn stop_serving(&mut self, out: &mut Outbox) {
        self.retire(out);
        self.serving.preparing = None;
        self.serving.catching_up.clear();
        self.serving.failures.clear();
    }

    pub(super) fn tick_serving(&mut self, now: Duration, out: &mut Outbox) {
        if self.ticks.is_multiple_of(self.config.truncate_ticks) {
            self.tick_catching_up(now);
        }
        if self.serving.current.is_none() || !self.serving.sends.is_empty() {
            self.serving.idle_ticks = 0;
            return;
        }
        self.serving.idle_ticks += 1;
        if self.serving.idle_ticks >= self.config.snapshot_idle_ticks {
            self.retire(out);
        }
    }

    /// Ends the retention of the log for followers that have caught up, or make no progress.
    fn tick_catching_up(&mut self, now: Duration) {
        let mut catching_up = std::mem::take(&mut self.serving.catching_up);
        catching_up.retain(|peer, state| {
            let Some(matched) = self.group.matched(*peer).filter(|_| !self.is_dead(*peer, now)) else { return false };
            if matched > state.through || (matched == state.through && !state.is_confirmed) {
                *state = CatchUp { through: matched, since_tick: self.ticks, is_confirmed: true };
            }
            // Half of what is retained for all followers: the next truncation then finds the follower well within it.
            let is_near = !self.group.has_more_than(self.config.log_bytes_max / 2, state.through);
            let waited = self.ticks - state.since_tick;
            if waited > self.config.snapshot_catch_up_ticks_max {
                let (region, peer) = (self.region.id.0, peer.0);
                tracing::warn!(
                    region,
                    peer,
                    "a follower makes no progress after its snapshot; the log is no longer retained for it"
                );
            }
            !(state.is_confirmed && is_near) && waited <= self.config.snapshot_catch_up_ticks_max
        });
        self.serving.catching_up = catching_up;
    }

    /// The log was truncated. Followers that need some of it after their snapshot will need another one.
    pub(super) fn give_holds_up(&mut self, truncated_before: u64, out: &mut Outbox) {
        let truncated = self.group.truncated().index;
        let lost = self.serving.followers_from(truncated_before..truncated);
        self.serving.catching_up.retain(|_, state| state.through >= truncated);
        if lost > 0 && self.leads() {
            out.memory.abandoned_snapshots += lost as u64;
            let region = self.region.id.0;
            tracing::warn!(
                region,
                "the log outgrew its bound while a snapshot was in flight: the follower will need another one"
            );
        }
        if self.serving.current.as_ref().is_some_and(|(_, head)| head.id.index < truncated) {
            self.retire(out);
        }
    }
}
