//! Placement calls: those of this node's services and heartbeats, and those that other nodes forward.
//!
//! A call is answered exactly once. Until then it is in one table, in one of four states; `route` moves it:
//!
//! ```text
//!            leads, holds the lease ──> Leading (placement answers)
//!  Unrouted ─leads, no lease ────────> Barrier (one round with a quorum) ──> Leading
//!            another leads ──────────> Forwarded (its answer comes, or we send again)
//!          no node leads ───────────> Unrouted, tried again shortly
//! ```
//! Every answer "not the leader" leads back to Unrouted, until the deadline. A call of another node is not forwarded a
//! second time: it is answered "not the leader", and that node routes it again.
//!
//! Sending again after a missing answer is possible because placement's calls may be executed twice, also while the
//! first execution waits for its write: timestamps and ids are then skipped, and a change that is pending is joined,
//! one that is done is success. A creation of a keyspace carries a nonce for that. Changes of a keyspace's state and
//! of the external timestamp carry none, and are idempotent only if no other caller makes a change between the two
//! executions: after a further change the second execution is refused as one that goes back, although the first one
//! took effect; a state that was set back is set again.
//!
//! Ids of calls start at a random number, so an answer to an earlier process of this node matches no call of this one.

use super::Driver;
use super::error::NodeError;
use super::first_regions::placement_stores;
use super::inbox::Reply;
use super::message::{Body, PlacementCall, PlacementReply, encode};
use super::{Outbound, PLACEMENT_REGION, Pending};
use crate::planted::{self, Bug};
use kontiki_placement::{CallId, Now, Outcome, RefusalCode, Request, Response};
use kontiki_raftstore::{Event, StoreId};
use std::collections::BTreeMap;
use std::time::Duration;

/// Maximum number of waiting calls; above it those of other nodes are dropped (they will be sent again).
const CALLS_MAX: usize = 32 << 10;
/// How long a call waits after "not the leader" or when no node leads. Checked on ticks only.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// How long a forwarded call waits before it is sent again: above a round trip with a synced write, below the retry
/// budget of clients.
const RESEND_AFTER: Duration = Duration::from_millis(400);
/// The longest time for which a call of another node is kept, regardless of its own timeout.
const REMOTE_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// The origin of a call, which waits for the answer.
pub(super) enum Origin {
    /// A service of this node.
    Local(Reply<Response>),
    /// Another node.
    Remote { store: StoreId, id: u64 },
    /// This driver's own heartbeats: no caller waits.
    Own,
    /// The next round of safe timestamps.
    SafeTs,
    /// The GC safe point, for the regions of this node.
    GcSafePoint,
    /// A split of this driver.
    Split(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Unrouted { retry_at: Duration },
    Barrier,
    Leading,
    Forwarded { resend_at: Duration },
}

struct Call {
    origin: Origin,
    request: Request,
    deadline: Duration,
    route: Route,
}

/// The table of waiting calls.
pub(super) struct Calls {
    calls: BTreeMap<u64, Call>,
    next_id: u64,
    /// The member of the placement group that a node outside the group asks next.
    turn: u64,
}

impl Calls {
    pub(super) fn new(first_id: u64) -> Calls {
        // Half of the numbers remain, which is enough for any lifetime.
        Calls { calls: BTreeMap::new(), next_id: first_id >> 1, turn: 0 }
    }
}

/// The leader of the placement group as far as this node knows, or, for a node outside the group, one of its members,
/// another one for each `turn`. `None`: no node leads, or this one.
pub(super) fn placement_member(driver: &Driver, turn: u64) -> Option<StoreId> {
    let own = driver.shared.store_id;
    let member = match driver.shared.readers.region(PLACEMENT_REGION) {
        Some((_, leader)) => leader.map(|peer| peer.store),
        None => {
            let count = placement_stores(&driver.config).count().max(1) as u64;
            placement_stores(&driver.config).nth((turn % count) as usize)
        }
    };
    member.filter(|store| *store != own)
}

impl Driver {
    /// Starts a call.
    pub(super) fn start_call(&mut self, origin: Origin, request: Request, deadline: Duration, now: Now) {
        if !matches!(origin, Origin::Remote { .. }) {
            self.shared.counters.placement_calls.increment();
        } else if self.calls.calls.len() >= CALLS_MAX {
            return;
        }
        let id = self.calls.next_id;
        self.calls.next_id += 1;
        let route = Route::Unrouted { retry_at: now.monotonic };
        self.calls.calls.insert(id, Call { origin, request, deadline, route });
        self.route_call(id, now);
    }

    fn route_call(&mut self, id: u64, now: Now) {
        let Some(call) = self.calls.calls.get_mut(&id) else { return };
        let readers = &self.shared.readers;
        if self.placement.is_leader() {
            // Reads the clock again: this call may have arrived after `now` was read.
            let unchecked = planted::is_set(Bug::PlacementWithoutLease);
            if unchecked || readers.holds_lease(PLACEMENT_REGION, self.env.clock.monotonic()) {
                call.route = Route::Leading;
                self.placement.call(CallId(id), call.request.clone(), now);
                return;
            }
            if let Some((region, _)) = readers.region(PLACEMENT_REGION) {
                call.route = Route::Barrier;
                let ticket = self.pending.add(Pending::CallBarrier(id));
                let event = Event::ReadBarrier { region: PLACEMENT_REGION, epoch: region.epoch, ticket };
                self.store.handle(event, now.monotonic);
                return;
            }
        }
        if matches!(call.origin, Origin::Remote { .. }) {
            self.answer_call(id, None, now);
            return;
        }
        self.calls.turn = self.calls.turn.wrapping_add(1);
        let member = placement_member(self, self.calls.turn);
        let Some(call) = self.calls.calls.get_mut(&id) else { return };
        match member {
            Some(to) => {
                call.route = Route::Forwarded { resend_at: now.monotonic + RESEND_AFTER };
                let timeout = call.deadline.saturating_sub(now.monotonic);
                let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                let body = PlacementCall { id, timeout_ms, request: Some(call.request.clone()) };
                self.outbound.push(Outbound::Message { to, bytes: encode(Body::Call(body)) });
            }
            None => call.route = Route::Unrouted { retry_at: now.monotonic + RETRY_AFTER },
        }
    }

    /// The read barrier of a call ended.
    pub(super) fn call_barrier_ended(&mut self, id: u64, ok: bool, now: Now) {
        let Some(call) = self.calls.calls.get_mut(&id) else { return };
        if call.route != Route::Barrier {
            return;
        }
        if ok && self.placement.is_leader() {
            call.route = Route::Leading;
            self.placement.call(CallId(id), call.request.clone(), now);
        } else {
            self.call_needs_leader(id, now);
        }
    }

    /// Placement answered here.
    pub(super) fn placement_replied(&mut self, id: CallId, response: Response, now: Now) {
        let not_leader = matches!(&response.outcome,
            Some(Outcome::Refused(refusal)) if refusal.code() == RefusalCode::NotLeader);
        if not_leader {
            self.call_needs_leader(id.0, now);
        } else {
            self.answer_call(id.0, Some(response), now);
        }
    }

    /// Another node forwards a call.
    pub(super) fn call_forwarded_here(&mut self, store: StoreId, call: PlacementCall, now: Now) {
        let Some(request) = call.request else {
            self.shared.counters.messages_malformed.increment();
            return;
        };
        self.shared.counters.placement_proxied.increment();
        let timeout = Duration::from_millis(call.timeout_ms).min(REMOTE_TIMEOUT_MAX);
        self.start_call(Origin::Remote { store, id: call.id }, request, now.monotonic + timeout, now);
    }

    /// Another node answered.
    pub(super) fn call_answered_there(&mut self, reply: PlacementReply, now: Now) {
        let Some(call) = self.calls.calls.get(&reply.id) else { return };
        match reply.response {
            // An answer to an earlier sending is valid, too, in any state of the call. Ids are chosen by this node, so
            // only one of its own calls can have been forwarded.
            Some(_) if matches!(call.origin, Origin::Remote { .. }) => {
                self.shared.counters.messages_malformed.increment();
            }
            Some(response) => self.answer_call(reply.id, Some(response), now),
            None if matches!(call.route, Route::Forwarded { .. }) => self.call_needs_leader(reply.id, now),
            None => {}
        }
    }

    /// The node that was asked does not lead: a call of this node waits and is tried again, a call of another node is
    /// returned.
    fn call_needs_leader(&mut self, id: u64, now: Now) {
        let Some(call) = self.calls.calls.get_mut(&id) else { return };
        call.route = Route::Unrouted { retry_at: now.monotonic + RETRY_AFTER };
        if matches!(call.origin, Origin::Remote { .. }) {
            self.answer_call(id, None, now);
        }
    }

    fn answer_call(&mut self, id: u64, response: Option<Response>, now: Now) {
        let Some(call) = self.calls.calls.remove(&id) else { return };
        match (call.origin, response) {
            (Origin::Local(reply), Some(response)) => reply.send(Ok(response)),
            (Origin::Local(reply), None) => reply.send(Err(NodeError::Timeout)),
            (Origin::Remote { store, id }, response) => {
                let bytes = encode(Body::Reply(PlacementReply { id, response }));
                self.outbound.push(Outbound::Message { to: store, bytes });
            }
            (Origin::Split(split), response) => self.split_answered(split, response, now),
            (Origin::GcSafePoint, response) => self.gc_answered(response),
            (Origin::SafeTs, response) => self.begin_safe_ts(response, now),
            (Origin::Own, _) => {}
        }
    }

    /// Deadlines, and calls whose time to try again has come. Called on ticks and when a leader is found.
    pub(super) fn tend_calls(&mut self, now: Now, leader_found: bool) {
        let mut expired = Vec::new();
        let mut due = Vec::new();
        for (id, call) in &self.calls.calls {
            let again = match call.route {
                Route::Unrouted { retry_at } => leader_found || now.monotonic >= retry_at,
                Route::Forwarded { resend_at } => leader_found || now.monotonic >= resend_at,
                Route::Barrier | Route::Leading => false,
            };
            if now.monotonic >= call.deadline {
                expired.push(*id);
            } else if again {
                due.push(*id);
            }
        }
        for id in expired {
            self.shared.counters.placement_timeouts.increment();
            match self.calls.calls.get(&id).map(|call| &call.origin) {
                // The other node has its own deadline and has given up by itself.
                Some(Origin::Remote { .. }) => drop(self.calls.calls.remove(&id)),
                _ => self.answer_call(id, None, now),
            }
        }
        for id in due {
            self.route_call(id, now);
        }
    }

    /// Every waiting call, when the node stops.
    pub(super) fn drop_calls(&mut self) {
        self.calls.calls.clear();
    }
}
