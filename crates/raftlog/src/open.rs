//! Opening the raft logs of a directory, and moving them to another place.
//!
//! What the directory records is in force. A conversion copies everything first and records the new choice last, in one
//! synced commit of the engine; what the old place holds goes after that. So a crash in the middle leaves the old
//! choice in force, and the next start begins again, whichever choice it asks for:
//!
//! | conversion | copied | the commit that decides | afterwards |
//! |---|---|---|---|
//! | shared -> per group | a file for each region, whole and synced, and the directory synced | the choice, and the removal of all streams | nothing |
//! | per group -> shared | streams, each removed before | the choice, synced, and with it all that was written before | the files are removed |
//!
//! What an interrupted conversion leaves at the place that is not in force is removed at the next start: files before a
//! shared log is opened, streams before files are.
//!
//! For a while both copies need their space. Without it the conversion fails, and the node starts with the choice that
//! it had.

use crate::groups::{DIRECTORY, FileId, GroupLogs, write_contents};
use crate::planted::{self, Bug};
use crate::record::{Place, synced};
use crate::{FileOptions, LogChoice, MemoryLog, RaftLog, SharedLog};
use kontiki_engine::{Commit, Db, Durability, Error, Result, StreamContents, StreamId, StreamOp, WriteBatch};
use kontiki_env::Env;
use kontiki_env::fs::list_if_there;
use kontiki_state::{StateChoice, StateEngine};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of entries in one commit of a conversion.
const PIECE_BYTES: usize = 1 << 20;

/// Why the raft logs of a directory cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The engine, or a file.
    #[error(transparent)]
    Engine(#[from] Error),
    /// The raft logs could not be moved; they are as they were.
    #[error(
        "the raft logs of {directory} cannot be moved from {from} to {to}: {error}. Nothing has changed: start with \
         --raft-log {from}, or try again when the cause is mended (a move needs the space of all raft logs twice)"
    )]
    Conversion {
        /// The data directory.
        directory: PathBuf,
        /// Where they are.
        from: LogChoice,
        /// Where they were to be.
        to: LogChoice,
        /// What failed.
        error: Error,
    },
    /// The directory was served with logs in memory.
    #[error(
        "{directory} was served with raft logs in memory, which are lost: its data cannot be used any more; start with an \
         empty directory"
    )]
    Lost {
        /// The data directory.
        directory: PathBuf,
    },
    /// Logs in memory are for directories without any state.
    #[error(
        "{directory} has been served before, and raft logs in memory survive no restart: use an empty directory, or \
         --raft-log {found}"
    )]
    NotEmpty {
        /// The data directory.
        directory: PathBuf,
        /// Where its logs are.
        found: LogChoice,
    },
    /// The engine of the state has no streams, from which logs are moved and to which.
    #[error("the raft logs of {directory} need the built-in engine; its data are kept by {engine}")]
    NoStreams {
        /// The data directory.
        directory: PathBuf,
        /// The engine of the state.
        engine: StateChoice,
    },
}

/// Opens the raft logs of a data directory whose state is `state`. `wanted`: where they are to be from now on; `None`:
/// where they are, which is [`LogChoice::Shared`] in a new directory. Blocks on the disk.
pub fn open(
    env: &Env,
    data_dir: &Path,
    state: &Arc<dyn StateEngine>,
    place: Place,
    wanted: Option<LogChoice>,
    options: FileOptions,
) -> Result<Arc<dyn RaftLog>, OpenError> {
    let directory = || data_dir.to_owned();
    let recorded = place.choice(&**state, data_dir)?;
    let Some(db) = state.built_in() else {
        return Err(OpenError::NoStreams { directory: directory(), engine: state.choice() });
    };
    let found = recorded.unwrap_or_default();
    let wanted = wanted.unwrap_or(found);
    let conversion = |error| OpenError::Conversion { directory: directory(), from: found, to: wanted, error };
    match (found, wanted) {
        (LogChoice::Memory, _) => Err(OpenError::Lost { directory: directory() }),
        (_, LogChoice::Memory) => {
            if !place.is_unused(&**state)? || !db.streams().is_empty() {
                return Err(OpenError::NotEmpty { directory: directory(), found });
            }
            record(db, place, LogChoice::Memory)?;
            Ok(Arc::new(MemoryLog::new(state.clone())))
        }
        (LogChoice::Shared, LogChoice::Shared) => {
            remove_files(env, data_dir)?;
            Ok(Arc::new(SharedLog::new(db.clone())))
        }
        (LogChoice::Shared, LogChoice::PerGroup) => {
            to_files(env, data_dir, db, place).map_err(conversion)?;
            Ok(Arc::new(GroupLogs::open(env, data_dir, state, place, options)?))
        }
        (LogChoice::PerGroup, LogChoice::PerGroup) => {
            match remove_streams(db) {
                // They do no harm, and the next start tries again: a full disk does not keep a node from starting.
                Err(error) if error.is_retryable() => tracing::warn!(%error, "leftovers of moved raft logs stay"),
                result => result?,
            }
            Ok(Arc::new(GroupLogs::open(env, data_dir, state, place, options)?))
        }
        (LogChoice::PerGroup, LogChoice::Shared) => {
            let files = GroupLogs::open(env, data_dir, state, place, options)?;
            to_streams(db, place, &files).map_err(conversion)?;
            files.stop();
            remove_files(env, data_dir)?;
            Ok(Arc::new(SharedLog::new(db.clone())))
        }
    }
}

fn record(db: &Db, place: Place, choice: LogChoice) -> Result<()> {
    let mut batch = WriteBatch::new();
    place.put_choice(&mut batch, choice);
    db.commit(synced(batch)).map(drop)
}

fn removals(db: &Db) -> Vec<StreamOp> {
    db.streams().into_iter().map(|stream| StreamOp::Remove { stream }).collect()
}

fn remove_streams(db: &Db) -> Result<()> {
    let streams = removals(db);
    if streams.is_empty() {
        return Ok(());
    }
    db.commit(Commit { streams, ..synced(WriteBatch::new()) }).map(drop)
}

/// Removes all files of the folder. What is still there after a crash is removed by the next start.
fn remove_files(env: &Env, data_dir: &Path) -> Result<()> {
    let directory = data_dir.join(DIRECTORY);
    for name in list_if_there(&*env.fs, &directory).map_err(|error| Error::io(&directory, &error))? {
        let path = directory.join(name);
        env.fs.remove(&path).map_err(|error| Error::io(&path, &error))?;
    }
    Ok(())
}

fn to_files(env: &Env, data_dir: &Path, db: &Db, place: Place) -> Result<()> {
    let directory = data_dir.join(DIRECTORY);
    env.fs.create_dir_all(&directory).map_err(|error| Error::io(&directory, &error))?;
    remove_files(env, data_dir)?;
    if planted::is_set(Bug::ConvertedTooEarly) {
        record(db, place, LogChoice::PerGroup)?;
    }
    let ids = db.streams();
    for region in &ids {
        write_contents(&env.fs, &directory, FileId { region: *region, number: 1 }, &db.stream(*region)?)?.name()?;
    }
    if !ids.is_empty() {
        env.fs.sync_dir(&directory).map_err(|error| Error::io(&directory, &error))?;
        tracing::info!(regions = ids.len(), "raft logs were moved to files of their own");
    }
    let mut batch = WriteBatch::new();
    place.put_choice(&mut batch, LogChoice::PerGroup);
    db.commit(Commit { streams: removals(db), ..synced(batch) }).map(drop)
}

fn to_streams(db: &Db, place: Place, files: &GroupLogs) -> Result<()> {
    remove_streams(db)?;
    if planted::is_set(Bug::ConvertedTooEarly) {
        record(db, place, LogChoice::Shared)?;
    }
    let ids = files.ids();
    for stream in &ids {
        for streams in pieces(*stream, files.read(*stream)?) {
            // The last commit, which is synced, makes all of them durable.
            db.commit(Commit { streams, ..Commit::new(WriteBatch::new(), Durability::Buffered) })?;
        }
    }
    record(db, place, LogChoice::Shared)?;
    tracing::info!(regions = ids.len(), "raft logs were moved to the engine's log");
    Ok(())
}

/// The operations that write a whole log, in commits of a bounded size.
fn pieces(stream: StreamId, contents: StreamContents) -> Vec<Vec<StreamOp>> {
    let StreamContents { truncated_through: through_index, state, entries } = contents;
    let begin = vec![StreamOp::Truncate { stream, through_index }, StreamOp::State { stream, state }];
    let mut pieces = vec![begin];
    let (mut first_index, mut piece, mut bytes) = (through_index + 1, Vec::new(), 0);
    for entry in entries {
        if bytes >= PIECE_BYTES {
            let next_index = first_index + piece.len() as u64;
            pieces.push(vec![StreamOp::Append { stream, first_index, entries: std::mem::take(&mut piece) }]);
            (first_index, bytes) = (next_index, 0);
        }
        bytes += entry.len();
        piece.push(entry);
    }
    pieces.push(vec![StreamOp::Append { stream, first_index, entries: piece }]);
    pieces
}
