//! A replica that was removed, until it is destroyed: it answers what waits for it, and does nothing more.

use super::Peer;
use crate::outbox::Outbox;
use crate::region::Absorber;

impl Peer {
    /// Whether a membership change has removed this replica.
    pub fn is_removed(&self) -> bool {
        self.removed
    }

    /// This replica knows that it was removed. No vote or acknowledgement leaves it from now on, and later entries are
    /// not its own.
    pub fn be_removed(&mut self, out: &mut Outbox) {
        self.removed = true;
        if self.leading.is_some() {
            self.step_down(out);
        }
        self.refuse_queue(out);
        self.drop_all_proposals(out);
        self.refuse_reads(out);
        self.refuse_replica_reads(out);
        self.stop_serving(out);
        self.forget_merges();
        self.outstanding.iter_mut().for_each(|outstanding| outstanding.messages.clear());
        self.deferred.clear();
        // If a poll is under way it records the state, with the term of entries that it appends.
        self.state_dirty = true;
    }

    /// Whether nothing of it is in flight (applies, an install, persists, or snapshots from its data), and no restart
    /// needs it.
    pub fn is_quiet(&self) -> bool {
        self.is_still() && !self.waits_for_flush()
    }

    /// Whether nothing of it is in flight.
    pub fn is_still(&self) -> bool {
        let is_idle = self.applies_in_flight == 0 && self.outstanding.is_empty() && !self.serving.is_sending();
        is_idle && !self.is_installing()
    }

    /// Another region has taken its range over, and this replica has missed it: its data are of no use.
    pub fn be_left_over(&mut self, by: Absorber, out: &mut Outbox) {
        (self.left_over, self.merge.absorbed_by) = (Some(by), None);
        self.be_removed(out);
    }

    /// Which region has taken its range over without it.
    pub fn left_over(&self) -> Option<Absorber> {
        self.left_over
    }

    /// The conf_version of the newest descriptor that it knows.
    pub fn conf_version(&self) -> u64 {
        self.region.epoch.conf_version.max(self.members.epoch.conf_version)
    }

    /// Gives its share of the memory budget back.
    pub fn release_memory(&mut self, out: &mut Outbox) {
        assert!(self.is_still() && self.unapplied_bytes == 0, "what it accounted for was given back");
        self.count_nothing(out);
    }
}
