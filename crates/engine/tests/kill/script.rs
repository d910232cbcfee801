//! What the writers of one cycle do, determined by a seed alone: so the parent knows what the child was doing from two
//! numbers for each writer, how many operations it has begun and how many were answered.

use kontiki_engine::{Durability, Family, FamilySpec, Options};
use kontiki_env::rng::Rng;
use std::collections::BTreeMap;

/// Large values of this family leave for the value log.
pub const LARGE: Family = Family(1);
/// Accounts, and how many transfers each thread has made.
pub const BANK: Family = Family(2);
pub const WRITERS: u64 = 4;
/// Keys of each writer in each family.
const KEYS: u64 = 200;

/// Options for one cycle: everything small, so that segments, tables and value files come and go within a cycle.
pub fn options(seed: u64) -> Options {
    let mut rng = Rng::new(seed).child("options");
    let mut large = FamilySpec::new(LARGE, "large");
    large.options.value_threshold_bytes = 512;
    let pick = |rng: &mut Rng, list: &[u64]| *rng.pick(list).expect("there are some");
    let log_segment_bytes = pick(&mut rng, &[64 << 10, 256 << 10, 1 << 20]);
    Options {
        families: vec![large, FamilySpec::new(BANK, "bank")],
        memtable_bytes: pick(&mut rng, &[32 << 10, 128 << 10, 1 << 20]),
        log_segment_bytes,
        log_bytes_max: log_segment_bytes * pick(&mut rng, &[4, 16]),
        log_segments_recycled_max: pick(&mut rng, &[0, 2, 4]) as usize,
        value_segment_bytes: pick(&mut rng, &[64 << 10, 256 << 10]),
        value_garbage_percent: pick(&mut rng, &[5, 25]),
        sync_value_bytes_max: pick(&mut rng, &[0, 8 << 10]),
        ..Options::default()
    }
}

/// A value that shows by itself whether it is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub id: u64,
    pub length: usize,
    pub expires_at_ms: Option<u64>,
}

impl Value {
    pub fn bytes(&self) -> Vec<u8> {
        whole(self.id, self.length)
    }
}

/// The value with this id and length.
pub fn whole(id: u64, length: usize) -> Vec<u8> {
    let mut rng = Rng::new(id);
    let words = std::iter::once(id).chain(std::iter::repeat_with(|| rng.next_u64()));
    words.flat_map(u64::to_le_bytes).take(length.max(8)).collect()
}

/// The id of a value, if it is whole.
pub fn id_of(value: &[u8]) -> Option<u64> {
    let id = u64::from_le_bytes(*value.first_chunk()?);
    (whole(id, value.len()) == value).then_some(id)
}

pub fn key(writer: u64, number: u64) -> Vec<u8> {
    format!("{writer}/{number:05}").into_bytes()
}

/// What a writer does to its own keys, as one commit.
#[derive(Clone, Debug)]
pub enum Op {
    Put {
        from: u64,
        value: Value,
    },
    Delete {
        from: u64,
    },
    DeleteRange {
        from: u64,
        to: u64,
    },
    /// The same value to some keys, by a batch.
    PutMany {
        from: u64,
        to: u64,
        value: Value,
    },
    /// A range is deleted, then its first key written, by one batch.
    Replace {
        from: u64,
        to: u64,
        value: Value,
    },
    /// The first half of a range is deleted and the second half written, by a transaction.
    Transact {
        from: u64,
        middle: u64,
        to: u64,
        value: Value,
    },
}

#[derive(Clone, Debug)]
pub struct Step {
    pub family: Family,
    pub durability: Durability,
    pub op: Op,
}

/// The steps of one writer in one cycle.
pub struct Script {
    rng: Rng,
    /// When the cycle began, by the wall clock.
    began_ms: u64,
    sync_percent: u64,
    large_percent: u64,
}

impl Script {
    pub fn new(seed: u64, writer: u64, began_ms: u64) -> Script {
        let mut rng = Rng::new(seed).child(&format!("writer {writer}"));
        let sync_percent = *rng.pick(&[2, 10, 50, 95]).expect("there are some");
        let large_percent = *rng.pick(&[0, 10, 40]).expect("there are some");
        Script { rng, began_ms, sync_percent, large_percent }
    }

    fn value(&mut self) -> Value {
        let large = self.rng.chance(self.large_percent, 100);
        let length = if large { self.rng.range(600..12_000) } else { self.rng.range(8..200) } as usize;
        Value { id: self.rng.next_u64(), length, expires_at_ms: None }
    }
}

impl Iterator for Script {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let kind = self.rng.below(100);
        let from = self.rng.below(KEYS);
        let to = from + self.rng.range(1..25);
        let value = self.value();
        let op = match kind {
            0..50 => Op::Put { from, value },
            50..57 => Op::Delete { from },
            57..62 => Op::DeleteRange { from, to },
            62..76 => Op::PutMany { from, to: from.midpoint(to) + 1, value },
            76..84 => {
                let life_ms = if self.rng.chance(1, 2) { 3_600_000 } else { self.rng.below(2_000) };
                Op::Put { from, value: Value { expires_at_ms: Some(self.began_ms + life_ms), ..value } }
            }
            84..92 => Op::Replace { from, to, value },
            _ => Op::Transact { from, middle: from.midpoint(to), to, value },
        };
        let sync = self.rng.chance(self.sync_percent, 100);
        let family = if self.rng.chance(1, 3) { LARGE } else { Family::DEFAULT };
        Some(Step { family, durability: if sync { Durability::Sync } else { Durability::Buffered }, op })
    }
}

/// What a writer's keys hold.
#[derive(Clone, Debug, Default)]
pub struct Rows(pub BTreeMap<(Family, u64), Value>);

impl Rows {
    pub fn apply(&mut self, step: &Step) {
        let family = step.family;
        let Rows(rows) = self;
        let mut delete = |from: u64, to: u64| rows.retain(|(of, key), _| *of != family || !(from..to).contains(key));
        match &step.op {
            Op::Put { .. } | Op::PutMany { .. } => {}
            Op::Delete { from } => delete(*from, from + 1),
            Op::DeleteRange { from, to } | Op::Replace { from, to, .. } => delete(*from, *to),
            Op::Transact { from, middle, .. } => delete(*from, *middle),
        }
        let (keys, value) = match &step.op {
            Op::Put { from, value } | Op::Replace { from, value, .. } => (*from..from + 1, value),
            Op::PutMany { from, to, value } => (*from..*to, value),
            Op::Transact { middle, to, value, .. } => (*middle..*to, value),
            Op::Delete { .. } | Op::DeleteRange { .. } => return,
        };
        keys.for_each(|key| {
            rows.insert((family, key), value.clone());
        });
    }
}
