//! The workloads of a simulated cluster's clients, and the records of their results. Clients are the real one
//! (`kontiki_client`) over the simulated network; some only ask one node, by single calls.

mod bank;
mod behaviour;
mod connection;
mod direct;
mod kinds;
mod locking;
mod raw;
mod stale;
mod timestamps;

pub use bank::{BankSettings, Teller, amount};
pub use behaviour::{Behaviour, BehaviourState, LOCK_TTL_MS};
pub use connection::{Connection, TimestampStream, connect, options};
pub use direct::{Direct, NoAnswer};
pub use kinds::Kinds;
pub use raw::{RawSettings, RawTarget, RawWorkload};
pub use stale::StaleReader;
pub use timestamps::TimestampClient;

use crate::check::snapshot_isolation::Transaction;
use crate::check::timestamps::Grant;
use crate::history::History;
use parking_lot::Mutex;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

/// The state that all clients of a run share.
#[derive(Clone, Default)]
pub struct Records {
    /// Raw operations. Behind a lock, as the timestamps, because the real client's tasks must be `Send`.
    pub history: Arc<Mutex<History>>,
    /// Timestamps granted.
    pub grants: Arc<Mutex<Vec<Grant>>>,
    /// Ids granted.
    pub ids: Rc<RefCell<Vec<Grant>>>,
    /// Safe points returned.
    pub safe_points: Rc<RefCell<Vec<Grant>>>,
    /// Violations that a client has detected itself.
    pub violations: Rc<RefCell<Vec<String>>>,
    /// Transactions.
    pub transactions: Rc<RefCell<Vec<Transaction>>>,
    /// Commits of tellers in one phase, async ones, and those in two phases.
    pub commits: Rc<Cell<[u64; 3]>>,
    /// A planted bug: tellers take the commit timestamp before they prewrite.
    pub commits_early: Rc<Cell<bool>>,
    /// All accounts are opened, for certain.
    pub bank_is_open: Rc<Cell<bool>>,
    /// Set when clients have to finish their operation and end.
    pub stop: Rc<Cell<bool>>,
    /// Clients that have not ended.
    pub running: Rc<Cell<usize>>,
    /// Times that the whole bank was read at single replicas, as it was.
    pub stale: Rc<Cell<u64>>,
    /// Operations that ended with an answer.
    pub answered: Rc<Cell<u64>>,
}
