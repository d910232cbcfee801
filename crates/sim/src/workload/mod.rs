//! What clients of a simulated cluster do, and the record of what they saw.

mod raw;
mod router;
mod timestamps;

pub use raw::{RawKnobs, raw_client};
pub use router::{Asked, Router};
pub use timestamps::timestamp_client;

use crate::check::timestamps::Grant;
use crate::history::History;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What all clients of a run share.
#[derive(Clone, Default)]
pub struct Records {
    /// Raw operations.
    pub history: Rc<RefCell<History>>,
    /// Timestamps granted.
    pub grants: Rc<RefCell<Vec<Grant>>>,
    /// Clients finish what they are doing and end.
    pub stop: Rc<Cell<bool>>,
    /// Clients that have not ended.
    pub running: Rc<Cell<usize>>,
    /// Operations that ended with an answer.
    pub answered: Rc<Cell<u64>>,
}
