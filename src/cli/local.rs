//! A data directory opened in this process.

use super::Failure;
use super::source::{Take, Wanted};
use bytes::Bytes;
use kontiki::{Db, Options};
use kontiki_engine::inspect;
use kontiki_engine::{Direction, Family, Range, ReadOptions, View};
use kontiki_env::Env;
use kontiki_env::fs::{FileLock, Fs, RealFs};
use kontiki_server::stopped::{CommittedReader, TXN_WRITE, entries_not_in_tables};
use std::io::ErrorKind;
use std::path::Path;

/// The family that holds the identity of a served store, and its key there (crates/raftstore/src/meta.rs).
const META: Family = Family::NODE_STATE[0];
/// Its place before the store's families had reserved numbers, with the families' earlier names.
const META_EARLIER: (Family, [&str; 2]) = (Family(4), ["meta", "placement"]);
const IDENTITY_KEY: &[u8] = &[0x01];

/// The purpose of opening a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To write to it; it is created if it is missing.
    Create,
    /// To write to an existing one.
    Change,
    /// To compact it.
    Arrange,
    /// To copy it, without the raft logs of a node; on request also if these hold entries that its tables do not.
    Copy {
        /// The entries of the raft logs that are not in the tables may be missing in the copy.
        tables_only: bool,
    },
}

/// Opens a directory.
///
/// The directory of a served store is not written to, because the write would be missing in its raft log. It is read
/// and copied with a note: only the tables of one replica are read, and entries that are only in that replica's log are
/// not seen.
pub fn open(folder: &Path, purpose: Purpose) -> Result<Db, Failure> {
    match purpose {
        Purpose::Create => inspect::refuse_foreign(&Env::real(), folder, &[]).map_err(failed)?,
        Purpose::Change | Purpose::Arrange | Purpose::Copy { .. } => find_database(folder)?,
    }
    let db = Db::open(folder, Options::default()).map_err(failed)?;
    if !is_served(&db) {
        return Ok(db);
    }
    let missing = entries_missing(&db, folder)?;
    let folder = folder.display();
    match purpose {
        Purpose::Copy { tables_only: false } if missing > 0 => {
            db.close().map_err(failed)?;
            return Err(Failure::usage(format!(
                "{folder} belongs to a served store whose process was killed, or stopped during its work: its raft logs \
                 hold {missing} entries that are not in its tables, and a copy would lack them, although they may be \
                 acknowledged. Start it with `kontiki serve --data-dir {folder}`, stop it by Ctrl-C or SIGTERM, and copy it then; \
                 --tables-only makes a copy without them"
            )));
        }
        Purpose::Arrange | Purpose::Copy { .. } => {
            note_served(&folder, missing);
            return Ok(db);
        }
        Purpose::Create | Purpose::Change => db.close().map_err(failed)?,
    }
    Err(Failure::usage(format!(
        "{folder} belongs to a served store, and a write here would be missing in its raft log; run \
         `kontiki serve --data-dir {folder}` and use --endpoint instead"
    )))
}

/// A database that is only read: also on read-only media, and in a directory of another user. Writers are locked out as
/// long as it exists.
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
        note_served(&folder.display(), entries_missing(&db, folder)?);
    }
    Ok(ToRead { db, _lock: lock })
}

/// Refuses a directory that is missing, cannot be read, or is not a database.
pub fn find_database(folder: &Path) -> Result<(), Failure> {
    let shown = folder.display();
    let names = RealFs.list(folder).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::usage(format!("there is no directory {shown}; check --data-dir")),
        _ => Failure::usage(format!("the directory {shown} cannot be read: {error}; check --data-dir")),
    })?;
    // The engine reports a database that has lost only CURRENT.
    if !names.iter().any(|name| ["CURRENT", "EXTENT", "UNFINISHED", "tables", "vlog", "wal"].contains(&name.as_str())) {
        return Err(Failure::usage(format!("{shown} holds no database: there is no CURRENT in it; check --data-dir")));
    }
    Ok(())
}

/// Entries of the raft logs that are not in the tables.
fn entries_missing(db: &Db, folder: &Path) -> Result<u64, Failure> {
    entries_not_in_tables(&Env::real(), folder, db)
        .map_err(|error| Failure::new(format!("{}: {error}", folder.display())))
}

/// `missing`: [`entries_missing`].
fn note_served(folder: &impl std::fmt::Display, missing: u64) {
    let beside = match missing {
        0 => String::new(),
        some => format!(", without {some} entries of its raft logs"),
    };
    eprintln!(
        "{folder} belongs to a served store: this is the content of one stopped replica's tables{beside}; a running \
         node, asked with --endpoint, shows the content of the store"
    );
}

/// Whether the directory has been served: it has an identity.
fn is_served(db: &Db) -> bool {
    let (view, families) = (db.snapshot(), db.families());
    // A directory without such a family was never served.
    let has_identity = |family| matches!(view.get_in(family, IDENTITY_KEY), Ok(Some(_)));
    let (earlier, names) = META_EARLIER;
    let is_there =
        |(number, name): (u32, &str)| families.iter().any(|spec| spec.family.0 == number && spec.name == name);
    has_identity(META) || ((earlier.0..).zip(names).all(is_there) && has_identity(earlier))
}

/// The keys of a directory to read.
#[derive(Clone, Copy, Debug)]
pub enum Keys {
    /// Those of a family.
    Of(Family),
    /// The transactional ones, at their newest committed values.
    Transactional,
}

impl ToRead {
    /// The transactional keys, if there can be any.
    pub fn transactional(&self, folder: &Path) -> Result<Keys, Failure> {
        if self.db.families().iter().any(|spec| spec.family == TXN_WRITE) {
            return Ok(Keys::Transactional);
        }
        let folder = folder.display();
        Err(Failure::usage(format!("--transactional: {folder} has no transactional keys, as it was never served")))
    }

    /// The value of a key.
    pub fn get(&self, keys: Keys, key: &[u8]) -> Result<Option<Bytes>, Failure> {
        let view = self.db.snapshot();
        match keys {
            Keys::Of(family) => view.get_in(family, key).map_err(failed),
            Keys::Transactional => CommittedReader::new(&view).get(key).map_err(transactional_failed),
        }
    }

    /// Passes entries to `take`, one by one as they are read.
    pub fn scan(&self, keys: Keys, wanted: &Wanted, take: Take<'_>) -> Result<(), Failure> {
        let view = self.db.snapshot();
        let Keys::Of(family) = keys else { return scan_transactional(&view, wanted, take) };
        let direction = if wanted.reverse { Direction::Backward } else { Direction::Forward };
        let range = Range::region(&wanted.start, wanted.end.as_deref().unwrap_or_default());
        let mut scan = view.scan(family, range, direction, ReadOptions::one_pass()).map_err(failed)?;
        for _ in 0..wanted.limit {
            if !scan.advance().map_err(failed)? {
                break;
            }
            let (key, value) = scan.entry().map_err(failed)?;
            take(key, value)?;
        }
        Ok(())
    }
}

fn scan_transactional(view: &dyn View, wanted: &Wanted, take: Take<'_>) -> Result<(), Failure> {
    let end = wanted.end.as_deref().unwrap_or_default();
    let scan = CommittedReader::new(view).scan(&wanted.start, end, wanted.reverse);
    let mut scan = scan.map_err(transactional_failed)?;
    for _ in 0..wanted.limit {
        let Some((key, value)) = scan.next_entry().map_err(transactional_failed)? else { break };
        take(&key, &value)?;
    }
    Ok(())
}

fn transactional_failed(failure: impl std::fmt::Display) -> Failure {
    Failure::new(failure.to_string())
}

/// The family that a user names, by its name or number.
pub fn family(db: &Db, folder: &Path, wanted: &str) -> Result<Family, Failure> {
    let families = db.families();
    let named = families.iter().find(|spec| spec.name == wanted);
    let numbered = || families.iter().find(|spec| wanted.parse() == Ok(spec.family.0));
    if let Some(found) = named.or_else(numbered) {
        return Ok(found.family);
    }
    let there: Vec<String> = families.iter().map(|spec| format!("{:?} ({})", spec.name, spec.family.0)).collect();
    let (folder, there) = (folder.display(), there.join(", "));
    Err(Failure::usage(format!("--family {wanted:?}: {folder} has no such family; it has {there}")))
}

/// The engine's error texts are readable.
pub fn failed(error: kontiki_engine::Error) -> Failure {
    match error {
        kontiki_engine::Error::InvalidArgument(what) => Failure::usage(what),
        error if error.is_about_the_path() => Failure::usage(error.to_string()),
        error => Failure::new(error.to_string()),
    }
}
