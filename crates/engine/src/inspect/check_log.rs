//! Checks the log: a dry run of its recovery.

use super::check::{CheckReport, Problem, Suspects};
use crate::directory::DryFs;
use crate::log::{
    LogEnd, RawRecord, RecordKind, RecordPosition, Segments, WAL_DIR, decode_commit, decode_ingested, decode_rewrite,
    recover, refuse_missing_segments,
};
use crate::stream::StreamIndex;
use crate::types::{BatchEntry, Content, Decoded, SEQUENCE_NUMBER_MAX};
use crate::value_files::ValueRecovery;
use crate::version::{ValueSegments, Version};
use crate::vlog::{VALUES_DIR, ValueStore};
use crate::{Error, Result, WriteBatch};
use kontiki_env::Env;
use kontiki_env::fs::Fs;
use std::path::Path;
use std::sync::Arc;

/// Reads every record of every segment: frames and payloads, the order of sequence numbers, families, and that no
/// stream has a gap.
pub(super) fn check_log(
    env: &Env,
    dir: &Path,
    version: &Version,
    report: &mut CheckReport,
    suspects: &mut Suspects,
) -> Result<()> {
    let wal = dir.join(WAL_DIR);
    refuse_missing_segments(&*env.fs, dir)?;
    if !env.fs.exists(&wal) {
        // The manifest is made first: the process that created the directory ended before it made the log.
        return Ok(());
    }
    let fs: Arc<dyn Fs> = Arc::new(DryFs(env.fs.clone()));
    let store = Arc::new(ValueStore::new(fs.clone(), dir.join(VALUES_DIR)));
    let values = version.values().clone().located_in(store.clone());
    let beside = ValueRecovery::new(store, version.values().clone(), version.flushed_sequence())?;
    let segments = Segments::new(fs, wal.clone());
    let (streams, damaged) = (StreamIndex::default(), Vec::new());
    let mut walk = Walk { segments: &segments, version, values, streams, last_sequence: 0, records: 0, damaged };
    let recovered = recover(&segments, &beside, &mut |position, record| walk.visit(position, record, &beside));
    for (number, error) in std::mem::take(&mut walk.damaged) {
        if let Error::Corruption { offset, .. } = &error {
            suspects.remove(&(number, *offset));
        }
        report.note_once(error)?;
    }
    let recovered = recovered?;
    report.log_records = walk.records;
    report.log_bytes = recovered.replayed_bytes;
    report.log_segments = segments.list().len() as u64;
    report.log_unclean = recovered.unclean;
    if let Some(LogEnd { file, offset, torn }) = recovered.end {
        let what = if torn {
            "the log ends before records that are not whole: so a power loss leaves what was not yet acknowledged as \
             durable, and so does damage to what was written last. The next open cuts them"
        } else {
            "the last process did not close the database, and the log ends here: damage to what it wrote last would \
             look the same"
        };
        report.notes.push(Problem { file, offset, what: what.to_string() });
    }
    walk.streams.check_whole().map_err(|what| Error::Corruption { file: wal, offset: 0, what })
}

struct Walk<'a> {
    segments: &'a Segments,
    version: &'a Version,
    values: ValueSegments,
    streams: StreamIndex,
    last_sequence: u64,
    records: u64,
    /// Values that replayed batches refer to and that are damaged, with the numbers of their files.
    damaged: Vec<(u64, Error)>,
}

impl Walk<'_> {
    fn visit(&mut self, position: RecordPosition, record: RawRecord<'_>, beside: &ValueRecovery) -> Result<()> {
        let corrupt = |what: String| Error::Corruption {
            file: self.segments.path(position.segment),
            offset: position.offset,
            what,
        };
        let malformed = |_| corrupt("a log record is whole but malformed".to_string());
        self.records += 1;
        let streams = match record.kind {
            RecordKind::Rewrite => decode_rewrite(record.payload).map_err(malformed)?,
            RecordKind::Commit => {
                let commit = decode_commit(record.sequence, record.payload).map_err(malformed)?;
                if !commit.batch.is_empty() {
                    self.note_sequence(commit.sequence).map_err(corrupt)?;
                }
                for family in commit.batch.entries().map(|entry| entry.family()) {
                    // What is flushed is not replayed, so only later records need their family.
                    let known =
                        self.version.family(family).is_some() || self.version.dropped_families().contains_key(family);
                    if commit.sequence > self.version.flushed_sequence() && !known {
                        return Err(corrupt(format!("a log record writes to {family:?}, which does not exist")));
                    }
                }
                if commit.sequence > self.version.flushed_sequence() {
                    beside.check(&commit.batch)?;
                    self.check_values(&commit.batch)?;
                }
                commit.streams
            }
            RecordKind::Ingest => {
                decode_ingested(record.sequence, record.payload).map_err(malformed)?;
                self.note_sequence(record.sequence).map_err(corrupt)?;
                Vec::new()
            }
            RecordKind::Seal => return Err(Error::Bug("recovery keeps seals to itself".into())),
        };
        self.streams.apply(position, streams);
        Ok(())
    }

    /// The values that a batch refers to, which no table may refer to yet.
    fn check_values(&mut self, batch: &WriteBatch) -> Result<()> {
        for entry in batch.entries() {
            let BatchEntry::Version { family, key, kind, stored } = entry else { continue };
            let (true, Ok(Decoded { content: Content::Pointer(pointer), .. })) =
                (kind.is_pointer(), Decoded::new(kind, stored))
            else {
                continue;
            };
            let (reader, moved) = self.values.reader_of(pointer)?;
            match reader.verify(pointer, moved, family, key) {
                Ok(_) => {}
                Err(error @ Error::Corruption { .. }) => self.damaged.push((reader.number(), error)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn note_sequence(&mut self, found: u64) -> std::result::Result<(), String> {
        let last = self.last_sequence;
        if found <= last || found >= SEQUENCE_NUMBER_MAX {
            return Err(format!("a log record has sequence number {found} after {last}"));
        }
        self.last_sequence = found;
        Ok(())
    }
}
