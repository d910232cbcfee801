//! Which versions must be kept: the rule by which compaction frees space.
//!
//! Snapshots hold the files they read (docs/internals/engine.md), so of each key only the newest version is kept. It
//! is dropped too if a range tombstone hides it; and if it is a tombstone, or has expired, once no deeper level can
//! hold an older version that it would have to hide. Expired versions that must still hide something become tombstones.
//!
//! What the layer above does not need any more ([`FilterPass`]) is treated as if it had expired at this moment: it
//! becomes a tombstone, or is dropped where a tombstone would be. So an older version of the key never comes back.
//!
//! A tombstone above the number of the oldest reader, a transaction or a snapshot, is kept: such a reader may check
//! whether its key was written since (`version/horizon.rs`).

use crate::planted::{self, Bug};
use crate::types::{Content, Decoded, FilterPass, KeyRef, Kind};
use crate::version::{RangeTombstones, Span};
use crate::{Error, Result, SequenceNumber};

/// What to do with a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is written to the output.
    Keep,
    /// It has expired, or is not needed above, and is written to the output as a tombstone.
    KeepAsDelete,
    /// A newer version hides it.
    Hidden,
    /// A range tombstone hides it.
    Covered,
    /// It has expired, and there is nothing left for it to hide.
    Expired,
    /// The layer above does not need it, and there is nothing left for it to hide.
    Filtered,
    /// A tombstone with nothing left to hide.
    SpentTombstone,
}

/// Decides about versions in order: by user key ascending, newest first.
pub struct VersionRetention<'a> {
    ranges: &'a RangeTombstones,
    /// The part of `ranges` around the last key.
    span: Option<Span<'a>>,
    /// Wall clock that decides what has expired; one for all versions, so that none becomes visible again.
    now_ms: u64,
    /// Tombstones above it stay.
    oldest_reader: SequenceNumber,
    filter: Option<Box<dyn FilterPass>>,
    /// Versions that the filter did not need.
    filtered: u64,
    user_key: Vec<u8>,
    /// Of the last version; 0 before the first.
    sequence: SequenceNumber,
    /// The newest version so far that is dropped without a trace of the write; 0 if there was none.
    dropped_through: SequenceNumber,
}

impl<'a> VersionRetention<'a> {
    /// `ranges` hide versions of the family, expiry is decided at `now_ms`, and tombstones above the sequence number
    /// `oldest_reader` stay.
    pub fn new(ranges: &'a RangeTombstones, now_ms: u64, oldest_reader: SequenceNumber) -> VersionRetention<'a> {
        VersionRetention {
            ranges,
            span: None,
            now_ms,
            oldest_reader,
            filter: None,
            filtered: 0,
            user_key: Vec::new(),
            sequence: 0,
            dropped_through: 0,
        }
    }

    /// The layer above is asked, too.
    pub fn with_filter(self, filter: Option<Box<dyn FilterPass>>) -> VersionRetention<'a> {
        VersionRetention { filter, ..self }
    }

    /// Versions so far that the layer above did not need.
    pub fn filtered(&self) -> u64 {
        self.filtered
    }

    /// Decides about one version. `is_bottom` returns whether no deeper level can hold the key; it is called for
    /// tombstones and expired versions only.
    pub fn decide(
        &mut self,
        key: KeyRef<'_>,
        kind: Kind,
        stored: &[u8],
        is_bottom: impl FnOnce() -> bool,
    ) -> Result<Decision> {
        assert!(key.sequence > 0, "0 is before every write");
        if self.sequence > 0 && self.user_key == key.user_key {
            assert!(key.sequence < self.sequence, "versions of a key come newest first");
            self.sequence = key.sequence;
            return Ok(Decision::Hidden);
        }
        debug_assert!(self.sequence == 0 || self.user_key.as_slice() < key.user_key, "keys come in ascending order");
        self.user_key.clear();
        self.user_key.extend_from_slice(key.user_key);
        self.sequence = key.sequence;
        if key.sequence < self.covering() {
            return Ok(Decision::Covered);
        }
        let expired = kind.expires() && self.has_expired(kind, stored)?;
        let filtered = !expired && !kind.is_delete() && self.is_filtered(kind, stored)?;
        if !expired && !filtered && !kind.is_delete() {
            return Ok(Decision::Keep);
        }
        let early = planted::is_set(Bug::DropTombstonesEarly);
        let spent = key.sequence <= self.oldest_reader && (early || is_bottom());
        if spent {
            self.dropped_through = self.dropped_through.max(key.sequence);
        }
        self.filtered += u64::from(filtered);
        Ok(match (expired || filtered, spent) {
            (true, true) if filtered => Decision::Filtered,
            (true, true) => Decision::Expired,
            (true, false) => Decision::KeepAsDelete,
            (false, true) => Decision::SpentTombstone,
            (false, false) => Decision::Keep,
        })
    }

    /// The newest version so far that is dropped without a trace of the write; 0 if there was none.
    pub fn dropped_through(&self) -> SequenceNumber {
        self.dropped_through
    }

    /// The newest range tombstone over the current key, 0 if there is none.
    fn covering(&mut self) -> SequenceNumber {
        if self.ranges.is_empty() {
            return 0;
        }
        match &self.span {
            Some(span) if span.contains(&self.user_key) => span.sequence,
            _ => self.span.insert(self.ranges.span(&self.user_key)).sequence,
        }
    }

    /// Whether the layer above does not need the version of the current key.
    fn is_filtered(&mut self, kind: Kind, stored: &[u8]) -> Result<bool> {
        let Some(filter) = &mut self.filter else { return Ok(false) };
        let malformed = |_| Error::Bug(format!("stored bytes of a {kind:?} are malformed behind a checksum"));
        match Decoded::new(kind, stored).map_err(malformed)?.content {
            Content::Value(value) => filter.drops(&self.user_key, Some(value)),
            Content::Pointer(_) => filter.drops(&self.user_key, None),
            Content::Deleted => Ok(false),
        }
    }

    fn has_expired(&self, kind: Kind, stored: &[u8]) -> Result<bool> {
        let decoded = Decoded::new(kind, stored);
        let malformed = |_| Error::Bug(format!("stored bytes of a {kind:?} are malformed behind a checksum"));
        Ok(decoded.map_err(malformed)?.expired(self.now_ms))
    }
}

#[cfg(test)]
#[path = "version_retention_test.rs"]
mod tests;
