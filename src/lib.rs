//! Kontiki: a transactional key-value store, embedded in a process or served to many.
//!
//! This is the library face. [`Db`] opens a directory in this process; [`client`] talks to a cluster. The same
//! directory can be embedded today and served by the `kontiki` program tomorrow, without a conversion.
//!
//! # Embedding
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let scratch = tempfile::tempdir()?;
//! # let path = scratch.path().join("db");
//! use kontiki::{Db, Direction, Durability, Entries, Family, Options, Range, View, WriteBatch};
//!
//! let db = Db::open(&path, Options::default())?;
//! db.put(b"mast", b"mangrove")?; // durable when it returns
//!
//! let mut batch = WriteBatch::new();
//! batch.put(Family::DEFAULT, b"raft", b"balsa");
//! batch.delete(Family::DEFAULT, b"mast");
//! let before = db.snapshot();
//! db.write(batch, Durability::Buffered)?; // both or neither; survives a killed process, not a power loss
//!
//! assert_eq!(db.get(b"mast")?, None);
//! assert_eq!(before.get(Family::DEFAULT, b"mast")?.as_deref(), Some(&b"mangrove"[..]));
//!
//! let mut entries = db.snapshot().entries(Family::DEFAULT, Range::all(), Direction::Forward)?;
//! while let Some((key, value)) = entries.next()? {
//!     assert_eq!((key.as_ref(), value.as_ref()), (&b"raft"[..], &b"balsa"[..]));
//! }
//! db.close()?;
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub use kontiki_client as client;
pub use kontiki_engine::{
    Change, Changes, ChangesOptions, Db, Direction, Durability, Entries, Error, Family, FamilySpec, KEY_BYTES_MAX,
    Options, Range, Result, SequenceNumber, Snapshot, Stats, VALUE_BYTES_MAX, View, WriteBatch,
};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
