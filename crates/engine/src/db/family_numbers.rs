//! The numbers of families: requested, chosen, and compared with those of the manifest.

use super::options::{DEFAULT_FAMILY_NAME, Options};
use crate::version::{Version, VersionEdit, VersionSet};
use crate::{Error, Family, Result};
use std::collections::{BTreeMap, BTreeSet};

/// The options with a number for each family that is requested by name: that of the family with this name, or the least
/// that no family has, had or is requested with.
pub(super) fn with_numbers(version: &Version, mut options: Options) -> Options {
    let mut taken: BTreeSet<Family> = options.families.iter().map(|spec| spec.family).collect();
    for spec in options.families.iter_mut().filter(|spec| spec.family == Family::BY_NAME) {
        let known = version.families().iter().find(|(_, levels)| levels.name == spec.name);
        spec.family = match known {
            Some((family, _)) => family,
            None if spec.name == DEFAULT_FAMILY_NAME => Family::DEFAULT,
            None => unused_number(version, &taken),
        };
        taken.insert(spec.family);
    }
    options
}

/// The least number that no family has, ever had, or is to have.
pub(super) fn unused_number(version: &Version, taken: &BTreeSet<Family>) -> Family {
    let is_unused = |family: &Family| {
        let known = version.family(*family).is_some() || version.dropped_families().contains_key(*family);
        !known && !family.is_reserved() && !taken.contains(family)
    };
    let numbers = (1..Family::BY_NAME.0).map(Family);
    numbers.into_iter().find(is_unused).expect("more numbers than families fit on a disk")
}

/// The edit that creates the families that are missing; refuses names and numbers that contradict the manifest.
pub(super) fn missing_families(versions: &VersionSet, options: &Options) -> Result<VersionEdit> {
    let version = versions.current();
    let mut edit = VersionEdit::new();
    let names: BTreeMap<&str, Family> =
        version.families().iter().map(|(family, levels)| (levels.name.as_str(), family)).collect();
    for (family, name) in options.all_families() {
        if version.dropped_families().contains_key(family) {
            return Err(Error::InvalidArgument(format!(
                "families: number {}, name {name:?}: a family with this number was dropped, and a number is used once; \
                 take another, or let the database choose (FamilySpec::named)",
                family.0
            )));
        }
        let by_number = version.family(family).map(|levels| (family, levels.name.as_str()));
        let known = by_number.or_else(|| names.get(name).map(|number| (*number, name)));
        match known {
            None => edit.create_family(family, name),
            Some(known) if known == (family, name) => {}
            Some((number, known)) => {
                return Err(Error::InvalidArgument(format!(
                    "families: number {}, name {name:?}: the directory has number {} with the name {:?}",
                    family.0, number.0, known
                )));
            }
        }
    }
    Ok(edit)
}
