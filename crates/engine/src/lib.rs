//! The embedded engine: one log, memtables, sorted tables, manifest, leveled compaction, snapshots, iterators.
//! Threads and blocking calls; knows nothing of consensus, protobuf or the network.
#![deny(missing_docs)]

mod batch;
pub mod cache;
mod commit;
pub mod compaction;
mod error;
mod family;
pub mod inspect;
pub mod iterator;
pub mod memtable;
pub mod table;
pub mod version;
mod view;

pub use batch::{BatchOp, WriteBatch};
pub use commit::{Commit, Durability, StreamContents, StreamId, StreamOp};
pub use error::{Error, Result};
pub use family::{Family, FamilySpec, KEY_BYTES_MAX, SequenceNumber, VALUE_BYTES_MAX};
pub use view::{Direction, Entries, Range, View};
