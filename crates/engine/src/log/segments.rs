//! The segments that exist: their files and sizes, shared by the writer, by readers of stream entries and by
//! retention.

use super::format::{decode_record, segment_path};
use super::next::NextSegments;
use crate::{Error, Result};
use bytes::Bytes;
use kontiki_env::fs::{File, Fs};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a record lies. Ordered as the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordPosition {
    pub(crate) segment: u64,
    /// Offset of the record's header in the segment.
    pub(crate) offset: u64,
    /// Bytes of the record, header included.
    pub(crate) bytes: u64,
}

struct Segment {
    file: Arc<dyn File>,
    /// Bytes in use: up to the end of the last record.
    used: u64,
}

/// All segments by number. The numbers are consecutive (invariant 4 of the log).
pub(crate) struct Segments {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    by_number: RwLock<BTreeMap<u64, Segment>>,
}

impl Segments {
    /// No segments yet, in `directory`.
    pub(crate) fn new(fs: Arc<dyn Fs>, directory: PathBuf) -> Segments {
        Segments { fs, directory, by_number: RwLock::default() }
    }

    /// The directory of the segments.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file system they are on.
    pub(crate) fn fs(&self) -> &dyn Fs {
        &*self.fs
    }

    /// The path of a segment.
    pub(crate) fn path(&self, number: u64) -> PathBuf {
        segment_path(&self.directory, number)
    }

    /// Takes in a segment, newer than all others.
    pub(crate) fn add(&self, number: u64, file: Arc<dyn File>, used: u64) {
        let mut segments = self.by_number.write();
        let newest = segments.last_key_value().map(|(newest, _)| *newest);
        assert!(newest.is_none_or(|newest| newest + 1 == number), "segment numbers are consecutive");
        segments.insert(number, Segment { file, used });
    }

    /// Notes how far a segment is filled.
    pub(crate) fn set_used(&self, number: u64, used: u64) {
        let mut segments = self.by_number.write();
        let segment = segments.get_mut(&number).expect("the writer fills only segments that it added");
        assert!(used >= segment.used, "a segment only fills up");
        segment.used = used;
    }

    /// Number and bytes in use of every segment, oldest first.
    pub(crate) fn list(&self) -> Vec<(u64, u64)> {
        self.by_number.read().iter().map(|(number, segment)| (*number, segment.used)).collect()
    }

    /// The newest segment.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.by_number.read().last_key_value().map(|(number, _)| *number)
    }

    /// Deletes the oldest segment, or puts its file aside to be used again, and makes that durable before it returns. [`Error::NoSpace`] leaves it in place;
    /// after any other error the log must stop, because a later deletion might become durable without this one.
    pub(crate) fn delete_oldest(&self, number: u64, next: &NextSegments) -> Result<()> {
        {
            let segments = self.by_number.read();
            assert_eq!(segments.keys().next(), Some(&number), "segments go oldest first");
            assert!(segments.len() > 1, "the newest segment stays: it carries the numbering");
        }
        let path = self.path(number);
        let free;
        {
            // A reader of stream entries may hold the file and must go on finding in it what it knows to be there.
            // Nobody takes a handle while the lock is held.
            let mut segments = self.by_number.write();
            let segment = segments.get(&number).expect("it is the oldest");
            let alone = Arc::strong_count(&segment.file) == 1 && segment.file.links().is_ok_and(|links| links == 1);
            let retired = if alone { next.retire(number, &*segment.file) } else { Ok(None) };
            free = retired.map_err(|error| Error::io(&path, &error))?;
            if free.is_none() {
                self.fs.remove(&path).map_err(|error| Error::io(&path, &error))?;
            }
            segments.remove(&number);
        }
        self.fs.sync_dir(&self.directory).map_err(|error| Error::Io {
            file: self.directory.clone(),
            kind: error.kind(),
            message: error.to_string(),
        })?;
        free.into_iter().for_each(|free| next.put_free(free));
        Ok(())
    }

    /// The file of a segment. It stays readable while it is held, also if the segment is deleted meanwhile.
    pub(crate) fn file(&self, number: u64) -> Option<Arc<dyn File>> {
        self.by_number.read().get(&number).map(|segment| segment.file.clone())
    }

    /// Reads a record's payload back and checks it.
    pub(crate) fn read(&self, file: &dyn File, position: RecordPosition) -> Result<Bytes> {
        let path = self.path(position.segment);
        let length = usize::try_from(position.bytes).map_err(|_| Error::Bug("a record beyond memory".into()))?;
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            let count = file
                .read_at(&mut bytes[filled..], position.offset + filled as u64)
                .map_err(|error| Error::io(&path, &error))?;
            if count == 0 {
                break;
            }
            filled += count;
        }
        bytes.truncate(filled);
        let what = "a log record that was whole when it was written is damaged".to_string();
        match decode_record(position.segment, &bytes, 0, position.offset) {
            Some(record) if record.bytes() == position.bytes => {
                let start = length - record.payload.len();
                Ok(Bytes::from(bytes).slice(start..))
            }
            _ => Err(Error::Corruption { file: path, offset: position.offset, what }),
        }
    }
}
