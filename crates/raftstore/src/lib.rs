//! The replicated store: regions, each a raft group, as one state machine: events in, effects out.
//!
//! Pure: it owns no thread, clock, file or random source. [`Store::handle`] takes an [`Event`] and the time,
//! [`Store::poll`] returns the [`Effects`] for all regions in one batch; `server::driver` performs them with threads
//! and sockets, the simulator performs them in one thread from one seed. The design is in docs/internals/raftstore.md.
//!
//! Does not know: transactions, gRPC, how messages and snapshot files are transported. Only `consensus` uses the raft
//! crate.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod checksum;
pub mod command;
mod config;
mod consensus;
mod effect;
mod error;
mod event;
mod families;
#[cfg(test)]
mod golden_test;
mod leadership;
mod liveness;
mod log_speed;
mod memory;
pub mod meta;
#[cfg(test)]
mod model;
mod outbox;
mod peer;
pub mod planted;
mod readers;
mod recovery;
mod region;
pub mod snapshot;
mod store;

pub use checksum::{Checksum, ChecksumFilter};
pub use config::{Config, ConfigError, SlowLog, SnapshotTables};
pub use effect::{
    Answer, AppliedCommand, Apply, ApplyId, ApplyPart, CheckOutcome, ChecksumTask, Effects, EntriesTask, Observation,
    Persist, PersistId, ReadId, SafeTsClaim, SafeTsTask, SnapshotTask, ViewId,
};
pub use error::{Fault, FaultKind, RecoverError, RegionError};
pub use event::Event;
pub use families::Families;
pub use memory::MemoryStatus;
pub use outbox::ReadGate;
pub use peer::{FollowerLag, LeaseStatus, ReplicaLag};
pub use readers::{ReadRefusal, Readable, Readers};
pub use recovery::Recovery;
pub use region::{
    ABSORBED_MAX, Absorbed, Epoch, MemberChange, Merges, Merging, Peer, PeerId, PeerRole, Region, RegionId, RoleChange,
    Space, StoreId, StoreIdentity, Ticket,
};
pub use store::{
    LAGS_NAMED_MAX, LogEnd, Logs, RegionStatus, Store, StoreLag, is_replica_of, log_end, next_replica_id, replica_id,
};
