//! How calls are named.

/// Names a call; chosen by the driver, which never uses one twice while the first is unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);
