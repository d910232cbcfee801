//! Reads what a backup has copied from end to end: blocks of tables, records of value files.

use super::CopySource;
use super::files::{FileKind, LiveFile};
use crate::db::Core;
use crate::read::{ReadState, live_pointers};
use crate::table::{BlockCache, TableReader, verify_table};
use crate::version::TableDescription;
use crate::vlog::ValueReader;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Verifies the copied files of one backup. A crash may have torn values that no table refers to, and a segment keeps
/// those: so damage of a value counts only if a reader may read it, which [`Verifier::finish`] finds out.
pub(super) struct Verifier<'a> {
    core: &'a Core,
    source: &'a CopySource,
    tables: BTreeMap<u64, TableDescription<'a>>,
    /// Damaged records of value segments: file number and offset, and what is wrong.
    suspects: BTreeMap<(u64, u64), &'static str>,
}

impl<'a> Verifier<'a> {
    pub(super) fn new(core: &'a Core, source: &'a CopySource) -> Verifier<'a> {
        Verifier { core, source, tables: source.edit.described_tables(), suspects: BTreeMap::new() }
    }

    /// Verifies the copy of a file; errors are about the file that it was copied from.
    pub(super) fn verify(&mut self, file: LiveFile, copy: &Path, from: &Path) -> Result<()> {
        let verified = match file.kind {
            FileKind::Table => self.verify_table(file, copy),
            FileKind::Values => self.verify_values(file, copy),
        };
        verified.map_err(|error| match error {
            Error::Corruption { file, offset, what } if file == copy => {
                Error::Corruption { file: from.to_path_buf(), offset, what }
            }
            other => other,
        })
    }

    fn verify_table(&self, file: LiveFile, copy: &Path) -> Result<()> {
        let described = self.tables.get(&file.number);
        let described = described.ok_or_else(|| Error::Bug(format!("table {} is in no version", file.number)))?;
        let cache = Arc::new(BlockCache::new(0));
        let reader = TableReader::open_path(&self.core.shared().env, copy.to_path_buf(), described.meta, cache)?;
        verify_table(&Arc::new(reader), described.family, described.meta).map(drop)
    }

    fn verify_values(&mut self, file: LiveFile, copy: &Path) -> Result<()> {
        let reader = ValueReader::open(&*self.core.shared().env.fs, copy.to_path_buf(), file.number)?;
        reader.verify_all(file.bytes, &mut |offset, what| {
            self.suspects.insert((file.number, offset), what);
        })
    }

    /// Refuses damage that a reader may read.
    pub(super) fn finish(self) -> Result<()> {
        if self.suspects.is_empty() {
            return Ok(());
        }
        let (core, version) = (self.core, self.source.version.clone());
        let clock = core.shared().env.clock.clone();
        let recorder = crate::measure::Recorder::off(clock.clone());
        let tables = core.shared().context.tables.clone();
        let state = ReadState { memtables: Vec::new(), version: version.clone(), tables, clock, recorder, dead: None };
        for (family, _, table) in version.tables() {
            live_pointers(&state, family, table, &mut |_, pointer| {
                let (reader, moved) = version.values().reader_of(pointer)?;
                let place = (reader.number(), reader.locate(pointer, moved)?);
                match self.suspects.get(&place) {
                    Some(what) => Err(reader.corrupt(place.1, what)),
                    None => Ok(()),
                }
            })?;
        }
        Ok(())
    }
}
