//! Keys, values, ranges and batches, drawn at random. Nothing here may depend on the database or its options: the same
//! script is run with several.

use crate::knobs::FAMILIES;
use crate::model::{Cell, Write};
use bytes::Bytes;
use kontiki_engine::{Direction, Durability, Family, Range};
use kontiki_env::rng::Rng;

pub fn family(rng: &mut Rng) -> Family {
    *rng.pick(&FAMILIES).expect("there are some")
}

const PREFIXES: [&str; 4] = ["", "k", "k\0", "user/"];

/// Of some 150: the empty one, one that only ends of ranges exceed, and those that begin like others.
pub fn key(rng: &mut Rng) -> Bytes {
    match rng.below(40) {
        0 => Bytes::new(),
        1 => Bytes::from_static(&[0xff; 5]),
        _ => {
            let number = rng.below(150);
            let prefix = PREFIXES[(number % 4) as usize];
            Bytes::from(format!("{prefix}{number:0width$}", width = (number % 3 + 1) as usize))
        }
    }
}

pub fn value(rng: &mut Rng) -> Bytes {
    let length = match rng.below(60) {
        0 => rng.range(3000..7000),
        1..4 => rng.range(900..1500),
        4..20 => rng.range(30..200),
        _ => rng.below(40),
    };
    // Half of them are easy to compress.
    let dull = rng.chance(1, 2);
    let mut word = rng.next_u64();
    let mut bytes = Vec::with_capacity(length as usize + 8);
    while (bytes.len() as u64) < length {
        bytes.extend_from_slice(&word.to_le_bytes());
        word = if dull { word } else { rng.next_u64() };
    }
    bytes.truncate(length as usize);
    bytes.into()
}

pub fn cell(rng: &mut Rng, now_ms: u64) -> Cell {
    // Some have ended before they are written.
    let expires_at_ms = rng.chance(1, 8).then(|| now_ms - 500 + rng.below(20_000));
    Cell { value: value(rng), expires_at_ms }
}

pub fn bounds(rng: &mut Rng) -> (Bytes, Bytes) {
    let (one, other) = (key(rng), key(rng));
    if one <= other { (one, other) } else { (other, one) }
}

pub fn range(rng: &mut Rng) -> Range {
    if rng.chance(1, 4) {
        return Range::prefix(PREFIXES[rng.below(4) as usize].as_bytes());
    }
    let (start, end) = bounds(rng);
    Range { start: rng.chance(2, 3).then_some(start), end: rng.chance(2, 3).then_some(end) }
}

pub fn direction(rng: &mut Rng) -> Direction {
    if rng.chance(1, 2) { Direction::Forward } else { Direction::Backward }
}

pub fn durability(rng: &mut Rng) -> Durability {
    if rng.chance(1, 3) { Durability::Sync } else { Durability::Buffered }
}

pub fn write(rng: &mut Rng, now_ms: u64) -> Write {
    let family = family(rng);
    match rng.below(30) {
        0 => {
            let (start, end) = bounds(rng);
            Write::DeleteRange { family, start, end }
        }
        1 => {
            // A short one, which leaves most of what there is.
            let start = key(rng);
            let end = [&start[..], &[0x35]].concat().into();
            Write::DeleteRange { family, start, end }
        }
        2..9 => Write::Delete { family, key: key(rng) },
        _ => Write::Put { family, key: key(rng), cell: cell(rng, now_ms) },
    }
}

/// Of one family; two of three are range deletes, and some of these lie in the one before.
pub fn range_deletes(rng: &mut Rng, now_ms: u64) -> Vec<Write> {
    let family = family(rng);
    let mut last = bounds(rng);
    let count = rng.range(3..40);
    let draw = |_| {
        if rng.chance(1, 3) {
            return Write::Put { family, key: key(rng), cell: cell(rng, now_ms) };
        }
        let (start, end) = bounds(rng);
        let inside = last.0 <= start && end <= last.1;
        // Most are short: they leave most of what there is.
        last = if inside || rng.chance(1, 10) {
            (start, end)
        } else {
            let end = [&start[..], &[0x34]].concat().into();
            (start, end)
        };
        Write::DeleteRange { family, start: last.0.clone(), end: last.1.clone() }
    };
    (0..count).map(draw).collect()
}

pub fn writes(rng: &mut Rng, now_ms: u64) -> Vec<Write> {
    (0..rng.range(1..7)).map(|_| write(rng, now_ms)).collect()
}
