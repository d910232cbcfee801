//! A data directory opened in this process.

use super::Failure;
use bytes::Bytes;
use kontiki::{Db, Options};
use kontiki_engine::inspect;
use kontiki_engine::{Direction, Family, Range, View};
use kontiki_env::Env;
use kontiki_env::fs::{FileLock, Fs, RealFs};
use std::path::Path;

/// The family that holds the identity of a served store, and its key there (crates/raftstore/src/meta.rs).
const META: Family = Family::NODE_STATE[0];
/// Where it was before the store's families had reserved numbers, with the families' names of then.
const META_EARLIER: (Family, [&str; 2]) = (Family(4), ["meta", "placement"]);
const IDENTITY_KEY: &[u8] = &[0x01];

/// What a directory is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To write to it; it is created if it is missing.
    Create,
    /// To write to what is there.
    Change,
    /// To read it, copy it, or arrange its files anew.
    Read,
}

/// Opens a directory.
///
/// That of a served store is not written to: its raft log would not know of it. It is read and copied with a note: it
/// holds what one replica has in its tables, and what that replica's log has beyond them is not seen.
pub fn open(folder: &Path, purpose: Purpose) -> Result<Db, Failure> {
    if purpose != Purpose::Create {
        find_database(folder)?;
    }
    let db = Db::open(folder, Options::default()).map_err(failed)?;
    if !is_served(&db) {
        return Ok(db);
    }
    let folder = folder.display();
    if purpose == Purpose::Read {
        note_served(&folder);
        return Ok(db);
    }
    db.close().map_err(failed)?;
    Err(Failure::new(format!(
        "{folder} belongs to a served store, and what is written here would be missing in its log; run \
         `kontiki serve --data-dir {folder}` and use --endpoint instead"
    )))
}

/// A database that is only read: also on read-only media, and in a directory of another user. Writers are kept away as
/// long as it lives.
pub struct ToRead {
    /// The database.
    pub db: Db,
    _lock: Option<Box<dyn FileLock>>,
}

/// Opens a directory to read it, without changing a byte.
pub fn open_to_read(folder: &Path) -> Result<ToRead, Failure> {
    find_database(folder)?;
    let lock = inspect::lock_to_read(&Env::real(), folder).map_err(failed)?;
    let db = Db::open_read_only(folder, Options::default()).map_err(failed)?;
    if is_served(&db) {
        note_served(&folder.display());
    }
    Ok(ToRead { db, _lock: lock })
}

fn find_database(folder: &Path) -> Result<(), Failure> {
    if !RealFs.exists(folder) {
        return Err(Failure::new(format!("there is no directory {}; check --data-dir", folder.display())));
    }
    // A database that has lost CURRENT alone is for the engine to complain of.
    if !["CURRENT", "tables", "wal"].iter().any(|name| RealFs.exists(&folder.join(name))) {
        return Err(Failure::new(format!(
            "{} holds no database: there is no CURRENT in it; check --data-dir",
            folder.display()
        )));
    }
    Ok(())
}

fn note_served(folder: &impl std::fmt::Display) {
    eprintln!(
        "{folder} belongs to a served store: this is what one stopped replica holds in its tables; a running node, \
         asked with --endpoint, tells what the store holds"
    );
}

/// Whether the directory has been served: it has an identity.
fn is_served(db: &Db) -> bool {
    let (view, families) = (db.snapshot(), db.families());
    // A directory without such a family was never served.
    let has_identity = |family| matches!(view.get(family, IDENTITY_KEY), Ok(Some(_)));
    let (earlier, names) = META_EARLIER;
    let is_there =
        |(number, name): (u32, &str)| families.iter().any(|spec| spec.family.0 == number && spec.name == name);
    has_identity(META) || ((earlier.0..).zip(names).all(is_there) && has_identity(earlier))
}

/// At most `limit` entries with `start <= key < end`; an absent end is unbounded. With `reverse` from the last on.
pub fn scan(
    db: &Db,
    start: &[u8],
    end: Option<&[u8]>,
    limit: usize,
    reverse: bool,
) -> Result<Vec<(Bytes, Bytes)>, Failure> {
    let direction = if reverse { Direction::Backward } else { Direction::Forward };
    let range = Range { start: Some(Bytes::copy_from_slice(start)), end: end.map(Bytes::copy_from_slice) };
    let snapshot = db.snapshot();
    let mut entries = snapshot.entries(Family::DEFAULT, range, direction).map_err(failed)?;
    let mut found = Vec::new();
    while found.len() < limit {
        match entries.next().map_err(failed)? {
            Some(entry) => found.push(entry),
            None => break,
        }
    }
    Ok(found)
}

/// What the engine says of itself is fit for people.
pub fn failed(error: kontiki_engine::Error) -> Failure {
    match error {
        kontiki_engine::Error::InvalidArgument(what) => Failure::usage(what),
        error => Failure::new(error.to_string()),
    }
}
