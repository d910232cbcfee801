//! Large values that a flush finds in memtables: those of commits that were not logged, and those that were logged
//! before the threshold became lower. They are written to a separate value file, and the tables get pointers.

use crate::types::{Kind, ValuePointer};
use crate::version::VersionEdit;
use crate::vlog::format::{ValueFileKind, ValueHeader};
use crate::vlog::{FileWriter, ValueLog, ValueThresholds};
use crate::{Family, Result};
use std::sync::Arc;

/// The large values of one flush. After an error, or if the edit fails, call [`FlushedValues::abandon`].
pub(crate) struct FlushedValues<'a> {
    values: &'a ValueLog,
    thresholds: Arc<ValueThresholds>,
    new_number: &'a dyn Fn() -> u64,
    writer: Option<FileWriter>,
}

impl<'a> FlushedValues<'a> {
    pub(crate) fn new(values: &'a ValueLog, new_number: &'a dyn Fn() -> u64) -> FlushedValues<'a> {
        FlushedValues { values, thresholds: values.thresholds(), new_number, writer: None }
    }

    /// If the version's value is large, writes it, and returns the replacement for the table.
    pub(crate) fn take(
        &mut self,
        family: Family,
        key: &[u8],
        kind: Kind,
        stored: &[u8],
    ) -> Result<Option<(Kind, Vec<u8>)>> {
        let Some(large) = self.thresholds.large(family, kind, stored) else { return Ok(None) };
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let number = (self.new_number)();
                self.writer.insert(FileWriter::create(&self.values.store, number, ValueFileKind::Segment)?)
            }
        };
        let header = ValueHeader::new(family, key, large.value);
        let offset = writer.add(header, large.value, key)?;
        let pointer = ValuePointer { segment: writer.number(), offset, length: header.value_bytes };
        Ok(Some(large.replaced_by(pointer)))
    }

    /// Makes the values durable, and puts their file into the edit that adds the tables.
    pub(crate) fn finish(&mut self, edit: &mut VersionEdit) -> Result<()> {
        if let Some(writer) = &mut self.writer {
            let file = writer.finish(None)?;
            edit.values_mut().add_file(file.number);
            edit.values_mut().seal_file(file.number, file.bytes, file.record_bytes);
        }
        Ok(())
    }

    /// Removes what was written.
    pub(crate) fn abandon(&self) {
        self.writer.iter().for_each(FileWriter::abandon);
    }
}
