//! `kontiki stats`, `manifest`, `tables`, `wal` and `vlog`: the contents of a directory. They only read, and a process
//! may have the directory open meanwhile.

use super::{Failure, local, text};
use clap::Args;
use kontiki_engine::inspect::{self, FamilySummary, Summary, TableMeta};
use kontiki_env::Env;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;

/// Keys in text tables are cut to this number of characters.
const KEY_CHARS_MAX: usize = 24;

/// The arguments of every inspection.
#[derive(Args, Debug)]
struct Place {
    /// The directory, embedded or served
    #[arg(long, value_name = "DIR", default_value = kontiki_server::config::DATA_DIR_DEFAULT)]
    data_dir: PathBuf,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

impl Place {
    fn summary(&self) -> Result<Summary, Failure> {
        local::find_database(&self.data_dir)?;
        inspect::summarize(&Env::real(), &self.data_dir).map_err(local::failed)
    }

    fn print(&self, value: &Value, table: impl FnOnce() -> String) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{value:#}")?
        } else {
            writeln!(out, "{}", table())?
        }
        Ok(())
    }
}

/// Arguments of `kontiki stats`.
#[derive(Args, Debug)]
pub struct Stats {
    #[command(flatten)]
    place: Place,
}

impl Stats {
    /// Prints sums, and the levels of every family.
    pub fn run(self) -> Result<(), Failure> {
        let summary = self.place.summary()?;
        let mut rows = Vec::new();
        let mut levels = Vec::new();
        for family in &summary.families {
            for (level, tables) in family.levels.iter().enumerate().filter(|(_, tables)| !tables.is_empty()) {
                let sum = |of: fn(&TableMeta) -> u64| tables.iter().map(of).sum::<u64>();
                let (bytes, versions, tombstones) =
                    (sum(|meta| meta.file_bytes), sum(|meta| meta.entries), sum(|meta| meta.tombstones));
                rows.push(row([&family.name, &level, &tables.len(), &bytes, &versions, &tombstones]));
                levels.push(json!({
                    "family": family.family, "name": family.name, "level": level, "tables": tables.len(),
                    "bytes": bytes, "versions": versions, "tombstones": tombstones,
                }));
            }
        }
        let sums = Sums::of(&summary);
        let mut value = sums.to_json();
        value["levels"] = Value::Array(levels);
        let header = ["FAMILY", "LEVEL", "TABLES", "BYTES", "VERSIONS", "TOMBSTONES"];
        self.place.print(&value, || format!("{}\n\n{}", sums.to_table(), text::table(&header, rows)))
    }
}

/// The totals of a directory, according to its files: the name in the JSON, the text, and the number.
struct Sums(Vec<(&'static str, &'static str, u64)>);

impl Sums {
    fn of(summary: &Summary) -> Sums {
        let tables = || summary.families.iter().flat_map(|family| family.levels.iter().flatten());
        let of_tables = |of: fn(&TableMeta) -> u64| tables().map(of).sum::<u64>();
        let values = || summary.value_files.iter();
        let sealed: u64 = values().filter_map(|file| file.sealed_bytes).sum();
        let live_in_sealed: u64 = values().filter(|file| file.sealed_bytes.is_some()).map(|file| file.live_bytes).sum();
        let log = &summary.log;
        Sums(vec![
            ("flushed_sequence", "flushed sequence", summary.flushed_sequence),
            ("families", "families", summary.families.len() as u64),
            ("tables", "tables", tables().count() as u64),
            ("table_bytes", "bytes of tables", of_tables(|meta| meta.file_bytes)),
            ("versions", "versions in tables", of_tables(|meta| meta.entries)),
            ("tombstones", "of these, tombstones", of_tables(|meta| meta.tombstones)),
            (
                "range_tombstones",
                "range tombstones",
                summary.families.iter().map(|family| family.range_tombstones).sum(),
            ),
            ("value_files", "value files", summary.value_files.len() as u64),
            ("value_bytes", "bytes of sealed value files", sealed),
            ("live_value_bytes", "bytes of values that tables refer to", values().map(|file| file.live_bytes).sum()),
            ("value_garbage_bytes", "bytes that no table refers to", sealed.saturating_sub(live_in_sealed)),
            ("log_segments", "log segments", log.segments),
            ("log_bytes", "bytes of log segments", log.segment_bytes),
            ("log_files_free", "log files to be used again", log.free),
            ("log_free_bytes", "their bytes", log.free_bytes),
            ("manifest_edits", "edits in the manifest", summary.edits),
        ])
    }

    fn to_json(&self) -> Value {
        self.0.iter().map(|(name, _, number)| (name.to_string(), json!(number))).collect()
    }

    fn to_table(&self) -> String {
        text::table(&["WHAT", "VALUE"], self.0.iter().map(|(_, words, number)| row([words, number])))
    }
}

/// Arguments of `kontiki manifest`.
#[derive(Args, Debug)]
pub struct Manifest {
    #[command(flatten)]
    place: Place,
}

impl Manifest {
    /// Prints the contents of the manifest.
    pub fn run(self) -> Result<(), Failure> {
        let summary = self.place.summary()?;
        let tables = |family: &FamilySummary| family.levels.iter().map(Vec::len).sum::<usize>();
        let families: Vec<Value> = summary
            .families
            .iter()
            .map(|family| json!({ "family": family.family, "name": family.name, "tables": tables(family) }))
            .collect();
        let value = json!({
            "manifest": summary.manifest.display().to_string(),
            "edits": summary.edits,
            "torn": summary.torn,
            "flushed_sequence": summary.flushed_sequence,
            "families": families,
            "value_files": summary.value_files.len(),
        });
        self.place.print(&value, || {
            let mut rows = vec![
                row([&"manifest", &summary.manifest.display()]),
                row([&"edits", &summary.edits]),
                row([&"torn tail", &if summary.torn { "yes; the next open cuts it" } else { "no" }]),
                row([&"flushed sequence", &summary.flushed_sequence]),
                row([&"value files", &summary.value_files.len()]),
            ];
            rows.extend(summary.families.iter().map(|family| {
                let what = format!("family {} {}", family.family, family.name);
                row([&what, &format!("{} tables", tables(family))])
            }));
            text::table(&["WHAT", "VALUE"], rows)
        })
    }
}

/// Arguments of `kontiki tables`.
#[derive(Args, Debug)]
pub struct Tables {
    /// Show the properties of one table
    #[arg(long, value_name = "NUMBER")]
    table: Option<u64>,
    /// Keys are printed as hexadecimal digits
    #[arg(long)]
    hex: bool,
    #[command(flatten)]
    place: Place,
}

impl Tables {
    /// Prints every table, or the properties of one.
    pub fn run(self) -> Result<(), Failure> {
        match self.table {
            Some(number) => self.one(number),
            None => self.all(),
        }
    }

    fn all(&self) -> Result<(), Failure> {
        let summary = self.place.summary()?;
        let (mut rows, mut values) = (Vec::new(), Vec::new());
        let key = |bytes: &[u8]| text::shorten(&text::show(bytes, self.hex), KEY_CHARS_MAX);
        for family in &summary.families {
            for (level, meta) in
                family.levels.iter().enumerate().flat_map(|(level, metas)| metas.iter().map(move |meta| (level, meta)))
            {
                rows.push(row([
                    &meta.number,
                    &family.name,
                    &level,
                    &meta.file_bytes,
                    &meta.entries,
                    &meta.tombstones,
                    &format!("{}..{}", meta.smallest_sequence, meta.largest_sequence),
                    &key(&meta.smallest_key),
                    &key(&meta.largest_key),
                ]));
                values.push(json!({
                    "number": meta.number, "family": family.family, "level": level, "bytes": meta.file_bytes,
                    "versions": meta.entries, "tombstones": meta.tombstones,
                    "smallest_sequence": meta.smallest_sequence, "largest_sequence": meta.largest_sequence,
                    "smallest_key": text::to_json(&meta.smallest_key, self.hex),
                    "largest_key": text::to_json(&meta.largest_key, self.hex),
                }));
            }
        }
        let header =
            ["TABLE", "FAMILY", "LEVEL", "BYTES", "VERSIONS", "TOMBSTONES", "SEQUENCES", "SMALLEST", "LARGEST"];
        self.place.print(&Value::Array(values), || text::table(&header, rows))
    }

    fn one(&self, number: u64) -> Result<(), Failure> {
        let found = inspect::table_properties(&Env::real(), &self.place.data_dir, number).map_err(local::failed)?;
        let value = json!({
            "number": number, "family": found.family, "versions": found.entries, "tombstones": found.tombstones,
            "smallest_sequence": found.smallest_sequence, "largest_sequence": found.largest_sequence,
            "key_bytes": found.key_bytes, "value_bytes": found.value_bytes, "data_blocks": found.data_blocks,
            "smallest_key": text::to_json(&found.smallest_key, self.hex),
            "largest_key": text::to_json(&found.largest_key, self.hex),
        });
        self.place.print(&value, || {
            let rows = vec![
                row([&"family", &found.family]),
                row([&"versions", &found.entries]),
                row([&"tombstones", &found.tombstones]),
                row([&"smallest sequence", &found.smallest_sequence]),
                row([&"largest sequence", &found.largest_sequence]),
                row([&"bytes of keys", &found.key_bytes]),
                row([&"bytes of values", &found.value_bytes]),
                row([&"data blocks", &found.data_blocks]),
                row([&"smallest key", &text::show(&found.smallest_key, self.hex)]),
                row([&"largest key", &text::show(&found.largest_key, self.hex)]),
            ];
            text::table(&["WHAT", "VALUE"], rows)
        })
    }
}

/// Arguments of `kontiki wal`.
#[derive(Args, Debug)]
pub struct Wal {
    #[command(flatten)]
    place: Place,
}

impl Wal {
    /// Prints every segment of the log.
    pub fn run(self) -> Result<(), Failure> {
        let flushed = self.place.summary()?.flushed_sequence;
        let segments = inspect::log_segments(&Env::real(), &self.place.data_dir).map_err(local::failed)?;
        let unflushed = |segment: &inspect::LogSegment| segment.summary.last_sequence > flushed;
        let value = |segment: &inspect::LogSegment| {
            json!({
                "number": segment.number, "file_bytes": segment.file_bytes, "used_bytes": segment.summary.end,
                "commits": segment.summary.commits, "operations": segment.summary.batch_ops,
                "stream_operations": segment.summary.stream_ops, "rewrites": segment.summary.rewrites,
                "first_sequence": segment.summary.first_sequence, "last_sequence": segment.summary.last_sequence,
                "unflushed": unflushed(segment), "ingests": segment.summary.ingests, "sealed": segment.summary.sealed,
            })
        };
        let values: Vec<Value> = segments.iter().map(value).collect();
        self.place.print(&Value::Array(values), || {
            let rows = segments.iter().map(|segment| {
                let summary = &segment.summary;
                row([
                    &segment.number,
                    &segment.file_bytes,
                    &summary.end,
                    &summary.commits,
                    &summary.batch_ops,
                    &summary.stream_ops,
                    &summary.rewrites,
                    &match (summary.first_sequence, summary.last_sequence) {
                        (0, _) => "-".to_string(),
                        (first, last) => format!("{first}..{last}"),
                    },
                    &if unflushed(segment) { "yes" } else { "no" },
                    &if summary.sealed { "yes" } else { "no" },
                ])
            });
            let header = [
                "SEGMENT",
                "FILE BYTES",
                "USED",
                "COMMITS",
                "OPERATIONS",
                "STREAM OPERATIONS",
                "REWRITES",
                "SEQUENCES",
                "UNFLUSHED",
                "SEALED",
            ];
            text::table(&header, rows)
        })
    }
}

/// Arguments of `kontiki vlog`.
#[derive(Args, Debug)]
pub struct Vlog {
    #[command(flatten)]
    place: Place,
}

impl Vlog {
    /// Prints every file of the value log.
    pub fn run(self) -> Result<(), Failure> {
        let summary = self.place.summary()?;
        let value = |file: &inspect::ValueFileSummary| {
            json!({
                "number": file.number, "sealed_bytes": file.sealed_bytes, "live_bytes": file.live_bytes,
                "relocated_segments": file.relocated_segments,
            })
        };
        let values: Vec<Value> = summary.value_files.iter().map(value).collect();
        self.place.print(&Value::Array(values), || {
            let rows = summary.value_files.iter().map(|file| {
                let bytes = file.sealed_bytes.map_or_else(|| "(open)".to_string(), |bytes| bytes.to_string());
                row([&file.number, &bytes, &file.live_bytes, &file.relocated_segments])
            });
            text::table(&["FILE", "BYTES", "LIVE", "RELOCATED SEGMENTS"], rows)
        })
    }
}

fn row<const N: usize>(cells: [&dyn std::fmt::Display; N]) -> Vec<String> {
    cells.map(|cell| cell.to_string()).to_vec()
}
