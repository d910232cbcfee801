//! The levels of the families.

use super::metric::Unit::{Bytes, None as No, Seconds};
use super::metric::{MetricKind, Sample, Subsystem, Value};
use super::{Stats, level_label, named_families, seconds};
use crate::compaction::{LevelWork, Targets};
use crate::db::Core;
use crate::types::LEVEL_COUNT;
use crate::version::{FamilyLevels, Table};
use std::sync::Arc;

/// One family's tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FamilyStats {
    /// Its number.
    pub family: u32,
    /// Its name.
    pub name: String,
    /// Range tombstones in its tables' version.
    pub range_tombstones: u64,
    /// Level by level, level 0 first.
    pub levels: Vec<LevelStats>,
}

/// One level of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LevelStats {
    /// Number of tables.
    pub tables: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Versions in them, tombstones included.
    pub entries: u64,
    /// Tombstones in them.
    pub tombstones: u64,
    /// Target in bytes; `None` for level 0, and for the last one, which has no target.
    pub target_bytes: Option<u64>,
    /// Urgency of a compaction: 1 is due. Level 0: tables over a key against the number at which compaction
    /// starts; others: bytes against the target.
    pub score: f64,
}

pub(super) fn collect(core: &Core) -> Vec<FamilyStats> {
    let version = core.shared().context.versions.current();
    let families = version.families().iter();
    families
        .map(|(family, levels)| {
            let options = core.shared().context.options_of(family);
            let targets = Targets::new(levels, &options);
            FamilyStats {
                family: family.0,
                name: levels.name.clone(),
                range_tombstones: levels.range_tombstones.len() as u64,
                levels: (0..LEVEL_COUNT)
                    .map(|level| level_stats(levels, level, &targets, options.level0_tables))
                    .collect(),
            }
        })
        .collect()
}

fn level_stats(levels: &FamilyLevels, level: usize, targets: &Targets, level0_tables: usize) -> LevelStats {
    let tables: &[Arc<Table>] = levels.levels.get(level).map_or(&[], |tables| tables);
    let sum = |of: fn(&crate::table::TableMeta) -> u64| tables.iter().map(|table| of(table.meta())).sum::<u64>();
    let bytes = sum(|meta| meta.file_bytes);
    let bounded = level > 0 && level < LEVEL_COUNT - 1;
    let target_bytes = targets.bytes.get(level).copied().filter(|_| bounded);
    let score = match target_bytes {
        Some(target) => bytes as f64 / target.max(1) as f64,
        None if level == 0 => levels.level0_depth() as f64 / level0_tables.max(1) as f64,
        None => 0.0,
    };
    LevelStats {
        tables: tables.len() as u64,
        bytes,
        entries: sum(|meta| meta.entries),
        tombstones: sum(|meta| meta.tombstones),
        target_bytes,
        score,
    }
}

impl Stats {
    pub(super) fn describe_levels(&self, subsystem: &mut Subsystem<'_>) {
        let families = named_families::named(&self.families);
        let levels = || {
            families.iter().flat_map(|family| {
                let label = move |level: usize| vec![("family", family.name.clone()), ("level", level.to_string())];
                family.levels.iter().enumerate().map(move |(level, stats)| (label(level), stats))
            })
        };
        let gauge = |value: &dyn Fn(&LevelStats) -> Option<Value>| {
            levels().filter_map(|(labels, stats)| Some(Sample { labels, value: value(stats)? })).collect()
        };
        let kind = MetricKind::Gauge;
        subsystem.labelled(kind, "tables", No, "Tables", gauge(&|level| Some(level.tables.into())));
        subsystem.labelled(kind, "table", Bytes, "Bytes of tables", gauge(&|level| Some(level.bytes.into())));
        subsystem.labelled(kind, "versions", No, "Versions in tables", gauge(&|level| Some(level.entries.into())));
        subsystem.labelled(
            kind,
            "tombstones",
            No,
            "Tombstones in tables",
            gauge(&|level| Some(level.tombstones.into())),
        );
        let target = |level: &LevelStats| level.target_bytes.map(Value::from);
        subsystem.labelled(kind, "target", Bytes, "Bytes that the level is to hold", gauge(&target));
        let help = "Urgency of a compaction: 1 is due";
        subsystem.labelled(kind, "score", No, help, gauge(&|level| Some(level.score.into())));
        let ranges = families.iter().map(|family| Sample {
            labels: vec![("family", family.name.clone())],
            value: family.range_tombstones.into(),
        });
        subsystem.labelled(
            kind,
            "range_tombstones",
            No,
            "Range tombstones in addition to the tables",
            ranges.collect(),
        );
        let kind = MetricKind::Counter;
        let work = |value: &dyn Fn(&LevelWork) -> Value| {
            let labelled = self.compaction.levels.iter().enumerate();
            labelled.map(|(level, work)| Sample { labels: level_label(level), value: value(work) }).collect()
        };
        let help = "Bytes of tables that flush and compaction wrote to the level";
        subsystem.labelled(kind, "written", Bytes, help, work(&|level| level.written_bytes.into()));
        let help = "Bytes of tables that compactions into the level read";
        subsystem.labelled(kind, "compaction_read", Bytes, help, work(&|level| level.read_bytes.into()));
        let help = "Versions that compactions into the level dropped";
        subsystem.labelled(kind, "versions_dropped", No, help, work(&|level| level.versions_dropped.into()));
        let help = "Versions that compactions into the level dropped because the layer above did not need them";
        subsystem.labelled(kind, "versions_filtered", No, help, work(&|level| level.versions_filtered.into()));
        let help = "Time of all threads spent on flush or compaction into the level";
        subsystem.labelled(kind, "busy", Seconds, help, work(&|level| seconds(level.busy_us).into()));
    }
}
