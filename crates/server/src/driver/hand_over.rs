//! Before the process ends: the leadership of the regions that this node leads goes to other nodes, so that clients
//! need not wait for elections. raftstore does it (`peer/leader_transfer.rs` there); here it is asked to, and those who
//! wait are notified.

use super::Driver;
use super::inbox::Reply;
use kontiki_placement::Now;
use kontiki_raftstore::Event;
use std::sync::atomic::Ordering;

impl Driver {
    /// From now on this node leads only what no other node can.
    pub(super) fn stop_leading(&mut self, reply: Reply<()>, now: Now) {
        self.shared.stops_leading.store(true, Ordering::Relaxed);
        self.store.handle(Event::StopLeading, now.monotonic);
        self.waiting_for_hand_over.push(reply);
    }

    /// Notifies those who wait, if nothing is left to hand over. On ticks: it looks at every region.
    pub(super) fn tend_hand_over(&mut self) {
        if !self.waiting_for_hand_over.is_empty() && self.store.leaderships_to_hand_over() == 0 {
            self.waiting_for_hand_over.drain(..).for_each(|reply| reply.send(Ok(())));
        }
    }
}
