//! The engine of this project: it does all of it, this only names it.

use crate::planted::{self, Bug};
use crate::{Done, StateChoice, StateEngine, StateStats, StateView, TableSet};
use kontiki_engine::{
    Commit, Db, Durability, Error, Family, FamilySpec, IngestOptions, IngestWriter, Options, Range, Result,
    SequenceNumber, TableOptions, View, WriteBatch,
};
use kontiki_env::Env;
use std::path::{Path, PathBuf};

/// See the module.
pub struct BuiltIn {
    db: Db,
    env: Env,
    tables: TableOptions,
}

impl BuiltIn {
    /// Opens or creates it.
    pub fn open(env: &Env, directory: &Path, options: Options) -> Result<BuiltIn> {
        let tables = options.table.clone();
        Ok(BuiltIn::new(Db::open_in(env, directory, options)?, env, tables))
    }

    /// Of an open database, which has these options of tables.
    pub fn new(db: Db, env: &Env, tables: TableOptions) -> BuiltIn {
        BuiltIn { db, env: env.clone(), tables }
    }
}

impl StateEngine for BuiltIn {
    fn choice(&self) -> StateChoice {
        StateChoice::BuiltIn
    }

    fn snapshot(&self) -> StateView {
        StateView::new(self.db.snapshot())
    }

    fn commit(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        self.db.commit(Commit::new(batch, durability)).map(drop)
    }

    fn submit(&self, batch: WriteBatch, durability: Durability, done: Done) {
        self.db.submit(Commit::new(batch, durability), Box::new(move |result| done(result.map(drop))));
    }

    fn flush(&self) -> Result<()> {
        if planted::is_set(Bug::NoFlush) { Ok(()) } else { self.db.flush() }
    }

    fn flushed_view(&self) -> Box<dyn View> {
        if planted::is_set(Bug::UnflushedInView) { Box::new(self.db.snapshot()) } else { self.db.flushed_view() }
    }

    fn flushed_sequence(&self) -> SequenceNumber {
        self.db.flushed_sequence()
    }

    fn build_tables(&self, directory: &Path, table_bytes: u64) -> Option<Box<dyn TableSet>> {
        Some(Box::new(Tables {
            db: self.db.clone(),
            env: self.env.clone(),
            options: self.tables.clone(),
            families: self.db.families(),
            directory: directory.to_owned(),
            table_bytes,
            writer: None,
            files: Vec::new(),
        }))
    }

    fn has_family(&self, family: Family) -> bool {
        self.db.families().iter().any(|spec| spec.family == family)
    }

    fn compact_range(&self, family: Family, range: Range) -> Result<()> {
        self.db.compact_range(family, range)
    }

    fn filters(&self) -> bool {
        true
    }

    fn write_stall_error(&self) -> Option<Error> {
        self.db.write_stall_error()
    }

    fn check_directory(&self) -> Result<()> {
        self.db.check_directory()
    }

    fn stats(&self) -> StateStats {
        let stats = self.db.stats();
        let tables = stats.families.iter().flat_map(|family| &family.levels).map(|level| level.bytes);
        let log_bytes = stats.log.bytes;
        let disk_bytes = log_bytes + tables.sum::<u64>();
        StateStats { disk_bytes, log_bytes, built_in: Some(Box::new(stats)) }
    }

    fn built_in(&self) -> Option<&Db> {
        Some(&self.db)
    }

    fn close(&self) -> Result<()> {
        self.db.clone().close()
    }
}

/// Files that [`Db::ingest`] links into the database.
struct Tables {
    db: Db,
    env: Env,
    options: TableOptions,
    families: Vec<FamilySpec>,
    directory: PathBuf,
    table_bytes: u64,
    writer: Option<(Family, IngestWriter)>,
    files: Vec<PathBuf>,
}

impl Tables {
    fn spec(&self, family: Family) -> Option<&FamilySpec> {
        self.families.iter().find(|spec| spec.family == family)
    }

    fn begin_table(&self, family: Family) -> Result<IngestWriter> {
        let name = format!("{}.sst", self.files.len() + 1);
        // Tables are written once here and merged down later, so they are compressed as those of the last level.
        let of_family = |spec: &FamilySpec| self.options.for_family(&spec.options, usize::MAX);
        let options = self.spec(family).map_or_else(|| self.options.clone(), of_family);
        IngestWriter::create_in(&self.env, &self.directory.join(name), family, options)
    }

    fn end_table(&mut self) -> Result<()> {
        if let Some((_, writer)) = self.writer.take() {
            self.files.push(writer.finish()?.path);
        }
        Ok(())
    }
}

impl TableSet for Tables {
    /// Larger values belong into the value log.
    fn takes(&self, family: Family, value_bytes: usize) -> bool {
        let threshold = self.spec(family).map_or(0, |spec| spec.options.value_threshold_bytes);
        threshold == 0 || (value_bytes as u64) < threshold
    }

    fn add(&mut self, family: Family, key: &[u8], value: &[u8], expires_at_ms: Option<u64>) -> Result<()> {
        let is_ended = |(of, writer): &(Family, IngestWriter)| {
            *of != family || writer.bytes() >= self.table_bytes || writer.is_full()
        };
        if self.writer.as_ref().is_some_and(is_ended) {
            self.end_table()?;
        }
        if self.writer.is_none() {
            self.writer = Some((family, self.begin_table(family)?));
        }
        let (_, writer) = self.writer.as_mut().expect("set above");
        match expires_at_ms {
            None => writer.put(key, value),
            Some(expires_at_ms) => writer.put_expiring(key, value, expires_at_ms),
        }
    }

    fn ingest(&mut self) -> Result<u64> {
        self.end_table()?;
        if self.files.is_empty() {
            return Ok(0);
        }
        if !planted::is_set(Bug::IngestBeforeFlush) {
            self.db.flush()?;
        }
        Ok(self.db.ingest(&self.files, IngestOptions { move_file: true })?.bytes)
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        // A table that is not complete is removed by its writer.
        self.writer = None;
        for path in &self.files {
            if self.env.fs.exists(path)
                && let Err(error) = self.env.fs.remove(path)
            {
                // The next install with tables, or the next start, finds it.
                tracing::warn!(%error, path = %path.display(), "a table that was built could not be removed");
            }
        }
    }
}
