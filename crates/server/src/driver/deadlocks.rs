//! Deadlocks among the transactions of all stores.
//!
//! The leader of the placement group has the graph of who waits for whom ([`WaitGraph`]): every node knows how to reach
//! it. A node reports a wait when it begins and when it ends, and is answered only if the wait closes a circle.
//! Everything may be lost: a wait ends by its time limit in any case, and then its client asks again; a wait whose end
//! was not reported expires. So a change of the leader costs at most the circles that closed around that moment, each
//! one for the time of a wait.
//!
//! *Rejected:* the leader of the first region of the data, where TiKV has it: nodes without a replica of it would have
//! to look it up. *Rejected:* an acknowledgement of each report, and repetitions: they would last longer than the wait.

use super::Driver;
use super::calls::placement_member;
use super::message::{Body, CircleFound, Wait, encode};
use super::{Outbound, PLACEMENT_REGION};
use futures::channel::oneshot;
use kontiki_placement::Now;
use kontiki_raftstore::StoreId;
use kontiki_txn::{EDGE_AGE_MAX, TimeStamp, WaitFor, WaitGraph};
use std::collections::BTreeMap;
use std::time::Duration;

/// Forwards a report once: a node that thinks it knows the leader better than the one that reports.
const HOPS_MAX: u32 = 1;

struct Asked {
    found: oneshot::Sender<Vec<WaitFor>>,
    until: Duration,
}

/// The graph, if this node leads the placement group; and the waits of this node that were reported to another one.
#[derive(Default)]
pub(super) struct Deadlocks {
    graph: WaitGraph,
    /// By the number in the report. As many as requests wait on this node, which is bounded there.
    asked: BTreeMap<u64, Asked>,
    /// Numbers begin at a random one: a circle that an earlier process of this node asked for may still be on its way.
    last_number: u64,
}

impl Deadlocks {
    pub(super) fn new(random: u64) -> Deadlocks {
        Deadlocks { last_number: random >> 1, ..Deadlocks::default() }
    }
}

impl Driver {
    /// A transaction of this node waits; `found` gets the circle that this closes, if any.
    pub(super) fn wait_begins(&mut self, wait: WaitFor, found: oneshot::Sender<Vec<WaitFor>>, now: Now) {
        if self.shared.leads(PLACEMENT_REGION) {
            if let Some(chain) = self.deadlocks.graph.add(wait, now.monotonic) {
                let _ = found.send(chain); // The request may have ended.
            }
            return;
        }
        self.deadlocks.last_number += 1;
        let number = self.deadlocks.last_number;
        self.deadlocks.asked.insert(number, Asked { found, until: now.monotonic + EDGE_AGE_MAX });
        self.report(wire(wait, number, false));
    }

    /// It waits no more.
    pub(super) fn wait_ends(&mut self, wait: WaitFor) {
        if self.shared.leads(PLACEMENT_REGION) {
            self.deadlocks.graph.remove(&wait);
        } else {
            self.report(wire(wait, 0, true));
        }
    }

    fn report(&mut self, wait: Wait) {
        let wait = Wait { store: self.shared.store_id.0, ..wait };
        if let Some(to) = placement_member(self, wait.number) {
            self.outbound.push(Outbound::Message { to, bytes: encode(Body::Wait(wait)) });
        }
    }

    /// Another node reports.
    pub(super) fn wait_reported(&mut self, wait: Wait, now: Now) {
        if !self.shared.leads(PLACEMENT_REGION) {
            let leader = self.shared.readers.region(PLACEMENT_REGION).and_then(|(_, leader)| leader);
            let leader = leader.map(|peer| peer.store).filter(|store| *store != self.shared.store_id);
            if let Some(to) = leader.filter(|_| wait.hops < HOPS_MAX) {
                let wait = Wait { hops: wait.hops + 1, ..wait };
                self.outbound.push(Outbound::Message { to, bytes: encode(Body::Wait(wait)) });
            }
            return;
        }
        let Wait { number, store, has_ended, .. } = wait;
        let edge = edge(wait);
        if has_ended {
            return self.deadlocks.graph.remove(&edge);
        }
        if let Some(chain) = self.deadlocks.graph.add(edge, now.monotonic) {
            let chain = chain.into_iter().map(|wait| wire(wait, 0, false)).collect();
            let bytes = encode(Body::CircleFound(CircleFound { number, chain }));
            self.outbound.push(Outbound::Message { to: StoreId(store), bytes });
        }
    }

    /// A wait of this node closes a circle.
    pub(super) fn circle_found(&mut self, circle: CircleFound) {
        if let Some(asked) = self.deadlocks.asked.remove(&circle.number) {
            let _ = asked.found.send(circle.chain.into_iter().map(edge).collect()); // It may have ended.
        }
    }

    /// On ticks: forgets waits that have ended, or been answered by no one.
    pub(super) fn tend_deadlocks(&mut self, now: Now) {
        let is_open = |asked: &Asked| !asked.found.is_canceled() && now.monotonic < asked.until;
        self.deadlocks.asked.retain(|_, asked| is_open(asked));
    }

    /// This node leads the placement group from now on: what it knew when it did so before is not true any more.
    pub(super) fn begin_detection(&mut self) {
        self.deadlocks.graph.clear();
    }
}

fn wire(wait: WaitFor, number: u64, has_ended: bool) -> Wait {
    let (waiter, holder) = (wait.waiter.0, wait.holder.0);
    Wait { number, store: 0, waiter, holder, key: wait.key, has_ended, hops: 0 }
}

fn edge(wait: Wait) -> WaitFor {
    WaitFor { waiter: TimeStamp(wait.waiter), holder: TimeStamp(wait.holder), key: wait.key }
}
