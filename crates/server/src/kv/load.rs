//! Reports what was served of a region, from which splits by load follow (docs/internals/split.md, "By load").
//!
//! A request for several keys counts as one for each of them: that is the work it causes, and a split divides it. A
//! scan is one request, from the first key that it found to the last: a boundary between them would make it two.
//! Requests that were refused, range deletes, and what rolls back, scans or resolves locks are not counted.

use super::Kv;
use super::route::KeySpace;
use crate::api::Node;
use crate::driver::Sample;
use kontiki_proto::kvrpcpb::{Context, KvPair};
use kontiki_raftstore::RegionId;
use kontiki_txn::memcomparable_encode;

impl<N: Node> Kv<N> {
    /// Requests for single keys were served.
    pub(super) fn served_keys<K>(
        &self,
        context: &Option<Context>,
        space: KeySpace,
        keys: &[K],
        key: impl Fn(&K) -> &[u8],
        bytes: usize,
    ) {
        let mut sample = |index: u64| {
            let at = usize::try_from(index).ok().and_then(|index| keys.get(index));
            sample(space, at.map_or(&[], &key), at.map_or(&[], &key))
        };
        self.served(context, keys.len(), bytes, &mut sample);
    }

    /// A scan from `start` on was served, which found these.
    pub(super) fn served_scan(&self, context: &Option<Context>, space: KeySpace, start: &[u8], found: &[KvPair]) {
        let one = found.first().map_or(start, |pair| &pair.key);
        let other = found.last().map_or(start, |pair| &pair.key);
        self.served(context, 1, bytes_of(found), &mut |_| sample(space, one, other));
    }

    fn served(&self, context: &Option<Context>, requests: usize, bytes: usize, sample: &mut dyn FnMut(u64) -> Sample) {
        let Some(context) = context.as_ref().filter(|_| requests > 0) else { return };
        self.node.served(RegionId(context.region_id), requests as u64, bytes as u64, sample);
    }
}

/// Bytes of keys and values.
pub(super) fn bytes_of(pairs: &[KvPair]) -> usize {
    pairs.iter().map(|pair| pair.key.len() + pair.value.len()).sum()
}

fn sample(space: KeySpace, one: &[u8], other: &[u8]) -> Sample {
    match space {
        KeySpace::Raw => Sample::raw(one, other),
        KeySpace::Txn => Sample::encoded(&memcomparable_encode(one), &memcomparable_encode(other)),
    }
}

#[cfg(test)]
#[path = "load_test.rs"]
mod tests;
