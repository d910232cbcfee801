//! Reads of entries, record by record: consecutive entries often share one, and each record is checked as a whole.

use super::error::{damaged, failed};
use super::format::{FileId, RECORD_BYTES, decode_record};
use super::group::Position;
use bytes::Bytes;
use kontiki_engine::Result;
use kontiki_env::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where entries are. They can be read without holding anything: a file that is written again, or whose log is removed,
/// stays readable through its handle.
#[derive(Default)]
pub struct Located {
    pub file: Option<(Arc<dyn File>, PathBuf, FileId)>,
    pub positions: Vec<Position>,
}

impl Located {
    pub fn read(&self) -> Result<Vec<Bytes>> {
        match &self.file {
            Some((file, path, id)) => read_entries(&**file, path, *id, &self.positions),
            None => Ok(Vec::new()),
        }
    }
}

fn read_entries(file: &dyn File, path: &Path, id: FileId, positions: &[Position]) -> Result<Vec<Bytes>> {
    let mut entries = Vec::with_capacity(positions.len());
    let mut last: Option<(u64, Bytes)> = None;
    for position in positions {
        let body = match &last {
            Some((record, body)) if *record == position.record => body,
            _ => &last.insert((position.record, read_body(file, path, id, position)?)).1,
        };
        let (start, bytes) = (position.start as usize, position.bytes as usize);
        entries.push(body.slice(start..start + bytes));
    }
    Ok(entries)
}

fn read_body(file: &dyn File, path: &Path, id: FileId, position: &Position) -> Result<Bytes> {
    let mut bytes = vec![0; RECORD_BYTES + position.body_bytes as usize];
    let count = file.read_at(&mut bytes, position.record).map_err(|error| failed(path, &error))?;
    bytes.truncate(count);
    let record = decode_record(&bytes, 0, id, position.record).map(|record| record.body);
    match record.filter(|body| body.len() == position.body_bytes as usize) {
        Some(body) => Ok(Bytes::from(bytes).slice(body)),
        None => Err(damaged(path, position.record, "a record does not match its checksum")),
    }
}
