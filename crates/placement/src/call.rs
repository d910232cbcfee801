//! Calls and their answers.

use crate::{Outcome, Refusal};

/// Names a call; chosen by the driver, which never uses one twice while the first is unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// An answer, or why there is none.
pub(crate) type Answer = Result<Outcome, Refusal>;
