//! The names of the engines.

use std::fmt;

/// Which engine keeps the data of the state machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateChoice {
    /// The engine of this project.
    #[default]
    BuiltIn,
}

impl fmt::Display for StateChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StateChoice::BuiltIn => "built-in",
        })
    }
}
