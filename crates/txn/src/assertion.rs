//! What a client expects of the keys that it writes.

use std::fmt;

/// The state that the client expects of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Assertion {
    /// Nothing.
    #[default]
    None,
    /// It has a value.
    Exist,
    /// It has none.
    NotExist,
}

/// Which assertions are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AssertionLevel {
    /// None.
    #[default]
    Off,
    /// Those that cost no extra read. An optimistic prewrite reads the newest version anyway, so these are all.
    Fast,
    /// All.
    Strict,
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Assertion::None => "is there or not",
            Assertion::Exist => "exists",
            Assertion::NotExist => "does not exist",
        })
    }
}
