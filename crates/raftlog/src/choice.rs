//! The names of the choices, and their bytes in a directory.

use std::fmt;
use std::str::FromStr;

/// Where raft logs are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogChoice {
    /// In the engine's log, with everything else that a node writes: one sync for all regions. The default.
    #[default]
    Shared,
    /// In one file for each region.
    PerGroup,
    /// In memory. For tests of what is above: **nothing survives**, not even a clean restart, so a directory with state
    /// is refused, and a directory that was served with it cannot be opened any more.
    Memory,
}

/// Bounds of logs in files of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// Files that are open for writing at most; beyond it the one that was used least recently is closed. Default: 256,
    /// enough for the regions that are busy at one time, and a fraction of a usual limit of descriptors.
    pub open_files_max: usize,
    /// A file is written again without what is truncated when it has so many bytes and less than half of them are in
    /// use: so each byte that is freed costs at most one that is written. Default: 64 KiB.
    pub rewrite_bytes_min: u64,
}

impl Default for FileOptions {
    fn default() -> FileOptions {
        FileOptions { open_files_max: 256, rewrite_bytes_min: 64 << 10 }
    }
}

/// A text that names no choice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no place for raft logs: use shared or per-group")]
pub struct UnknownChoice(String);

impl LogChoice {
    /// The number that a directory records.
    pub(crate) fn number(self) -> u8 {
        match self {
            LogChoice::Shared => 1,
            LogChoice::PerGroup => 2,
            LogChoice::Memory => 3,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<LogChoice> {
        [LogChoice::Shared, LogChoice::PerGroup, LogChoice::Memory].into_iter().find(|choice| choice.number() == number)
    }
}

impl fmt::Display for LogChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogChoice::Shared => "shared",
            LogChoice::PerGroup => "per-group",
            LogChoice::Memory => "memory",
        })
    }
}

impl FromStr for LogChoice {
    type Err = UnknownChoice;

    /// Memory is no choice of users.
    fn from_str(text: &str) -> Result<LogChoice, UnknownChoice> {
        match text {
            "shared" => Ok(LogChoice::Shared),
            "per-group" => Ok(LogChoice::PerGroup),
            other => Err(UnknownChoice(other.to_owned())),
        }
    }
}
