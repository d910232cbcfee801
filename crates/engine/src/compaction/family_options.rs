//! The options of each family.

use crate::types::{CompactionOptions, FamilyMap};
use crate::{Family, FamilyOptions};
use arc_swap::ArcSwap;
use std::sync::Arc;

/// The options of families, by number. They change when families are created and dropped; a caller that uses several of
/// them together takes them all at once ([`FamilyTable::all`]).
#[derive(Default)]
pub struct FamilyTable {
    by_family: ArcSwap<FamilyMap<FamilyOptions>>,
}

impl FamilyTable {
    /// With these.
    pub fn new(families: FamilyMap<FamilyOptions>) -> FamilyTable {
        FamilyTable { by_family: ArcSwap::from_pointee(families) }
    }

    /// All of them as they are now. Families without an entry have the default.
    pub fn all(&self) -> Arc<FamilyMap<FamilyOptions>> {
        self.by_family.load_full()
    }

    /// Sets, or removes, a family's options. One caller at a time.
    pub(crate) fn set(&self, family: Family, options: Option<FamilyOptions>) {
        let mut all = (*self.all()).clone();
        match options {
            Some(options) => all.insert(family, options),
            None => all.remove(family),
        };
        self.by_family.store(Arc::new(all));
    }
}

/// When to compact a family, given the options of families.
pub(super) fn compaction_of<'a>(
    all: &'a FamilyMap<FamilyOptions>,
    default: &'a CompactionOptions,
    family: Family,
) -> &'a CompactionOptions {
    all.get(family).and_then(|options| options.compaction.as_ref()).unwrap_or(default)
}
