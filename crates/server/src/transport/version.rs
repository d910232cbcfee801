//! Which version of the protocol two nodes use with each other.
//!
//! The protocol is everything that nodes send each other: the calls of `internal.proto`, and the messages inside,
//! which the transport does not read. A store knows a range of versions ([`Versions::OWN`]). A store that dials states
//! its range first, in the call `Negotiate`, on each connection; the version in use is the newest that both know. It
//! stands in every batch and in the head of every snapshot, and a receiver refuses what it does not know.
//!
//! 1. Two adjacent releases have a version in common: a release that changes the meaning of something raises the newest
//!    version, and goes on to know the one of the release before it.
//! 2. What an older store ignores safely (protobuf skips unknown fields) needs no new version. Everything else is sent
//!    only where the version in use has it.
//! 3. Stores without a version in common exchange nothing. The one that dials and the one that listens both say which
//!    versions they know, and which of them to upgrade.
//!
//! | version | what it adds |
//! |---|---|
//! | 1 | releases that do not know `Negotiate` |
//! | 2 | `Negotiate` |
//! | 3 | snapshots that are resumed (`SnapshotProgress`, and the number of a transfer); entries that expire in them |
//!
//! *Rejected:* a flag for each feature: the number of combinations that have to work grows with each one. *Rejected:*
//! comparing the versions of programs: they change without a change of the protocol, and a test cannot be two releases.
//! *Rejected:* the version in the records of placement alone: nodes talk to each other before placement has a leader.

use super::Identity;
use kontiki_raftstore::StoreId;

/// The version of stores that do not know `Negotiate`: they state none.
const BEFORE_NEGOTIATION: u32 = 1;
/// The first one that knows both novelties of snapshots.
const RESUMED_SNAPSHOTS: u32 = 3;

/// The versions that a store knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u32,
    /// The newest.
    pub max: u32,
}

/// A store, for texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) store: StoreId,
    /// The version of its program; empty if it states none.
    pub(super) program: String,
    pub(super) versions: Versions,
}

/// Two stores have no version in common.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "store {} ({}) knows versions {} to {} of the protocol between nodes, store {} ({}) knows {} to {}: none in \
     common; upgrade store {} to the release before that of the other, or to the same",
    newer.store, name(&newer.program), newer.versions.min, newer.versions.max,
    older.store, name(&older.program), older.versions.min, older.versions.max, older.store
)]
pub(super) struct NoCommonVersion {
    newer: Known,
    older: Known,
}

fn name(program: &str) -> String {
    if program.is_empty() { "an older kontiki".into() } else { format!("kontiki {program}") }
}

impl Versions {
    /// Those of this release.
    pub const OWN: Versions = Versions { min: BEFORE_NEGOTIATION, max: 3 };
    /// Those of a store that does not know `Negotiate`.
    pub(super) const BEFORE: Versions = Versions { min: BEFORE_NEGOTIATION, max: BEFORE_NEGOTIATION };

    /// Whether a snapshot whose connection breaks is resumed.
    pub(super) fn resumes_snapshots(version: u32) -> bool {
        version >= RESUMED_SNAPSHOTS
    }

    /// Whether snapshots say when entries expire.
    pub(super) fn has_expiry_in_snapshots(version: u32) -> bool {
        version >= RESUMED_SNAPSHOTS
    }

    /// What messages state that are sent in `version`. Nothing where the receiver reads nothing: its bytes are then
    /// those of its own release.
    pub(super) fn stated(version: u32) -> u32 {
        if version > BEFORE_NEGOTIATION { version } else { 0 }
    }

    /// Whether a message that states this version can be read. A message without one is from before.
    pub(super) fn know(self, stated: u32) -> bool {
        (self.min..=self.max).contains(&stated.max(BEFORE_NEGOTIATION))
    }
}

impl Known {
    /// This store.
    pub(super) fn own(identity: Identity) -> Known {
        let Identity { store_id: store, versions, .. } = identity;
        Known { store, program: env!("CARGO_PKG_VERSION").into(), versions }
    }

    /// The newest version that both know.
    pub(super) fn common(&self, other: &Known) -> Result<u32, NoCommonVersion> {
        let newest = self.versions.max.min(other.versions.max);
        if newest >= self.versions.min.max(other.versions.min) {
            return Ok(newest);
        }
        let (newer, older) = if self.versions.max > other.versions.max { (self, other) } else { (other, self) };
        Err(NoCommonVersion { newer: newer.clone(), older: older.clone() })
    }
}

#[cfg(test)]
#[path = "version_test.rs"]
mod tests;
