//! The segments that exist: their files and sizes, shared by the writer, by readers of stream entries and by
//! retention.

use super::format::{SEGMENT_HEADER_BYTES, decode_record, segment_path};
use super::next::NextSegments;
use crate::lock::{Rank, RwLock};
use crate::{Error, Result, SequenceNumber};
use bytes::Bytes;
use kontiki_env::fs::{File, Fs};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Bytes in use: up to the end of the last record, all of them whole records.
    used: u64,
    /// The log position of its first byte; `None` of an earlier run: all of it is durable.
    base: Option<u64>,
    /// Of its batches; 0 if it has none.
    first_sequence: SequenceNumber,
    last_sequence: SequenceNumber,
}

/// The state of a segment, for subscribers of the log.
pub(crate) enum Look {
    /// It was deleted.
    Gone,
    /// It is not there yet.
    NotYet,
    /// Its file, how much of it is whole records, and whether a newer segment exists, so that nothing more follows.
    Here { file: Arc<dyn File>, used: u64, finished: bool },
}

/// Number, size and batches of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    pub(crate) number: u64,
    /// Bytes in use.
    pub(crate) bytes: u64,
    /// Sequence numbers of its first and last batch; 0 if it has none.
    pub(crate) first_sequence: SequenceNumber,
    pub(crate) last_sequence: SequenceNumber,
}

impl Segment {
    fn note_batch(&mut self, sequence: SequenceNumber) {
        if sequence > 0 {
            self.last_sequence = self.last_sequence.max(sequence);
            if self.first_sequence == 0 {
                self.first_sequence = sequence;
            }
        }
    }
}

/// All segments by number. The numbers are consecutive (invariant 4 of the log).
pub(crate) struct Segments {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    by_number: RwLock<BTreeMap<u64, Segment>>,
    /// Every logged batch with a larger number is in these segments.
    deleted_through: AtomicU64,
}

impl Segments {
    /// No segments yet, in `directory`.
    pub(crate) fn new(fs: Arc<dyn Fs>, directory: PathBuf) -> Segments {
        Segments {
            fs,
            directory,
            by_number: RwLock::new(Rank::LogSegments, BTreeMap::new()),
            deleted_through: AtomicU64::new(0),
        }
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

    /// Adds a segment, newer than all others; `base` is the log position of its first byte, `None` if all of it is
    /// durable.
    pub(crate) fn add(&self, number: u64, file: Arc<dyn File>, used: u64, base: Option<u64>) {
        let mut segments = self.by_number.write();
        let newest = segments.last_key_value().map(|(newest, _)| *newest);
        assert!(newest.is_none_or(|newest| newest + 1 == number), "segment numbers are consecutive");
        segments.insert(number, Segment { file, used, base, first_sequence: 0, last_sequence: 0 });
    }

    /// Records how far a segment is filled, by a record with this sequence number (0 if it has none).
    pub(crate) fn set_used(&self, number: u64, used: u64, sequence: SequenceNumber) {
        let mut segments = self.by_number.write();
        let segment = segments.get_mut(&number).expect("the writer fills only segments that it added");
        assert!(used >= segment.used, "a segment only fills up");
        segment.used = used;
        segment.note_batch(sequence);
    }

    /// Recovery: a segment holds a batch with this number.
    pub(crate) fn note_batch(&self, number: u64, sequence: SequenceNumber) {
        let mut segments = self.by_number.write();
        segments.get_mut(&number).expect("recovery adds a segment before it replays it").note_batch(sequence);
    }

    /// After recovery, which has made everything up to `visible` visible: what is older than the first batch of the log
    /// may have been in deleted segments.
    pub(crate) fn set_start(&self, visible: SequenceNumber) {
        let segments = self.by_number.read();
        let first = segments.values().map(|segment| segment.first_sequence).find(|first| *first > 0);
        self.deleted_through.store(first.map_or(visible, |first| first - 1), Ordering::Release);
    }

    /// Every logged batch with a larger number than this is in the log.
    pub(crate) fn deleted_through(&self) -> SequenceNumber {
        self.deleted_through.load(Ordering::Acquire)
    }

    /// Number, size and batches of every segment, oldest first.
    pub(crate) fn facts(&self) -> Vec<SegmentFacts> {
        let facts = |(number, segment): (&u64, &Segment)| SegmentFacts {
            number: *number,
            bytes: segment.used,
            first_sequence: segment.first_sequence,
            last_sequence: segment.last_sequence,
        };
        self.by_number.read().iter().map(facts).collect()
    }

    /// Where to begin to read for the batches with numbers above `after`: segment and offset of a record, or of where
    /// the next one will be. `None` if some of them may have been in deleted segments.
    pub(crate) fn start_after(&self, after: SequenceNumber) -> Option<(u64, u64)> {
        // Under the lock, which a deletion holds too.
        let segments = self.by_number.read();
        if self.deleted_through() > after {
            return None;
        }
        if let Some((number, _)) = segments.iter().find(|(_, segment)| segment.last_sequence > after) {
            return Some((*number, SEGMENT_HEADER_BYTES));
        }
        // There is no such batch yet: no existing record need be read. The first segment ever has number 1.
        let end = |(number, segment): (&u64, &Segment)| (*number, segment.used);
        Some(segments.last_key_value().map_or((1, SEGMENT_HEADER_BYTES), end))
    }

    /// The present state of a segment.
    pub(crate) fn look(&self, number: u64) -> Look {
        let segments = self.by_number.read();
        let newest = segments.last_key_value().map_or(0, |(newest, _)| *newest);
        match segments.get(&number) {
            Some(segment) => Look::Here { file: segment.file.clone(), used: segment.used, finished: number < newest },
            None if number > newest => Look::NotYet,
            None => Look::Gone,
        }
    }

    /// Whether the record is durable once the log is, up to this position.
    pub(crate) fn is_durable(&self, record: RecordPosition, durable: u64) -> bool {
        let base = self.by_number.read().get(&record.segment).and_then(|segment| segment.base);
        base.is_none_or(|base| base + record.offset + record.bytes <= durable)
    }

    /// Number and bytes in use of every segment, oldest first.
    pub(crate) fn list(&self) -> Vec<(u64, u64)> {
        self.by_number.read().iter().map(|(number, segment)| (*number, segment.used)).collect()
    }

    /// The newest segment.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.by_number.read().last_key_value().map(|(number, _)| *number)
    }

    /// Deletes the oldest segment, or puts its file aside for reuse, and makes that durable before it returns.
    /// [`Error::NoSpace`] leaves it in place; after any other error the log must stop, because a later deletion might
    /// become durable without this one.
    pub(crate) fn delete_oldest(&self, number: u64, next: &NextSegments) -> Result<()> {
        {
            let segments = self.by_number.read();
            assert_eq!(segments.keys().next(), Some(&number), "segments go oldest first");
            assert!(segments.len() > 1, "the newest segment stays: it carries the numbering");
        }
        next.begin_log_at(number + 1)?;
        let path = self.path(number);
        let free;
        {
            // A reader of stream entries may hold the file and must still find in it the records that it knows.
            // No reader takes a handle while the lock is held.
            let mut segments = self.by_number.write();
            let segment = segments.get(&number).expect("it is the oldest");
            let alone = Arc::strong_count(&segment.file) == 1 && segment.file.links().is_ok_and(|links| links == 1);
            let retired = if alone { next.retire(number, &*segment.file) } else { Ok(None) };
            free = retired.map_err(|error| Error::io(&path, &error))?;
            if free.is_none() {
                self.fs.remove(&path).map_err(|error| Error::io(&path, &error))?;
            }
            let gone = segments.remove(&number).expect("it is the oldest");
            self.deleted_through.fetch_max(gone.last_sequence, Ordering::AcqRel);
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
