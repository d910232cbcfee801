//! How far the manifest and the log reach, in a separate file: `EXTENT`.
//!
//! A manifest or a log that lost its end at the border of a record, or a whole file, looks like one that a crash has
//! torn, or like an older one that is whole. Acknowledged writes are then lost silently, and the next open
//! removes tables that the manifest does not name any more. So what was durable once is recorded in another file:
//!
//! - the manifest in use, and how many of its bytes have been synced;
//! - the log segments that are there: the first, and the last whose name is durable.
//!
//! Invariants:
//! 1. A record says only what is true and durable: it is written after the sync of what it describes.
//! 2. What removes a segment (retention, a segment made ahead that is not used) first makes a record durable that
//!    requires less.
//! 3. An edit of the manifest is acknowledged, and so is a record in a new log segment, only after the record that
//!    covers it was written; unless the file cannot be written, and then it is removed.
//!
//! So a crash at any place leaves a manifest and a log that reach at least as far as the newest whole record says, and
//! whatever reaches less far is damage. A directory without the file (of an earlier build, or one that was just copied)
//! is not checked so; a check and an open report that ([`doubt`]).
//!
//! The file has two slots, at offsets 0 and 4096, which are written in turn, each synced before the other is written:
//! so a crash tears one of them at most, and the other one is whole. The second one is written for the first time after
//! the first one was synced. So without a whole record, a second slot that is not empty is damage ([`refuse_damaged`]).
//! The slot with the larger count is in force. What
//! requires less is written to both, so damage in one slot never makes the other one require what was deleted. All
//! integers are little-endian:
//!
//! | offset | width | field |
//! |---|---|---|
//! | 0 | 8 | magic `KONTIEXT` |
//! | 8 | 4 | format version, now 1 |
//! | 12 | 8 | count of records written |
//! | 20 | 8 | number of the manifest in use |
//! | 28 | 8 | bytes of it that are durable, up to the end of a record |
//! | 36 | 8 | first log segment |
//! | 44 | 8 | last log segment; one less than the first if there is none |
//! | 52 | 4 | CRC-32 of bytes 0 to 51 |
//!
//! *Rejected:* the same facts in the header of each log segment (edits of the manifest between two segments are not
//! covered, nor is the last segment itself); in `CURRENT` (replaced by renaming, which costs two syncs, and torn if
//! written in place); a count of records in the manifest (lost together with its end).

use crate::lock::{Mutex, Rank};
use crate::{Error, Result};
use kontiki_env::codec::{checksum32, get_bytes, get_u32, get_u64, put_u32, put_u64};
use kontiki_env::fs::{File, Fs, OpenMode, read_all};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file's name within the database's directory.
pub(crate) const EXTENT: &str = "EXTENT";
/// The remedy for what is missing.
pub(crate) const REMEDY: &str = "`kontiki repair` saves what is there into a new directory";

const MAGIC: &[u8; 8] = b"KONTIEXT";
const FORMAT_VERSION: u32 = 1;
/// A slot is a page, so that no write of one touches the other.
const SLOT_BYTES: u64 = 4096;
const SLOTS: u64 = 2;
const RECORD_BYTES: usize = 56;

/// The content of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The manifest in use.
    pub(crate) manifest: u64,
    /// Bytes of it that are durable.
    pub(crate) manifest_bytes: u64,
    /// The first segment of the log.
    pub(crate) first_segment: u64,
    /// The last one; one less than the first if there is none.
    pub(crate) last_segment: u64,
}

impl Reach {
    /// Refuses a log that lacks a segment which was there: `numbers` are those that are there, ascending.
    pub(crate) fn check_segments(&self, numbers: &[u64], path_of: impl Fn(u64) -> PathBuf) -> Result<()> {
        let is_missing = |number: &u64| numbers.binary_search(number).is_err();
        // Of a whole log the first comparison ends it; of a damaged one the walk ends at the first gap.
        let Some(missing) = (self.first_segment..=self.last_segment).find(is_missing) else { return Ok(()) };
        let what = format!(
            "this log segment is missing: {EXTENT} says that segments {} to {} are needed. Commits are lost \
             with it; {REMEDY}",
            self.first_segment, self.last_segment
        );
        Err(Error::Corruption { file: path_of(missing), offset: 0, what })
    }
}

/// What the file in `dir` says; `None` if there is none, or none that can be read.
pub(crate) fn read_extent(fs: &dyn Fs, dir: &Path) -> Result<Option<Reach>> {
    Ok(read_slots(fs, &dir.join(EXTENT))?.map(|found| found.reach))
}

/// The record in force.
struct InForce {
    reach: Reach,
    count: u64,
    slot: u64,
}

/// Refuses the file in `dir` if it holds no whole record, and no crash leaves it like that.
pub(crate) fn refuse_damaged(fs: &dyn Fs, dir: &Path) -> Result<()> {
    let path = dir.join(EXTENT);
    if !fs.exists(&path) {
        return Ok(());
    }
    let bytes = read_bytes(fs, &path)?;
    if (0..SLOTS).any(|slot| decode(slot_of(&bytes, slot)).is_some()) || is_empty(slot_of(&bytes, SLOTS - 1)) {
        return Ok(());
    }
    let what = "neither of its two records is whole, and a crash damages one at most, so whether the manifest or the \
                log has lost its end is not known; if `kontiki check` reports nothing but this file, remove it: the next \
                open makes a new one"
        .to_string();
    Err(Error::Corruption { file: path, offset: 0, what })
}

/// Why the file in `dir` says less than it should; `None` if it is whole. That is legal after a crash, a copy or a full
/// disk, and may be damage as well.
pub(crate) fn doubt(fs: &dyn Fs, dir: &Path) -> Result<Option<&'static str>> {
    let path = dir.join(EXTENT);
    let bytes = if fs.exists(&path) { read_bytes(fs, &path)? } else { Vec::new() };
    let whole = (0..SLOTS).filter(|slot| decode(slot_of(&bytes, *slot)).is_some()).count();
    let torn = (0..SLOTS).any(|slot| !is_empty(slot_of(&bytes, slot)) && decode(slot_of(&bytes, slot)).is_none());
    Ok(match (whole, torn) {
        (0, _) => Some(
            "it is missing or empty, as after a copy of the directory, or after a full disk: a manifest or a log that has \
             lost its end cannot be distinguished from a whole one. The next open for writing makes a new one",
        ),
        (_, true) => Some("one of its two records is not whole, as after a power loss; the other one is in force"),
        _ => None,
    })
}

fn read_bytes(fs: &dyn Fs, path: &Path) -> Result<Vec<u8>> {
    read_all(fs, path).map_err(|error| Error::io(path, &error))
}

/// What the file holds of a slot's record.
fn slot_of(bytes: &[u8], slot: u64) -> &[u8] {
    let rest = usize::try_from(slot * SLOT_BYTES).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
    rest.get(..RECORD_BYTES).unwrap_or(rest)
}

/// Whether a slot was never written.
fn is_empty(slot: &[u8]) -> bool {
    slot.iter().all(|byte| *byte == 0)
}

fn read_slots(fs: &dyn Fs, path: &Path) -> Result<Option<InForce>> {
    if !fs.exists(path) {
        return Ok(None);
    }
    let bytes = read_bytes(fs, path)?;
    let slots = (0..SLOTS).filter_map(|slot| {
        let (count, reach) = decode(slot_of(&bytes, slot))?;
        Some(InForce { reach, count, slot })
    });
    Ok(slots.max_by_key(|found| found.count))
}

fn encode(count: u64, reach: &Reach) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    put_u32(&mut out, FORMAT_VERSION);
    for value in [count, reach.manifest, reach.manifest_bytes, reach.first_segment, reach.last_segment] {
        put_u64(&mut out, value);
    }
    let checksum = checksum32(&[&out]);
    put_u32(&mut out, checksum);
    assert_eq!(out.len(), RECORD_BYTES, "the width is part of the format");
    out
}

/// Count and content of a whole record.
fn decode(bytes: &[u8]) -> Option<(u64, Reach)> {
    let (covered, mut checksum) = bytes.get(..RECORD_BYTES)?.split_at(RECORD_BYTES - 4);
    if get_u32(&mut checksum).ok()? != checksum32(&[covered]) {
        return None;
    }
    let mut input = covered;
    let (magic, version) = (get_bytes(&mut input, MAGIC.len()).ok()?, get_u32(&mut input).ok()?);
    if magic != MAGIC || version != FORMAT_VERSION {
        return None;
    }
    let mut next = || get_u64(&mut input).ok();
    let (count, manifest, manifest_bytes, first_segment, last_segment) = (next()?, next()?, next()?, next()?, next()?);
    Some((count, Reach { manifest, manifest_bytes, first_segment, last_segment }))
}

/// Keeps the file while the database is open for writing. See the head of this file.
pub(crate) struct Extent {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    state: Mutex<State>,
}

struct State {
    reach: Reach,
    /// Whether the manifest's format says that there may be such a file: an earlier build would not keep it.
    kept: bool,
    /// The content of the slot in force.
    written: Option<Reach>,
    count: u64,
    /// The offset of the next record.
    slot: u64,
    file: Kept,
}

enum Kept {
    /// Nothing was to be recorded yet.
    NotYet,
    Open(Arc<dyn File>),
    /// It could not be made or written, and does not exist: nothing is recorded until the next open.
    Gone,
    /// It could not be written, nor removed: its content is unknown.
    Unknown(Error),
}

impl Extent {
    /// Of the database in `dir`, which uses this manifest, durable up to there; `kept` if the manifest's format knows
    /// of the file. Nothing is read or written yet.
    pub(crate) fn new(fs: Arc<dyn Fs>, dir: &Path, manifest: u64, manifest_bytes: u64, kept: bool) -> Extent {
        let reach = Reach { manifest, manifest_bytes, first_segment: 1, last_segment: 0 };
        let state = State { reach, kept, written: None, count: 0, slot: 0, file: Kept::NotYet };
        Extent { fs, dir: dir.to_path_buf(), state: Mutex::new(Rank::Extent, state) }
    }

    /// Whether the directory's format has the file.
    pub(crate) fn is_kept(&self) -> bool {
        self.state.lock().kept
    }

    /// The manifest in use, of a format that knows of the file, and what of it has been synced.
    pub(crate) fn note_manifest(&self, number: u64, bytes: u64) {
        self.state.lock().kept = true;
        self.require_more(|reach| (reach.manifest, reach.manifest_bytes) = (number, bytes));
    }

    /// The segments that recovery has found; `last` is one less than `first` if there are none.
    ///
    /// Errors: the file exists and cannot be written, which is not a temporary lack of space or descriptors: a database
    /// that continued would be without its protection, and its user would not know.
    pub(crate) fn note_log(&self, first: u64, last: u64) -> Result<()> {
        assert!(first > 0 && last + 1 >= first, "segment numbers start at 1");
        let path = self.dir.join(EXTENT);
        if self.fs.exists(&path)
            && let Err(error) = self.fs.open(&path, OpenMode::ReadWrite)
            && let error = Error::io(&path, &error)
            && !error.is_retryable()
        {
            return Err(error);
        }
        self.require_more(|reach| (reach.first_segment, reach.last_segment) = (first, last));
        Ok(())
    }

    /// A segment has its name durably.
    pub(crate) fn note_segment(&self, number: u64) {
        self.require_more(|reach| reach.last_segment = reach.last_segment.max(number));
    }

    /// Segments below `first` are about to be deleted. After an error they must stay.
    pub(crate) fn begin_log_at(&self, first: u64) -> Result<()> {
        self.require_less(|reach| reach.first_segment = reach.first_segment.max(first))
    }

    /// Segments above `last`, which hold nothing, are about to be deleted. After an error they must stay.
    pub(crate) fn end_log_at(&self, last: u64) -> Result<()> {
        self.require_less(|reach| reach.last_segment = reach.last_segment.min(last))
    }

    /// Requires more. After a failure less is recorded than could be: damage may remain undetected, no more.
    fn require_more(&self, change: impl FnOnce(&mut Reach)) {
        let mut state = self.state.lock();
        change(&mut state.reach);
        if !state.kept {
            return;
        }
        match self.write(&mut state) {
            Ok(_) => {}
            // The slot that is in force was not touched.
            Err(error) if error.is_retryable() => {
                tracing::debug!(%error, "how far manifest and log reach is not recorded")
            }
            Err(error) => {
                tracing::warn!(%error, "how far manifest and log reach is not recorded until the next open");
                self.discard(&mut state, error);
            }
        }
    }

    /// Requires less, durably.
    fn require_less(&self, change: impl FnOnce(&mut Reach)) -> Result<()> {
        let mut state = self.state.lock();
        change(&mut state.reach);
        if !state.kept || matches!(state.file, Kept::NotYet) && !self.fs.exists(&self.dir.join(EXTENT)) {
            return Ok(());
        }
        // In both slots: if the one in force is damaged, the other must not require what was deleted.
        let written = self.write(&mut state).and_then(|new| if new { self.write_slot(&mut state) } else { Ok(()) });
        if let Err(error) = written {
            // On a full disk too: the deletion frees space.
            self.discard(&mut state, error);
        }
        match &state.file {
            Kept::Unknown(error) => Err(error.clone()),
            Kept::NotYet | Kept::Open(_) | Kept::Gone => Ok(()),
        }
    }

    /// Records what is not recorded yet; whether there was something.
    fn write(&self, state: &mut State) -> Result<bool> {
        if matches!(state.file, Kept::NotYet) {
            self.open(state)?;
        }
        if state.written == Some(state.reach) {
            return Ok(false);
        }
        self.write_slot(state).map(|()| true)
    }

    fn write_slot(&self, state: &mut State) -> Result<()> {
        let Kept::Open(file) = &state.file else { return Ok(()) };
        let record = encode(state.count + 1, &state.reach);
        let written = file.write_at(&record, state.slot * SLOT_BYTES).and_then(|()| file.sync());
        written.map_err(|error| Error::io(self.dir.join(EXTENT), &error))?;
        state.written = Some(state.reach);
        state.count += 1;
        state.slot = (state.slot + 1) % SLOTS;
        Ok(())
    }

    fn open(&self, state: &mut State) -> Result<()> {
        let path = self.dir.join(EXTENT);
        let io = |error: io::Error| Error::io(&path, &error);
        if let Some(found) = read_slots(&*self.fs, &path)? {
            state.written = Some(found.reach);
            state.count = found.count;
            state.slot = (found.slot + 1) % SLOTS;
        }
        if self.fs.exists(&path) {
            state.file = Kept::Open(self.fs.open(&path, OpenMode::ReadWrite).map_err(io)?);
            return Ok(());
        }
        let file = self.fs.open(&path, OpenMode::CreateNew).map_err(io)?;
        // Both slots, so that later records need no space where files are written in place.
        file.allocate(SLOTS * SLOT_BYTES).map_err(io)?;
        self.fs.sync_dir(&self.dir).map_err(io)?;
        state.file = Kept::Open(file);
        Ok(())
    }

    /// Removes the file after `error`: without it nothing is required.
    fn discard(&self, state: &mut State, error: Error) {
        let path = self.dir.join(EXTENT);
        let removed = match self.fs.exists(&path) {
            true => self.fs.remove(&path).and_then(|()| self.fs.sync_dir(&self.dir)),
            false => Ok(()),
        };
        state.file = if removed.is_ok() { Kept::Gone } else { Kept::Unknown(error) };
    }
}

#[cfg(test)]
#[path = "extent_test.rs"]
mod tests;
