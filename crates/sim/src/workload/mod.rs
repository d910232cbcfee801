//! The workloads of a simulated cluster's clients, and the records of their results.

mod bank;
mod percolator;
mod raw;
mod router;
mod timestamps;

pub use bank::{BankKnobs, Teller, amount};
pub use percolator::{Change, Committed, Habits, LOCK_TTL_MS, Percolator};
pub use raw::{RawKnobs, raw_client, raw_get};
pub use router::{CallOutcome, Router};
pub use timestamps::timestamp_client;

use crate::check::snapshot_isolation::Transaction;
use crate::check::timestamps::Grant;
use crate::history::History;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The state that all clients of a run share.
#[derive(Clone, Default)]
pub struct Records {
    /// Raw operations.
    pub history: Rc<RefCell<History>>,
    /// Timestamps granted.
    pub grants: Rc<RefCell<Vec<Grant>>>,
    /// Ids granted.
    pub ids: Rc<RefCell<Vec<Grant>>>,
    /// Safe points returned.
    pub safe_points: Rc<RefCell<Vec<Grant>>>,
    /// Violations that a client has detected itself.
    pub violations: Rc<RefCell<Vec<String>>>,
    /// Transactions.
    pub transactions: Rc<RefCell<Vec<Transaction>>>,
    /// All accounts are opened, for certain.
    pub bank_is_open: Rc<Cell<bool>>,
    /// Set when clients have to finish their operation and end.
    pub stop: Rc<Cell<bool>>,
    /// Clients that have not ended.
    pub running: Rc<Cell<usize>>,
    /// Operations that ended with an answer.
    pub answered: Rc<Cell<u64>>,
}
