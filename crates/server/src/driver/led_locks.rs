//! The locks of the regions that a node leads.

use super::handle::NodeHandle;
use crate::families::TXN_LOCK;
use bytes::Bytes;
use kontiki_engine::{Direction, Range, View};
use kontiki_raftstore::{Region, Space};
use kontiki_txn::{Lock, memcomparable_decode};
use std::sync::Arc;

/// Locks with their user keys, and where to go on.
type Found = (Vec<(Bytes, Lock)>, Bytes);

impl NodeHandle {
    /// Reads at most `locks_max` locks from the encoded key `start` on, and returns those of regions that this node
    /// leads, with their user keys; and where to go on, empty at the end. What it finds may be resolved already: it is
    /// for a look at what may have been left, and ends no hibernation.
    pub fn locks_of_led_regions(&self, start: &Bytes, locks_max: usize) -> kontiki_engine::Result<Found> {
        let led: Vec<Arc<Region>> = self.regions();
        let leads = |key: &[u8]| {
            let of_key = |region: &&Arc<Region>| region.space == Space::Data && region.contains(key);
            led.iter().find(of_key).is_some_and(|region| self.leading_term(region.id).is_some())
        };
        let view = self.state().snapshot();
        let range = Range { start: Some(start.clone()), end: None };
        let mut entries = View::entries(&view, TXN_LOCK, range, Direction::Forward)?;
        let mut found = Vec::new();
        for _ in 0..locks_max {
            let Some((key, value)) = entries.next().transpose()? else { return Ok((found, Bytes::new())) };
            if !leads(&key) {
                continue;
            }
            match (memcomparable_decode(&key), Lock::decode(&value)) {
                (Ok(user_key), Ok(lock)) => found.push((user_key.into(), lock)),
                _ => tracing::error!(key = %key.escape_ascii(), "a lock that cannot be decoded"),
            }
        }
        let next = entries.next().transpose()?.map_or_else(Bytes::new, |(key, _)| key);
        Ok((found, next))
    }
}
