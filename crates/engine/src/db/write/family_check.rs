//! Commits write to families that are there: families may be dropped while commits are on their way.

use super::WritePath;
use crate::version::Version;
use crate::{Error, Family, Result, WriteBatch};
use std::sync::atomic::{AtomicU64, Ordering};

/// What commits have to know of a drop that is under way.
pub(crate) struct FamilyDrops {
    /// The number of the family that is being dropped, plus one; 0 if there is none.
    leaving: AtomicU64,
    /// Counts drops. Changed under the locks that order commits: a commit that was checked at an older count is checked
    /// again under them.
    count: AtomicU64,
}

impl Default for FamilyDrops {
    fn default() -> FamilyDrops {
        FamilyDrops { leaving: AtomicU64::new(0), count: AtomicU64::new(0) }
    }
}

impl FamilyDrops {
    /// To be kept with a check of families, read before it.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// No commit that writes to the family gets a number from now on. Under the locks that order commits.
    pub(crate) fn begin(&self, family: Family) {
        self.leaving.store(u64::from(family.0) + 1, Ordering::Release);
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// The family is gone from the version, or stays.
    pub(crate) fn end(&self) {
        self.leaving.store(0, Ordering::Release);
    }

    fn is_leaving(&self, family: Family) -> bool {
        self.leaving.load(Ordering::Acquire) == u64::from(family.0) + 1
    }
}

impl WritePath {
    /// Refuses a batch that writes to a family that is not there, or that is being dropped.
    pub(crate) fn check_families(&self, batch: &WriteBatch) -> Result<()> {
        let version = self.shared.context.versions.current();
        batch.entries().try_for_each(|entry| self.check_family(&version, entry.family()))
    }

    /// The same for one family.
    pub(crate) fn check_family(&self, version: &Version, family: Family) -> Result<()> {
        if self.family_drops.is_leaving(family) {
            return Err(Error::FamilyDropped { family });
        }
        if version.family(family).is_none() { Err(version.no_family(family)) } else { Ok(()) }
    }

    /// The same for a commit that was checked when there had been `checked_at` drops. Under a lock that orders commits.
    pub(crate) fn check_families_again(&self, batch: &WriteBatch, checked_at: u64) -> Result<()> {
        if self.family_drops.count() == checked_at { Ok(()) } else { self.check_families(batch) }
    }
}
