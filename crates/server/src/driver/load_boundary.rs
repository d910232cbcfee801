//! Where a region should be divided so that both parts have a good share of its load: from a sample of its requests.

use super::load_windows::Measure;
use super::served::Sample;
use bytes::Bytes;
use kontiki_raftstore::Region;
use kontiki_raftstore::command::SPLIT_KEY_BYTES_MAX;
use kontiki_txn::boundary_behind;
use std::collections::{BTreeMap, BTreeSet};

/// Fewer samples say nothing: of 32 requests that are divided equally, one part has fewer than [`SHARE_PERCENT_MIN`] in
/// one of 200 samples.
pub(super) const SAMPLES_MIN: usize = 32;
/// Each part's share of the load is at least this: with less, the larger part stays about as loaded as the region was.
const SHARE_PERCENT_MIN: u64 = 25;
/// At most this share of the requests may lie on both sides: each of them becomes two.
const CROSSING_PERCENT_MAX: u64 = 10;
/// A key with at least this share of a load that cannot be divided is the cause.
const ONE_KEY_PERCENT: u64 = 50;

/// What a sample says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Both parts have a good share.
    At(Bytes),
    /// Most of the load is on one key.
    OneKey { key: Bytes, is_raw: bool, percent: u64 },
    /// No boundary divides the load well.
    Nowhere,
}

/// Weights by position: how much lies below a boundary.
struct Below(Vec<(Bytes, u64)>);

impl Below {
    fn new(positions: impl Iterator<Item = (Bytes, u64)>) -> Below {
        let mut positions: Vec<_> = positions.collect();
        positions.sort();
        let mut sum = 0;
        for (_, weight) in &mut positions {
            sum += *weight;
            *weight = sum;
        }
        Below(positions)
    }

    fn of(&self, boundary: &Bytes) -> u64 {
        let count = self.0.partition_point(|(position, _)| position < boundary);
        count.checked_sub(1).and_then(|last| self.0.get(last)).map_or(0, |(_, sum)| *sum)
    }
}

/// Chooses a boundary within the region. Of several, that with the largest share for its smaller part, where what lies
/// on both sides counts for none.
pub(super) fn choose(region: &Region, samples: &[Sample], measure: Measure) -> Choice {
    let weight = |sample: &Sample| match measure {
        Measure::Requests => 1,
        Measure::Bytes => sample.bytes.max(1),
    };
    let total: u64 = samples.iter().map(weight).sum();
    let firsts = Below::new(samples.iter().map(|sample| (sample.first.clone(), weight(sample))));
    let lasts = Below::new(samples.iter().map(|sample| (sample.last.clone(), weight(sample))));
    let mut best: Option<(u64, Bytes)> = None;
    for boundary in boundaries(region, samples) {
        let (left, right) = (lasts.of(&boundary), total - firsts.of(&boundary));
        let (share, crossing) = (left.min(right), total - left - right);
        let is_good = share * 100 >= total * SHARE_PERCENT_MIN && crossing * 100 <= total * CROSSING_PERCENT_MAX;
        if is_good && best.as_ref().is_none_or(|(best, _)| share > *best) {
            best = Some((share, boundary));
        }
    }
    match best {
        Some((_, boundary)) => Choice::At(boundary),
        None => one_key(samples, weight).unwrap_or(Choice::Nowhere),
    }
}

/// The boundaries at the ends of the samples: before a transactional key, behind the first eight bytes of a raw one.
fn boundaries(region: &Region, samples: &[Sample]) -> BTreeSet<Bytes> {
    let ends = samples.iter().flat_map(|sample| [(&sample.first, sample.is_raw), (&sample.last, sample.is_raw)]);
    let boundary = |(key, is_raw): (&Bytes, bool)| if is_raw { boundary_behind(key).into() } else { key.clone() };
    let is_inside = |key: &Bytes| *key > region.start_key && (region.end_key.is_empty() || *key < region.end_key);
    ends.map(boundary).filter(|key| is_inside(key) && key.len() <= SPLIT_KEY_BYTES_MAX).collect()
}

fn one_key(samples: &[Sample], weight: impl Fn(&Sample) -> u64) -> Option<Choice> {
    let mut keys: BTreeMap<(&Bytes, bool), u64> = BTreeMap::new();
    for sample in samples.iter().filter(|sample| sample.first == sample.last) {
        *keys.entry((&sample.first, sample.is_raw)).or_default() += weight(sample);
    }
    let total: u64 = samples.iter().map(weight).sum();
    let ((key, is_raw), most) = keys.into_iter().max_by_key(|(_, weight)| *weight)?;
    let percent = most * 100 / total.max(1);
    (percent >= ONE_KEY_PERCENT).then(|| Choice::OneKey { key: key.clone(), is_raw, percent })
}

#[cfg(test)]
#[path = "load_boundary_test.rs"]
mod tests;
