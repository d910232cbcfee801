//! Options, drawn at random: mostly so small that a few writes exercise every mechanism.

use kontiki_engine::CompactionOptions;
use kontiki_engine::{Compression, TableOptions};
use kontiki_engine::{Family, FamilyOptions, FamilySpec, Options, VALUE_BYTES_MAX};
use kontiki_env::rng::Rng;

/// One whose large values go by the default threshold, one that keeps values in the tree, one that keeps hardly any
/// there, and one that keeps all but the largest.
pub const FAMILIES: [Family; 4] = [Family::DEFAULT, Family(1), Family(2), Family(40)];

fn pick<T: Clone>(rng: &mut Rng, items: &[T]) -> T {
    rng.pick(items).expect("there are some").clone()
}

fn compression(rng: &mut Rng) -> Compression {
    pick(rng, &[Compression::None, Compression::Lz4, Compression::Zstd])
}

fn compaction(rng: &mut Rng) -> CompactionOptions {
    CompactionOptions {
        level0_tables: pick(rng, &[1, 2, 4, 8]),
        level0_shards: pick(rng, &[1, 1, 2, 3, 4]),
        level1_bytes: pick(rng, &[1, 4000, 20_000]),
        level_factor: pick(rng, &[2, 4, 10]),
        table_bytes: pick(rng, &[500, 1500, 9000, 1 << 20]),
        tombstone_percent: pick(rng, &[0, 1, 20, 40, 100]),
        periodic_compaction_seconds: pick(rng, &[0, 30, 1 << 20]),
        range_tombstones_max: pick(rng, &[0, 1, 3, 1000]),
        background_jobs_max: pick(rng, &[1, 2, 3]),
        bytes_per_second_max: pick(rng, &[0, 1 << 20]),
        ..CompactionOptions::default()
    }
}

fn family(rng: &mut Rng, family: Family) -> FamilySpec {
    let value_threshold_bytes = match family.0 {
        0 => pick(rng, &[0, 32, 100, 1 << 10]),
        1 => 0,
        2 => 32,
        _ => VALUE_BYTES_MAX as u64,
    };
    let name = if family == Family::DEFAULT { "default".to_string() } else { format!("f{}", family.0) };
    let options = FamilyOptions {
        value_threshold_bytes,
        compaction: rng.chance(1, 4).then(|| compaction(rng)),
        compression: (0..rng.below(4)).map(|_| compression(rng)).collect(),
        filter_prefix_bytes: rng.chance(1, 2).then(|| pick(rng, &[1, 2, 5])),
    };
    FamilySpec { family, name, options }
}

/// Options for a database with [`FAMILIES`].
pub fn options(rng: &mut Rng) -> Options {
    let log_segment_bytes = pick(rng, &[4 << 10, 4 << 10, 16 << 10, 64 << 10]);
    let compaction = compaction(rng);
    Options {
        families: FAMILIES.map(|of| family(rng, of)).to_vec(),
        memtable_bytes: pick(rng, &[4 << 10, 4 << 10, 8 << 10, 32 << 10, 64 << 20]),
        memtables_max: pick(rng, &[2, 3, 4]),
        level0_tables_max: pick(rng, &[9, 12, 24]),
        log_segment_bytes,
        log_segments_recycled_max: pick(rng, &[0, 1, 4]),
        log_bytes_max: log_segment_bytes * pick(rng, &[4, 8, 64]),
        value_segment_bytes: pick(rng, &[4 << 10, 8 << 10, 64 << 10]),
        value_garbage_percent: pick(rng, &[5, 25, 50, 90]),
        group_bytes_max: pick(rng, &[4 << 10, 1 << 20]),
        cache_bytes: pick(rng, &[0, 4 << 10, 20_000, 1 << 20]),
        table_cache_bytes: 1 << 20,
        open_tables_max: pick(rng, &[16, 1000]),
        table: TableOptions {
            block_bytes: pick(rng, &[1, 64, 1 << 10, 4 << 10]),
            filter_bits_per_key: pick(rng, &[0, 1, 10]),
            compression: compression(rng),
            ..TableOptions::default()
        },
        compaction,
        // Drawn last: what is added here changes no options of seeds that have found something.
        feed_retention_bytes: pick(rng, &[0, 16 << 10, 1 << 20]),
        sync_value_bytes_max: pick(rng, &[0, 100, 32 << 10]),
        ..Options::default()
    }
}
