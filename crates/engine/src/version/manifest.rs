//! The manifest's files: `MANIFEST-NNNNNN`, a header and records, and `CURRENT`, which names the manifest in use.
//!
//! Header (16 bytes): magic `KONTIMAN` (8), format version (u32 LE), CRC-32 of those 12 bytes (u32 LE).
//!
//! A record: payload length (u32 LE), CRC-32 (u32 LE) of the record's file offset (u64 LE), the length and the
//! payload, then the payload: a version edit, or nothing (a *mark*).
//!
//! Each record is appended only after the one before has been synced, so a crash can tear the last one only. After a
//! record's sync a mark is appended, unsynced: if the record is found bad later while its mark (or any later whole
//! record) is there, it was damaged after it had been acknowledged, and that is corruption. The same holds if the whole
//! records end before the place that was durable according to `EXTENT` (`extent.rs`). Any other bad record with no
//! whole record behind it is the torn tail of the last append, and is cut. The manifest's first record is synced
//! before `CURRENT` names the manifest, so it is never a torn tail.
//!
//! `CURRENT`: the text `kontiki 1 MANIFEST-000007 89abcdef` and a newline: format version, name, CRC-32 of what is
//! before the last space, in hexadecimal.

use super::VersionEdit;
use crate::extent::{EXTENT, REMEDY, Reach, read_extent, refuse_damaged};
use crate::planted::{self, Bug};
use crate::table::FileNumber;
use crate::{Error, Result};
use kontiki_env::Env;
use kontiki_env::codec::{checksum32, get_bytes, get_u32, put_u32};
use kontiki_env::fs::{File, OpenMode, read_all, replace_file};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"KONTIMAN";
/// Of a new manifest. Before version 3 `EXTENT` is not kept (`extent.rs`).
pub(super) const FORMAT_VERSION: u32 = 3;
/// The first with a record that forgets range tombstones (tag 11 of `edit.rs`).
pub(super) const FORMAT_FORGETS_RANGES: u32 = 2;
/// The first version whose writers all keep `EXTENT`.
pub(crate) const FORMAT_KEEPS_EXTENT: u32 = 3;
const FORMAT_VERSION_OLDEST: u32 = 1;
const CURRENT_FORMAT_VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;
const FRAME_BYTES: usize = 8;
const CURRENT: &str = "CURRENT";

/// The path of manifest `number` in the database's directory.
pub fn manifest_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("MANIFEST-{number:06}"))
}

/// The number in a manifest's file name.
pub fn parse_manifest_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("MANIFEST-")?;
    (digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Why an append failed.
pub(super) enum AppendError {
    /// Nothing of it is in the file; it may be tried again.
    Retryable(Error),
    /// The sync failed: what the file holds is unknown.
    Final(Error),
}

/// Appends records to one manifest.
pub(super) struct ManifestWriter {
    file: Arc<dyn File>,
    pub(super) path: PathBuf,
    pub(super) number: u64,
    /// The format version in its header.
    pub(super) format: u32,
    /// The offset of the next record.
    end: u64,
    /// Behind the last record that was synced.
    synced: u64,
}

impl ManifestWriter {
    /// Writes manifest `number` with `first` as its first record, and syncs it. The caller updates `CURRENT`.
    pub(super) fn create(env: &Env, dir: &Path, number: u64, first: &VersionEdit) -> Result<ManifestWriter> {
        let path = manifest_path(dir, number);
        let io = |error: std::io::Error| Error::io(&path, &error);
        if env.fs.exists(&path) {
            // Left by a rewrite that was interrupted before CURRENT named it.
            env.fs.remove(&path).map_err(io)?;
        }
        let file = env.fs.open(&path, OpenMode::CreateNew).map_err(io)?;
        let mut bytes = MAGIC.to_vec();
        put_u32(&mut bytes, FORMAT_VERSION);
        let checksum = checksum32(&[&bytes]);
        put_u32(&mut bytes, checksum);
        assert_eq!(bytes.len(), HEADER_BYTES);
        bytes.extend_from_slice(&frame(&first.encode(), HEADER_BYTES as u64));
        file.write_at(&bytes, 0).map_err(io)?;
        file.sync().map_err(|error| Error::failed_sync(&path, &error))?;
        let end = bytes.len() as u64;
        Ok(ManifestWriter { file, path, number, format: FORMAT_VERSION, end, synced: end })
    }

    /// Continues a manifest that was read, cutting a torn tail.
    pub(super) fn reopen(env: &Env, dir: &Path, contents: &ManifestContents) -> Result<ManifestWriter> {
        let path = manifest_path(dir, contents.number);
        let io = |error: std::io::Error| Error::io(&path, &error);
        let file = env.fs.open(&path, OpenMode::ReadWrite).map_err(io)?;
        if contents.torn {
            tracing::info!(file = %path.display(), offset = contents.end, "cutting the torn tail of the manifest");
            file.set_len(contents.end).map_err(io)?;
        }
        // The last record may have been read from the page cache alone: its writer may have ended before its sync, or
        // the sync may have failed, after which the cache treats its pages as clean. Other work will rely on it (log
        // segments are deleted because of it), so it is written again and synced, with the mark before it, which shared
        // its sync. Earlier records were synced before it came; the one before it is written again only for its known
        // place.
        let at = contents.edits.len().saturating_sub(2);
        let last = contents.edits.get(at).map_or(HEADER_BYTES as u64, |(offset, _)| *offset);
        let mut tail = vec![0; usize::try_from(contents.end - last).unwrap_or(0)];
        let read = file.read_at(&mut tail, last).map_err(io)?;
        if read != tail.len() {
            return Err(Error::Corruption { file: path, offset: last, what: "the manifest has become shorter".into() });
        }
        file.write_at(&tail, last).and_then(|()| file.sync()).map_err(|error| Error::failed_sync(&path, &error))?;
        let (number, format, end) = (contents.number, contents.format, contents.end);
        Ok(ManifestWriter { file, path, number, format, end, synced: end })
    }

    /// Appends and syncs a record, then its mark.
    pub(super) fn append(&mut self, edit: &VersionEdit) -> std::result::Result<(), AppendError> {
        let bytes = frame(&edit.encode(), self.end);
        if let Err(error) = self.file.write_at(&bytes, self.end) {
            // All of the record may be in the file nevertheless. Only once it is surely gone may its files be deleted.
            let cut = self.file.set_len(self.end).and_then(|()| self.file.sync());
            cut.map_err(|error| AppendError::Final(Error::failed_sync(&self.path, &error)))?;
            return Err(AppendError::Retryable(Error::io(&self.path, &error)));
        }
        assert!(self.end >= (HEADER_BYTES + FRAME_BYTES) as u64, "a manifest starts with a whole version");
        if !planted::is_set(Bug::ManifestNotSynced) {
            self.file.sync().map_err(|error| AppendError::Final(Error::failed_sync(&self.path, &error)))?;
        }
        self.end += bytes.len() as u64;
        self.synced = self.end;
        let mark = frame(&[], self.end);
        match self.file.write_at(&mark, self.end) {
            Ok(()) => self.end += mark.len() as u64,
            // A missing mark only weakens the diagnosis of later damage; the next record takes its place.
            Err(error) => tracing::debug!(file = %self.path.display(), %error, "no mark after a manifest record"),
        }
        Ok(())
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.end
    }

    /// Bytes that are durable, up to the end of a record.
    pub(super) fn synced_bytes(&self) -> u64 {
        self.synced
    }
}

fn frame(payload: &[u8], offset: u64) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a manifest record stays far below 4 GiB");
    let checksum = checksum32(&[&offset.to_le_bytes(), &length.to_le_bytes(), payload]);
    let mut out = Vec::with_capacity(FRAME_BYTES + payload.len());
    put_u32(&mut out, length);
    put_u32(&mut out, checksum);
    out.extend_from_slice(payload);
    debug_assert_eq!(out.len(), FRAME_BYTES + payload.len());
    out
}

/// The payload of the whole record at `offset`, if there is one.
fn record_at(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let mut input = bytes.get(offset..)?;
    let length = get_u32(&mut input).ok()?;
    let checksum = get_u32(&mut input).ok()?;
    let payload = get_bytes(&mut input, length as usize).ok()?;
    let covered = checksum32(&[&(offset as u64).to_le_bytes(), &length.to_le_bytes(), payload]);
    (covered == checksum).then_some(payload)
}

/// The content of a manifest.
#[derive(Debug)]
pub struct ManifestContents {
    /// The manifest's number.
    pub number: u64,
    /// The format version in its header.
    pub format: u32,
    /// The edits with their file offsets, in order.
    pub edits: Vec<(u64, VersionEdit)>,
    /// Where the last whole record ends.
    pub end: u64,
    /// Whether bytes of a torn append follow.
    pub torn: bool,
}

impl ManifestContents {
    /// The tables that its edits have removed, and not added again.
    pub(crate) fn removed_tables(&self) -> BTreeSet<FileNumber> {
        let mut removed = BTreeSet::new();
        for (_, edit) in &self.edits {
            removed.extend(edit.removed.iter().map(|(_, _, number)| *number));
            edit.added.iter().for_each(|added| {
                removed.remove(&added.meta.number);
            });
        }
        removed
    }
}

/// Parses a manifest's bytes. Never panics, whatever they are.
pub fn parse_manifest(bytes: &[u8], number: u64, path: &Path) -> Result<ManifestContents> {
    let corrupt = |offset: usize, what: &str| Error::Corruption {
        file: path.to_path_buf(),
        offset: offset as u64,
        what: what.to_string(),
    };
    let format = check_header(bytes, path)?;
    let mut offset = HEADER_BYTES;
    let mut edits = Vec::new();
    while let Some(payload) = record_at(bytes, offset) {
        if !payload.is_empty() {
            let edit = VersionEdit::decode(payload).map_err(|_| {
                corrupt(offset, "a manifest record is whole but malformed: written by a newer kontiki?")
            })?;
            if edit.is_snapshot != edits.is_empty() {
                return Err(corrupt(offset, "a manifest must start with a whole version, and hold no second one"));
            }
            edits.push((offset as u64, edit));
        }
        offset += FRAME_BYTES + payload.len();
    }
    if edits.is_empty() {
        return Err(corrupt(offset, "the manifest's first record is damaged"));
    }
    assert!(offset <= bytes.len(), "only whole records were stepped over");
    let torn = offset < bytes.len();
    if torn && (offset + 1..bytes.len()).any(|later| record_at(bytes, later).is_some()) {
        return Err(corrupt(offset, "a manifest record is damaged, and whole records follow it"));
    }
    Ok(ManifestContents { number, format, edits, end: offset as u64, torn })
}

/// Returns the format version.
fn check_header(bytes: &[u8], path: &Path) -> Result<u32> {
    let corrupt = |what: &str| Error::Corruption { file: path.to_path_buf(), offset: 0, what: what.to_string() };
    let mut input = bytes;
    let short = |_| corrupt("the manifest's header is cut short");
    let magic = get_bytes(&mut input, 8).map_err(short)?;
    let version = get_u32(&mut input).map_err(short)?;
    let checksum = get_u32(&mut input).map_err(short)?;
    if magic != MAGIC {
        return Err(corrupt("not a manifest: the magic number is wrong"));
    }
    if checksum != checksum32(&[magic, &version.to_le_bytes()]) {
        return Err(corrupt("the manifest header's checksum does not match"));
    }
    if !(FORMAT_VERSION_OLDEST..=FORMAT_VERSION).contains(&version) {
        let what = format!(
            "manifest format version {version} is unknown, this build knows up to {FORMAT_VERSION}; open it with \
             the newer kontiki that wrote it"
        );
        return Err(Error::UnsupportedFormat { file: path.to_path_buf(), what });
    }
    Ok(version)
}

/// Reads the manifest that `CURRENT` names; `None` if there is no `CURRENT`. Refuses one that is known to have reached
/// further, and one of which nothing can be known because the record of its reach is damaged.
pub fn read_current(env: &Env, dir: &Path) -> Result<Option<ManifestContents>> {
    let (contents, lost) = read_current_as_it_is(env, dir)?;
    lost.map_or(Ok(()), Err)?;
    refuse_damaged(&*env.fs, dir)?;
    Ok(contents)
}

/// What is left of the manifest that `CURRENT` names, and what is known to be missing of it.
pub(super) fn read_current_as_it_is(env: &Env, dir: &Path) -> Result<(Option<ManifestContents>, Option<Error>)> {
    // Read first: next to a writer its statement holds for everything that is read later.
    let reach = read_extent(&*env.fs, dir)?;
    let contents = read_named(env, dir)?;
    let lost = reach.and_then(|reach| lost_edits(&reach, contents.as_ref(), dir));
    Ok((contents, lost))
}

/// What a manifest lacks of the data that had been acknowledged.
fn lost_edits(reach: &Reach, contents: Option<&ManifestContents>, dir: &Path) -> Option<Error> {
    let corrupt = |file: PathBuf, offset: u64, what: String| Some(Error::Corruption { file, offset, what });
    let path = manifest_path(dir, reach.manifest);
    let Some(contents) = contents else {
        let what = format!("CURRENT is missing, and {EXTENT} says that {} was in use; {REMEDY}", path.display());
        return corrupt(dir.join(CURRENT), 0, what);
    };
    if contents.number < reach.manifest {
        let used = manifest_path(dir, contents.number);
        let what = format!("CURRENT names {}, after {} had been in use; {REMEDY}", used.display(), path.display());
        return corrupt(dir.join(CURRENT), 0, what);
    }
    if contents.number == reach.manifest && contents.end < reach.manifest_bytes {
        let what = format!(
            "the manifest has lost its end: its whole records have {} bytes of the {} that were durable. Tables \
             that it does not name any more may hold acknowledged data; {REMEDY}",
            contents.end, reach.manifest_bytes
        );
        return corrupt(path, contents.end, what);
    }
    None
}

fn read_named(env: &Env, dir: &Path) -> Result<Option<ManifestContents>> {
    let current = dir.join(CURRENT);
    if !env.fs.exists(&current) {
        return Ok(None);
    }
    let bytes = read_all(&*env.fs, &current).map_err(|error| Error::io(&current, &error))?;
    let number = parse_current(&bytes, &current)?;
    let path = manifest_path(dir, number);
    let bytes = read_all(&*env.fs, &path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::Corruption {
            file: path.clone(),
            offset: 0,
            what: "CURRENT names this manifest, but it is missing".to_string(),
        },
        _ => Error::io(&path, &error),
    })?;
    parse_manifest(&bytes, number, &path).map(Some)
}

/// Makes `CURRENT` name manifest `number`, durably.
pub(super) fn write_current(env: &Env, dir: &Path, number: u64) -> Result<()> {
    let bytes = encode_current(number);
    let result = replace_file(&*env.fs, dir, CURRENT, &bytes);
    result.map(drop).map_err(|error| Error::io(dir.join(CURRENT), &error))
}

/// The manifest that `CURRENT` names now.
pub(super) fn current_number(env: &Env, dir: &Path) -> Result<u64> {
    let path = dir.join(CURRENT);
    let bytes = read_all(&*env.fs, &path).map_err(|error| Error::io(&path, &error))?;
    parse_current(&bytes, &path)
}

fn encode_current(number: u64) -> Vec<u8> {
    let text = format!("kontiki {CURRENT_FORMAT_VERSION} MANIFEST-{number:06}");
    format!("{text} {:08x}\n", checksum32(&[text.as_bytes()])).into_bytes()
}

fn parse_current(bytes: &[u8], path: &Path) -> Result<u64> {
    let corrupt = |what: &str| Error::Corruption { file: path.to_path_buf(), offset: 0, what: what.to_string() };
    let text = std::str::from_utf8(bytes).map_err(|_| corrupt("CURRENT is not text"))?;
    let line = text.strip_suffix('\n').ok_or_else(|| corrupt("CURRENT does not end with a newline"))?;
    let (covered, checksum) = line.rsplit_once(' ').ok_or_else(|| corrupt("CURRENT is malformed"))?;
    if checksum != format!("{:08x}", checksum32(&[covered.as_bytes()])) {
        return Err(corrupt("CURRENT's checksum does not match"));
    }
    let mut words = covered.split(' ');
    let (product, version, name) = (words.next(), words.next(), words.next());
    if product != Some("kontiki") {
        return Err(corrupt("CURRENT is not kontiki's"));
    }
    if version != Some("1") {
        let what = format!(
            "format version {} is unknown, this build knows up to {CURRENT_FORMAT_VERSION}; open it with the newer \
             kontiki that wrote it",
            version.unwrap_or("(none)")
        );
        return Err(Error::UnsupportedFormat { file: path.to_path_buf(), what });
    }
    name.and_then(parse_manifest_name).ok_or_else(|| corrupt("CURRENT does not name a manifest"))
}
