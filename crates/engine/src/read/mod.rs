//! Reads over memtables and a version: cursors over the versions that each source holds, their merge, and what a user
//! sees of it.
//!
//! ```text
//! Scan                      newest version <= snapshot, no tombstones, within the range      (implements Entries)
//!   MergingCursor           all versions of all sources in one order
//!     MemtableCursor        one per memtable
//!     TableCursor           one per L0 table
//!     LevelCursor           one per deeper level, opens its tables one after the other
//! ```
//!
//! A cursor goes in one direction for its whole life; backward order is exactly the reverse of forward order. That
//! keeps every cursor a small state machine: an iterator that turns around in the middle costs more code than all
//! of these together, and the public API does not use it.
//!
//! For `db/`: keep a [`ReadState`] (memtables newest first, version, table cache) behind an `ArcSwap`, replace it
//! whole when a memtable or the version changes, and read through [`ReadState::get`] and [`ReadState::entries`] at
//! a sequence number. A `ReadState` pins its tables: their files stay until the last one is dropped.

mod conflict_check;
mod dead_walk;
mod fetch_ahead;
mod hidden;
mod level;
mod live_pointers;
mod merging;
mod multi_get;
pub(crate) mod read_state;
mod scan;
mod sizes;
mod source;
mod value;

pub use level::LevelCursor;
pub(crate) use live_pointers::live_pointers;
pub use merging::MergingCursor;
pub use read_state::PinnedTable;
pub use read_state::ReadState;
pub(crate) use scan::Of;
pub use scan::Scan;
pub use sizes::{PartSize, RangePart};
pub use source::Source;
pub(crate) use value::live_value;
