//! Copies of a database: checkpoints on the same disk ([`Db::checkpoint`](crate::Db::checkpoint)), and backups in a
//! directory of their own, incremental and verified.
//!
//! ```
//! # fn main() -> kontiki::Result<()> {
//! # let scratch = tempfile::tempdir().unwrap();
//! # let (path, backups, restored) = (scratch.path().join("db"), scratch.path().join("b"), scratch.path().join("r"));
//! use kontiki::backup::BackupStore;
//! use kontiki::{Db, Options};
//!
//! let db = Db::open(&path, Options::default())?;
//! db.put("mast", "mangrove")?;
//!
//! let store = BackupStore::open(&backups)?;
//! let backup = store.create(&db, &mut |progress| eprintln!("{} bytes", progress.bytes_done))?;
//! store.restore(backup.number, &restored, &mut |_| {})?;
//! assert!(Db::open(&restored, Options::default())?.get("mast")?.is_some());
//! # Ok(())
//! # }
//! ```

pub use kontiki_engine::copy::{BackupInfo, BackupStore, CheckpointReport, CopyProgress};
