//! Column families, sequence numbers and the limits of keys and values.

use crate::types::Compression;
use std::fmt;

/// Longest user key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 32 << 20;

/// A column family's identity: stable on disk and in replicated batches, so served stores use fixed numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family(pub u32);

impl Family {
    /// The family every directory has; embedded `put` and the server's raw calls use it.
    pub const DEFAULT: Family = Family(0);

    /// In a [`FamilySpec`]: the number is the database's to choose ([`FamilySpec::named`]). No family has it.
    pub const BY_NAME: Family = Family(u32::MAX);

    /// Numbers that are for the store's own families, so that a directory with any families of its user's can be
    /// served. Their names begin with [`Family::RESERVED_PREFIX`], and no others do. Two bytes each where numbers are
    /// varints, and far from the numbers that applications count up to.
    pub const RESERVED: std::ops::Range<u32> = 16_368..16_384;

    /// How names of the store's own families begin.
    pub const RESERVED_PREFIX: &str = "kontiki.";

    /// The store's own family number `index`.
    pub const fn reserved(index: u32) -> Family {
        assert!(index < Family::RESERVED.end - Family::RESERVED.start, "as many are reserved");
        Family(Family::RESERVED.start + index)
    }

    /// What a served node knows of itself and its cluster, and no copy of its data takes along: its identity, its
    /// regions and how far their logs are applied, and the state of placement.
    pub const NODE_STATE: [Family; 2] = [Family::reserved(3), Family::reserved(4)];

    /// The name that a family of this number always has, if there is one: the default family's, and those that a served
    /// store makes.
    pub fn fixed_name(self) -> Option<&'static str> {
        const RESERVED: [&str; 8] = [
            "kontiki.txn_default",
            "kontiki.txn_lock",
            "kontiki.txn_write",
            "kontiki.meta",
            "kontiki.placement",
            "kontiki.raw_lock",
            "kontiki.raw_write",
            "kontiki.raw_v2",
        ];
        if self == Family::DEFAULT {
            return Some("default");
        }
        let index = self.0.checked_sub(Family::RESERVED.start)?;
        RESERVED.get(usize::try_from(index).ok()?).copied()
    }

    /// Whether it is one of the store's own.
    pub fn is_reserved(self) -> bool {
        Family::RESERVED.contains(&self.0)
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "family {}", self.0)
    }
}

/// A family to have at open: it is created if it is missing; a number already used under another name is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilySpec {
    /// Its number, or [`Family::BY_NAME`].
    pub family: Family,
    /// Its name, unique among the families that there are.
    pub name: String,
    /// How its data is kept.
    pub options: FamilyOptions,
}

impl FamilySpec {
    /// A family with default options and a number of the caller's choice.
    pub fn new(family: Family, name: impl Into<String>) -> FamilySpec {
        FamilySpec { family, name: name.into(), options: FamilyOptions::default() }
    }

    /// A family with default options that is known by its name: if there is one with this name, it is meant, otherwise
    /// the database gives the new one a number that no family ever had. [`Db::family`](crate::Db::family) returns it.
    pub fn named(name: impl Into<String>) -> FamilySpec {
        FamilySpec::new(Family::BY_NAME, name)
    }
}

/// How the data of one family is kept. Start from the default and change fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyOptions {
    /// Values of at least this many bytes live in the value log, and the tree has pointers to them: flush and
    /// compaction do not move them, but a scan that finds them in no cache reads each from a place of its own. 0: all
    /// values stay in the tree. Default 4 KiB, as large as a block, so that a value there would share its read with no
    /// other anyway; up to [`VALUE_BYTES_MAX`]. Lower it for keys that are overwritten much and hardly scanned.
    pub value_threshold_bytes: u64,
    /// When and how its tables are merged; `None`: as [`Options::compaction`](crate::Options::compaction) says. Of its
    /// fields `background_jobs_max` and `bytes_per_second_max` are the database's, whatever stands here.
    pub compaction: Option<crate::types::CompactionOptions>,
    /// How tables of level 0, 1, ... are compressed; the last entry counts for all deeper levels. Default: none, which
    /// leaves it to `Options.table.compression` at every level.
    pub compression: Vec<Compression>,
    /// The filters of tables also hold the first so many bytes of every key that is as long, so that scans of one such
    /// prefix pass by tables without it; 1 to [`KEY_BYTES_MAX`]. Default: none, filters hold whole keys only.
    pub filter_prefix_bytes: Option<usize>,
}

impl Default for FamilyOptions {
    fn default() -> FamilyOptions {
        FamilyOptions {
            value_threshold_bytes: 4 << 10,
            compaction: None,
            compression: Vec::new(),
            filter_prefix_bytes: None,
        }
    }
}

/// The position of a write in the one order of all writes of a database: newer is greater. 0 is before every write.
pub type SequenceNumber = u64;
