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

use super::Core;
use super::family_numbers::unused_number;
use super::options::refuse_family;
use crate::version::{FamilyLevels, Version, VersionEdit};
use crate::{Db, Error, Family, FamilySpec, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The families of a version by name.
fn names_of(version: &Version) -> BTreeMap<String, Family> {
    version.families().iter().map(|(family, levels)| (levels.name.clone(), family)).collect()
}

impl Db {
    /// The families that there are, by number, with the options in force.
    pub fn families(&self) -> Vec<FamilySpec> {
        let context = &self.core().shared().context;
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
        let version = self.core().shared().context.versions.current();
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
        self.shared().options.validate_family(&spec)?;
        let _here = self.enter_foreground()?;
        let mut names = self.foreground.family_change.lock();
        let version = self.shared().context.versions.current();
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
        if let Err(error) = self.write.apply_edit(edit) {
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
        let _here = self.enter_foreground()?;
        let mut names = self.foreground.family_change.lock();
        let version = self.shared().context.versions.current();
        let Some(levels) = version.family(family) else { return Err(version.no_family(family)) };
        {
            let (_log, _derived) = (self.write.log.writer.lock(), self.write.queue.derived.lock());
            self.write.family_drops.begin(family);
        }
        let mut edit = VersionEdit::new();
        edit.drop_family(family);
        let applied = self.write.apply_edit(edit);
        self.write.family_drops.end();
        applied?;
        if let Some(names) = names.as_mut() {
            names.remove(&levels.name);
        }
        self.forget_family_options(family);
        self.shared().context.state.forget_family(family);
        self.write.memtables.dead.take_out(family, &[], None);
        self.shared().jobs.wake_compact(); // It removes files.
        self.shared().jobs.wake_values();
        tracing::info!(family = family.0, "family dropped");
        Ok(())
    }

    fn set_family_options(&self, spec: &FamilySpec) {
        self.shared().context.families.set(spec.family, Some(spec.options.clone()));
        self.shared().context.values.change_thresholds(|all| all.with(spec.family, Some(&spec.options)));
    }

    fn forget_family_options(&self, family: Family) {
        self.shared().context.families.set(family, None);
        self.shared().context.values.change_thresholds(|all| all.with(family, None));
    }
}
