//! Column families that come and go while the database is open.
//!
//! A family is in the manifest before its creation is answered, so before the first write to it. A drop has three
//! steps:
//!
//! 1. Under the locks that order commits the family is marked as leaving. No commit that writes to it gets a number any
//!    more, also none that was checked before.
//! 2. One edit takes the family, its tables and its range tombstones out of the version, and notes its number as used
//!    up.
//! 3. Readers get the new version. Snapshots and iterators that exist have the old one, with its files.
//!
//! What memtables and the log hold of it is left behind: a flush writes only families that are there, and so does a
//! flush or compaction that is under way, whose results the edit loses (`VersionSet::apply`). As a number is never used
//! again, nothing of an old family can come up in a new one.

use super::core::Core;
use super::open::unused_number;
use super::options::refuse_family;
use crate::lock::{Mutex, Rank};
use crate::version::{FamilyLevels, Version, VersionEdit};
use crate::{Db, Error, Family, FamilySpec, Result, WriteBatch};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the write path has to know of changes that are under way.
pub(crate) struct FamilyChanges {
    /// Held while a family is created or dropped: the names that are taken, once one was created.
    one_at_a_time: Mutex<Option<BTreeMap<String, Family>>>,
    /// The number of the family that is being dropped, plus one; 0 if there is none.
    leaving: AtomicU64,
    /// Counts drops. Changed under the locks that order commits: a commit that was checked at an older count is checked
    /// again under them.
    drops: AtomicU64,
}

impl Default for FamilyChanges {
    fn default() -> FamilyChanges {
        FamilyChanges {
            one_at_a_time: Mutex::new(Rank::FamilyChange, None),
            leaving: AtomicU64::new(0),
            drops: AtomicU64::new(0),
        }
    }
}

impl FamilyChanges {
    /// To be kept with a check of families, read before it.
    pub(crate) fn drops(&self) -> u64 {
        self.drops.load(Ordering::Acquire)
    }

    fn is_leaving(&self, family: Family) -> bool {
        self.leaving.load(Ordering::Acquire) == u64::from(family.0) + 1
    }
}

/// The families of a version by name.
fn names_of(version: &Version) -> BTreeMap<String, Family> {
    version.families().iter().map(|(family, levels)| (levels.name.clone(), family)).collect()
}

impl Db {
    /// The families that there are, by number, with the options in force.
    pub fn families(&self) -> Vec<FamilySpec> {
        let context = &self.core().context;
        let (version, options) = (context.versions.current(), context.families.all());
        let spec = |(family, levels): (Family, &Arc<FamilyLevels>)| FamilySpec {
            family,
            name: levels.name.clone(),
            options: options.get(family).cloned().unwrap_or_default(),
        };
        version.families().iter().map(spec).collect()
    }

    /// The family with this name, if there is one.
    pub fn family(&self, name: &str) -> Option<Family> {
        let version = self.core().context.versions.current();
        version.families().iter().find(|(_, levels)| levels.name == name).map(|(family, _)| family)
    }

    /// The family with this name, which is created with default options if there is none. In the next life of the
    /// database its options are the default ones again, unless [`crate::Options::families`] names it.
    ///
    /// Errors: as [`Db::create_family`].
    pub fn open_family(&self, name: &str) -> Result<Family> {
        if let Some(family) = self.family(name) {
            return Ok(family);
        }
        match self.create_family(FamilySpec::named(name)) {
            // Another thread may have created it in between.
            Err(error @ Error::InvalidArgument(_)) => self.family(name).ok_or(error),
            result => result,
        }
    }

    /// Creates a family and returns its number, which the database chooses for a [`FamilySpec::named`]; it survives
    /// power loss when this returns. The manifest keeps number and name; the options count as long as the database is
    /// open, so name it in [`crate::Options::families`] the next time if it is to have the same.
    ///
    /// Errors: [`Error::InvalidArgument`] for options out of range, for a number or name that is taken, and for the
    /// number of a family that was dropped; [`Error::NoSpace`] (nothing has changed), [`Error::Io`],
    /// [`Error::Stopped`], [`Error::Closed`].
    pub fn create_family(&self, spec: FamilySpec) -> Result<Family> {
        self.core().create_family(spec)
    }

    /// Drops a family with all that is in it; durable when this returns. Its number is never used again, its name may
    /// be.
    ///
    /// From now on reads of it and writes to it, also commits of transactions that have written to it, answer
    /// [`Error::FamilyDropped`]. Snapshots, transactions and iterators that exist read on as before; they keep the
    /// space of its tables until they are dropped. The space in the value log comes back as that of other garbage.
    ///
    /// Errors: [`Error::InvalidArgument`] for an unknown family and for the default one, which is always there;
    /// [`Error::FamilyDropped`] if it was dropped before; [`Error::NoSpace`] (nothing has changed), [`Error::Io`],
    /// [`Error::Stopped`], [`Error::Closed`].
    pub fn drop_family(&self, family: Family) -> Result<()> {
        self.core().drop_family(family)
    }
}

impl Core {
    fn create_family(&self, mut spec: FamilySpec) -> Result<Family> {
        self.options.validate_family(&spec)?;
        let _here = self.foreground()?;
        let mut names = self.family_changes.one_at_a_time.lock();
        let version = self.context.versions.current();
        if spec.family == Family::BY_NAME {
            spec.family = unused_number(&version, &BTreeSet::new());
        }
        if version.dropped_families().contains_key(spec.family) {
            let why = "a family with this number was dropped, and a number is used once; take another, or let the \
                       database choose (FamilySpec::named)";
            return refuse_family(&spec, why);
        }
        let names = names.get_or_insert_with(|| names_of(&version));
        let taken =
            |number: Family, name: &str| refuse_family(&spec, &format!("there is number {}, name {name:?}", number.0));
        if let Some(levels) = version.family(spec.family) {
            return taken(spec.family, &levels.name);
        }
        if let Some(&number) = names.get(&spec.name) {
            return taken(number, &spec.name);
        }
        let mut edit = VersionEdit::new();
        edit.create_family(spec.family, &spec.name);
        // Before it can be written to.
        self.set_family_options(&spec);
        if let Err(error) = self.apply_edit(edit) {
            self.forget_family_options(spec.family);
            return Err(error);
        }
        names.insert(spec.name.clone(), spec.family);
        tracing::info!(family = spec.family.0, name = spec.name, "family created");
        Ok(spec.family)
    }

    fn drop_family(&self, family: Family) -> Result<()> {
        if family == Family::DEFAULT {
            return Err(Error::InvalidArgument("the default family is always there; delete its keys instead".into()));
        }
        let _here = self.foreground()?;
        let changes = &self.family_changes;
        let mut names = changes.one_at_a_time.lock();
        let version = self.context.versions.current();
        let Some(levels) = version.family(family) else { return Err(version.no_family(family)) };
        {
            let (_log, _derived) = (self.log.lock(), self.queue.derived.lock());
            changes.leaving.store(u64::from(family.0) + 1, Ordering::Release);
            changes.drops.fetch_add(1, Ordering::AcqRel);
        }
        let mut edit = VersionEdit::new();
        edit.drop_family(family);
        let applied = self.apply_edit(edit);
        // It is gone from the version, or stays.
        changes.leaving.store(0, Ordering::Release);
        applied?;
        if let Some(names) = names.as_mut() {
            names.remove(&levels.name);
        }
        self.forget_family_options(family);
        self.context.state.forget_family(family);
        self.writes.dead.take_out(family, &[], None);
        self.wake_compact(); // It removes files.
        self.wake_values();
        tracing::info!(family = family.0, "family dropped");
        Ok(())
    }

    /// Makes an edit durable and shows it to readers. Errors that leave the manifest's state unknown stop writes.
    pub(super) fn apply_edit(&self, edit: VersionEdit) -> Result<()> {
        match self.context.versions.apply(edit) {
            Ok(_) => {
                self.writes.install(&self.context.versions, None);
                Ok(())
            }
            Err(error) => {
                if self.context.versions.is_stopped() {
                    self.stop(&error);
                }
                Err(error)
            }
        }
    }

    fn set_family_options(&self, spec: &FamilySpec) {
        self.context.families.set(spec.family, Some(spec.options.clone()));
        self.context.values.change_thresholds(|all| all.with(spec.family, Some(&spec.options)));
    }

    fn forget_family_options(&self, family: Family) {
        self.context.families.set(family, None);
        self.context.values.change_thresholds(|all| all.with(family, None));
    }

    /// Refuses a batch that writes to a family that is not there, or that is about to go.
    pub(super) fn check_families(&self, batch: &WriteBatch) -> Result<()> {
        let version = self.context.versions.current();
        batch.entries().try_for_each(|entry| self.check_family(&version, entry.family()))
    }

    /// The same for one family.
    pub(super) fn check_family(&self, version: &Version, family: Family) -> Result<()> {
        if self.family_changes.is_leaving(family) {
            return Err(Error::FamilyDropped { family });
        }
        if version.family(family).is_none() { Err(version.no_family(family)) } else { Ok(()) }
    }

    /// The same for a commit that was checked when there had been `checked_at` drops. Under a lock that orders commits.
    pub(super) fn check_families_again(&self, batch: &WriteBatch, checked_at: u64) -> Result<()> {
        if self.family_changes.drops() == checked_at { Ok(()) } else { self.check_families(batch) }
    }
}
