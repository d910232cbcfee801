//! Which versions must be kept: the rule that makes space come back and snapshots stay true.
//!
//! Live snapshots cut history into strata: a version belongs to the stratum of the oldest snapshot that sees it, or
//! to the last one if no snapshot does (then only readers of the present see it). Of a key's versions in one stratum
//! the newest alone can be seen. A tombstone that is the newest of the *first* stratum hides only versions older than
//! every snapshot; once no deeper level can hold any, it says the same as nothing.

use crate::SequenceNumber;

/// What to do with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes into the output.
    Keep,
    /// A newer version hides it from every reader.
    Hidden,
    /// A tombstone with nothing left to hide.
    SpentTombstone,
}

/// Judges versions as they come: by user key ascending, newest first.
pub struct Retention {
    /// Ascending.
    snapshots: Vec<SequenceNumber>,
    user_key: Vec<u8>,
    /// The stratum of the version of `user_key` judged last, `None` before the first key.
    stratum: Option<usize>,
}

impl Retention {
    /// For these live snapshots, ascending.
    pub fn new(snapshots: &[SequenceNumber]) -> Retention {
        assert!(snapshots.is_sorted(), "snapshots come in ascending order");
        Retention { snapshots: snapshots.to_vec(), user_key: Vec::new(), stratum: None }
    }

    /// Judges one version. `is_bottom` tells whether no deeper level can hold the key; it is asked for tombstones
    /// of the first stratum only.
    pub fn judge(
        &mut self,
        user_key: &[u8],
        sequence: SequenceNumber,
        is_tombstone: bool,
        is_bottom: impl FnOnce() -> bool,
    ) -> Verdict {
        assert!(sequence > 0, "0 is before every write");
        debug_assert!(
            self.stratum.is_none() || self.user_key.as_slice() <= user_key,
            "keys are judged in ascending order"
        );
        let stratum = self.snapshots.partition_point(|&snapshot| snapshot < sequence);
        let same_key = self.stratum.is_some() && self.user_key == user_key;
        if same_key {
            let last = self.stratum.unwrap_or(0);
            assert!(stratum <= last, "versions of a key come newest first");
            if stratum == last {
                return Verdict::Hidden;
            }
        } else {
            self.user_key.clear();
            self.user_key.extend_from_slice(user_key);
        }
        debug_assert!(stratum <= self.snapshots.len());
        self.stratum = Some(stratum);
        if is_tombstone && stratum == 0 && is_bottom() { Verdict::SpentTombstone } else { Verdict::Keep }
    }
}

#[cfg(test)]
#[path = "retention_test.rs"]
mod tests;
