//! A data directory opened in this process.

use super::Failure;
use bytes::Bytes;
use kontiki::{Db, Options};
use kontiki_engine::{Direction, Family, Range, View};
use kontiki_env::fs::{Fs, RealFs};
use std::path::Path;

/// The family and key that hold the identity of a served store (crates/raftstore/src/meta.rs).
const META: Family = Family(4);
const IDENTITY_KEY: &[u8] = &[0x01];

/// Opens a directory; it is created only if `create` is set.
///
/// The directory of a served store is refused: what is written here would miss its raft log, and what is read here is
/// what one replica happens to hold.
pub fn open(folder: &Path, create: bool) -> Result<Db, Failure> {
    if !create && !RealFs.exists(folder) {
        return Err(Failure::new(format!("there is no directory {}; check --data-dir", folder.display())));
    }
    // A database that has lost CURRENT alone is for the engine to complain of.
    if !create && !["CURRENT", "tables", "wal"].iter().any(|name| RealFs.exists(&folder.join(name))) {
        return Err(Failure::new(format!(
            "{} holds no database: there is no CURRENT in it; check --data-dir",
            folder.display()
        )));
    }
    let db = Db::open(folder, Options::default()).map_err(failed)?;
    let identity = db.snapshot().get(META, IDENTITY_KEY);
    // A directory without that family was never served.
    if !matches!(identity, Ok(Some(_))) {
        return Ok(db);
    }
    db.close().map_err(failed)?;
    let folder = folder.display();
    Err(Failure::new(format!(
        "{folder} belongs to a served store; run `kontiki serve --data-dir {folder}` and use --endpoint instead"
    )))
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
