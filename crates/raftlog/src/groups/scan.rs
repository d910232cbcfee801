//! What is in a file after any end of its process.
//!
//! Records are read up to the first bad one. If a whole record behind it, or one before it, or the header, says that
//! the file was durable beyond that place, it is damage; otherwise a crash has torn the file there, or nothing was
//! written. Then two things have to be made final before anything is written behind ([`make_final`]):
//!
//! - *The cut.* Otherwise, after a record of the same length as the torn one and another crash, old whole records would
//!   follow it. The file is cut there, and synced.
//! - *What was read and nothing says that it was durable*: it may come from the page cache alone. The process may have
//!   ended between write and sync; or its sync has failed, after which Linux counts the lost pages as written. So it is
//!   written again as it is, and synced.

use super::error::{damaged, failed, fatal};
use super::format::{BadHeader, FileId, VERSION, claim_behind, decode_header, decode_record, record_bytes};
use super::group::Group;
use crate::ops;
use crate::planted::{self, Bug};
use kontiki_engine::{Error, Result};
use kontiki_env::fs::{Fs, OpenMode, read_all};
use std::path::Path;

/// A file as it was found.
pub struct Found {
    pub group: Group,
    /// Behind what is known to be durable: from there on, and the bytes.
    unclaimed: (u64, Vec<u8>),
    /// Whether there is anything behind the end.
    is_torn: bool,
}

/// Reads a file. Changes nothing.
pub fn scan(fs: &dyn Fs, path: &Path, id: FileId) -> Result<Found> {
    let file = read_all(fs, path).map_err(|error| failed(path, &error))?;
    scan_bytes(&file, path, id)
}

/// The same, of the content of a file.
pub fn scan_bytes(file: &[u8], path: &Path, id: FileId) -> Result<Found> {
    let base = decode_header(file, id).map_err(|bad| match bad {
        BadHeader::Damaged => damaged(path, 0, "the header does not match its checksum"),
        BadHeader::Version(found) => Error::UnsupportedFormat {
            file: path.to_owned(),
            what: format!("format {found}; this version knows {VERSION}: use a newer version of the program"),
        },
    })?;
    let mut group = Group::new(id);
    let (mut at, mut claim) = (group.end as usize, base);
    // The last record that has operations ends here.
    let mut data_end = at;
    while let Some(record) = decode_record(file, at, id, at as u64) {
        let body = file.get(record.body.clone()).unwrap_or_default();
        let items = ops::decode(body).map_err(|_| damaged(path, at as u64, "a record cannot be decoded"))?;
        group.apply(at as u64, body, items).map_err(|what| damaged(path, at as u64, what))?;
        claim = claim.max(record.durable);
        let next = at + record_bytes(record.body.len());
        data_end = if body.is_empty() { data_end } else { next };
        at = next;
    }
    let tail = file.get(at.min(file.len())..).unwrap_or_default();
    let is_torn = tail.iter().any(|byte| *byte != 0) || at > file.len();
    claim = claim.max(if is_torn { claim_behind(file, at, id) } else { 0 });
    if claim > at as u64 && !planted::is_set(Bug::DamageIsATornTail) {
        let what = format!("a record is damaged or missing, although the file was durable through {claim}");
        return Err(damaged(path, at as u64, what));
    }
    group.end = at as u64;
    group.allocated = (file.len() as u64).max(group.end);
    group.durable = claim.min(group.end);
    group.is_claimed = claim >= data_end as u64;
    let from = (claim as usize).min(file.len());
    let unclaimed = file.get(from..at.min(file.len())).filter(|_| !group.is_claimed);
    Ok(Found { group, unclaimed: (from as u64, unclaimed.unwrap_or_default().to_vec()), is_torn })
}

/// Makes what was found final: see the module.
pub fn make_final(fs: &dyn Fs, path: &Path, found: Found) -> Result<Group> {
    let Found { mut group, unclaimed: (offset, bytes), is_torn } = found;
    if is_torn || !bytes.is_empty() {
        let file = fs.open(path, OpenMode::ReadWrite).map_err(|error| failed(path, &error))?;
        file.write_at(&bytes, offset).map_err(|error| failed(path, &error))?;
        if is_torn {
            file.set_len(group.end).map_err(|error| failed(path, &error))?;
            group.allocated = group.end;
        }
        file.sync().map_err(|error| fatal(path, "sync failed", &error))?;
        group.durable = group.end;
    }
    Ok(group)
}
