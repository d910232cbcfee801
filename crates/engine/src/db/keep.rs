//! What the database retains for subscribers of the change feed.

use super::core::Core;
use crate::SequenceNumber;
use crate::log::SegmentFacts;

impl Core {
    /// Subscribers may need the values of every batch above this number: `u64::MAX` if nothing is retained for them.
    pub(super) fn feed_keeps_after(&self) -> SequenceNumber {
        if self.options.feed_retention_bytes == 0 { u64::MAX } else { self.segments.deleted_through() }
    }

    /// For each log segment what its retention for subscribers costs: its bytes, and those of the value segments whose
    /// last batch it has, since they cannot be collected before it is deleted.
    pub(super) fn feed_bytes(&self, segments: &[SegmentFacts]) -> Vec<u64> {
        let mut costs: Vec<u64> = segments.iter().map(|facts| facts.bytes).collect();
        if self.options.feed_retention_bytes == 0 {
            return costs;
        }
        let version = self.context.versions.current();
        for (file, bound) in self.context.values.bounds() {
            let Some(bytes) = version.values().files().get(&file).and_then(|state| state.sealed_bytes()) else {
                continue;
            };
            if bound <= self.segments.deleted_through() {
                continue;
            }
            // The last segment that begins at or below the bound; segments without batches have no beginning.
            let has_it = |facts: &SegmentFacts| facts.first_sequence > 0 && facts.first_sequence <= bound;
            if let Some(at) = segments.iter().rposition(has_it) {
                costs[at] = costs[at].saturating_add(bytes);
            }
        }
        costs
    }
}
