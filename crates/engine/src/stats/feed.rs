//! The change feed.

use super::Stats;
use super::metric::Subsystem;
use super::metric::Unit::{Bytes, None as No};

impl Stats {
    pub(super) fn describe_feed(&self, subsystem: &mut Subsystem<'_>) {
        let feed = &self.feed;
        subsystem.gauge("subscribers", No, "Open subscriptions to changes", feed.subscribers);
        subsystem.gauge("lag", No, "Sequence numbers that the slowest subscriber is behind", feed.lag_sequences);
        subsystem.gauge("lag", Bytes, "Bytes of the log that it has yet to read", feed.lag_bytes);
        subsystem.gauge("oldest_sequence", No, "Every logged batch from this one on can be read", feed.oldest_sequence);
        subsystem.counter("batches", No, "Batches given to subscribers", feed.batches);
        subsystem.counter("given", Bytes, "Bytes of these batches, values included", feed.batch_bytes);
        subsystem.counter("cut_off", No, "Times that a subscriber needed batches that were deleted", feed.cut_off);
    }
}
