//! The expected value of every key, so that each answer can be checked: values are functions of index and version, and
//! the model knows which versions an answer may have.
//!
//! A key has one writing thread at a time (threads share the indices out by remainder), so its versions are numbered
//! 1, 2, ... and an answer must lie between the last version acknowledged before the question and the last one begun
//! before the answer.

use crate::data::scatter;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A key's bytes: 16 hexadecimal digits, in the order of indices. Indices that are written map to even numbers and
/// missing keys to odd ones, so that missing keys are between the existing ones.
pub type Key = [u8; 16];

fn digits(mut number: u64) -> Key {
    let mut key = [0; 16];
    for digit in key.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
    key
}

/// The key of an index.
pub fn key(index: u64) -> Key {
    digits(index * 2)
}

/// A key next to that of the index which is never written.
pub fn missing_key(index: u64) -> Key {
    digits(index * 2 + 1)
}

/// The index of a key.
pub fn index_of(key: &[u8]) -> u64 {
    let text = std::str::from_utf8(key).expect("a key of this benchmark");
    let number = u64::from_str_radix(text, 16).expect("a key of this benchmark");
    assert!(number.is_multiple_of(2), "found a key that was never written");
    number / 2
}

const POOL_BYTES: usize = 1 << 20;
const HEADER_BYTES: usize = 16;
/// Values up to this size are compared whole; of larger ones every eighth, and the others at their end.
const WHOLE_BYTES: usize = 1024;

/// A state of a key: version times two, plus one if that version is a delete. 0: never written.
type State = u32;

struct Versions {
    begun: AtomicU32,
    acknowledged: AtomicU32,
}

/// The keys and their values.
pub struct Model {
    versions: Vec<Versions>,
    pool: Vec<u8>,
    value_bytes: usize,
    /// Indices below it have been given out.
    next: AtomicU64,
}

/// What a key could hold while it was read.
#[derive(Clone, Copy)]
pub struct Expected {
    index: u64,
    from: State,
}

impl Model {
    /// For up to `capacity` keys with values of `value_bytes` bytes.
    pub fn new(capacity: u64, value_bytes: usize) -> Model {
        assert!((HEADER_BYTES..POOL_BYTES / 2).contains(&value_bytes));
        let empty = || Versions { begun: AtomicU32::new(0), acknowledged: AtomicU32::new(0) };
        // As in db_bench: 50 random bytes, twice, so that LZ4 gets about half.
        let mut pool = Vec::with_capacity(POOL_BYTES + 128);
        let mut seed = 1;
        while pool.len() < POOL_BYTES {
            let start = pool.len();
            while pool.len() < start + 50 {
                seed += 1;
                pool.extend_from_slice(&scatter(seed).to_le_bytes());
            }
            pool.truncate(start + 50);
            pool.extend_from_within(start..);
        }
        Model { versions: (0..capacity).map(|_| empty()).collect(), pool, value_bytes, next: AtomicU64::new(0) }
    }

    /// Bytes of a key and its value.
    pub fn entry_bytes(&self) -> u64 {
        (size_of::<Key>() + self.value_bytes) as u64
    }

    fn filler(&self, index: u64, version: u32) -> &[u8] {
        let bytes = self.value_bytes - HEADER_BYTES;
        let start = scatter(index ^ (u64::from(version) << 40)) as usize % (self.pool.len() - bytes);
        &self.pool[start..start + bytes]
    }

    /// Begins the next version of a key and puts its value into `value`.
    pub fn begin_put(&self, index: u64, value: &mut Vec<u8>) {
        let version = self.begin(index, false) >> 1;
        value.clear();
        value.extend_from_slice(&index.to_le_bytes());
        value.extend_from_slice(&u64::from(version).to_le_bytes());
        value.extend_from_slice(self.filler(index, version));
    }

    /// Begins a delete.
    pub fn begin_delete(&self, index: u64) {
        self.begin(index, true);
    }

    fn begin(&self, index: u64, delete: bool) -> State {
        let begun = &self.versions[index as usize].begun;
        let state = ((begun.load(Ordering::Relaxed) >> 1) + 1) << 1 | u32::from(delete);
        begun.store(state, Ordering::SeqCst);
        state
    }

    /// The write begun last was acknowledged.
    pub fn end_write(&self, index: u64) {
        let versions = &self.versions[index as usize];
        versions.acknowledged.store(versions.begun.load(Ordering::Relaxed), Ordering::SeqCst);
    }

    /// To be called before a read.
    #[inline]
    pub fn before_read(&self, index: u64) -> Expected {
        Expected { index, from: self.versions[index as usize].acknowledged.load(Ordering::SeqCst) }
    }

    /// Checks a value that was found.
    #[inline]
    pub fn check_found(&self, expected: Expected, value: &[u8]) {
        let version = self.check_version(expected, value);
        let (filler, found) = (self.filler(expected.index, version), &value[HEADER_BYTES..]);
        let same = if value.len() <= WHOLE_BYTES || version % 8 == expected.index as u32 % 8 {
            filler == found
        } else {
            filler[filler.len() - 64..] == found[found.len() - 64..]
        };
        assert!(same, "key {}, version {version}: damaged value", expected.index);
    }

    /// Checks the key and version in a found value, without comparing the rest: for long scans, where a comparison of
    /// everything would cost more than the scan.
    #[inline]
    pub fn check_version(&self, expected: Expected, value: &[u8]) -> u32 {
        let (index, from) = (expected.index, expected.from);
        let to = self.versions[index as usize].begun.load(Ordering::SeqCst);
        let (found_index, version) = self.header(value);
        assert!(found_index == index, "key {index}: found the value of key {found_index}");
        // The only way that the first and only possible state is a delete is a wrong answer.
        let possible = (from >> 1..=to >> 1).contains(&version) && !(from == to && to & 1 == 1) && version > 0;
        assert!(possible, "key {index}: found version {version}, expected states {from} to {to}");
        version
    }

    /// The index and version in a value.
    #[inline]
    pub fn header(&self, value: &[u8]) -> (u64, u32) {
        assert!(value.len() == self.value_bytes, "found {} bytes, not {}", value.len(), self.value_bytes);
        let word = |at: usize| u64::from_le_bytes(value[at..at + 8].try_into().expect("8 bytes"));
        (word(0), word(8) as u32)
    }

    /// The versions of all keys that exist now, while there are no writes; 0 for the others.
    pub fn freeze(&self) -> Vec<u32> {
        let state = |versions: &Versions| versions.acknowledged.load(Ordering::SeqCst);
        self.versions.iter().map(state).map(|state| if state & 1 == 1 { 0 } else { state >> 1 }).collect()
    }

    /// Checks a value against exactly one version.
    pub fn check_frozen(&self, index: u64, version: u32, value: &[u8]) {
        assert!(self.header(value) == (index, version), "key {index}: the snapshot's version is {version}");
        assert!(self.filler(index, version) == &value[HEADER_BYTES..], "key {index}: damaged value");
    }

    /// Checks that "not found" was a possible answer.
    pub fn check_missing(&self, expected: Expected) {
        let to = self.versions[expected.index as usize].begun.load(Ordering::SeqCst);
        let possible = expected.from == 0 || expected.from & 1 == 1 || to & 1 == 1;
        assert!(possible, "key {}: not found, expected states {} to {to}", expected.index, expected.from);
    }

    /// Gives out the next index to insert; `None` once the capacity is used up.
    pub fn new_index(&self) -> Option<u64> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < self.versions.len() as u64).then_some(index)
    }

    /// Records that the indices below are in use.
    pub fn set_used(&self, indices: u64) {
        self.next.store(indices, Ordering::Relaxed);
    }

    /// Indices below it have been given out.
    pub fn used(&self) -> u64 {
        self.next.load(Ordering::Relaxed).min(self.versions.len() as u64)
    }

    /// The number of existing keys, while there are no writes.
    pub fn live(&self) -> u64 {
        let live = |versions: &&Versions| {
            let state = versions.acknowledged.load(Ordering::SeqCst);
            state != 0 && state & 1 == 0
        };
        self.versions.iter().filter(live).count() as u64
    }
}

/// A permutation of `0..count`, without a table: four Feistel rounds on the next even power of two, repeated until the
/// result lies inside.
#[derive(Clone, Copy)]
pub struct Permutation {
    count: u64,
    half_bits: u32,
    seed: u64,
}

impl Permutation {
    pub fn new(count: u64, seed: u64) -> Permutation {
        let bits = 64 - count.max(2).leading_zeros();
        Permutation { count, half_bits: bits.div_ceil(2), seed }
    }

    pub fn at(&self, index: u64) -> u64 {
        debug_assert!(index < self.count);
        let mask = (1u64 << self.half_bits) - 1;
        let mut at = index;
        loop {
            let (mut left, mut right) = (at >> self.half_bits, at & mask);
            for round in 0..4 {
                (left, right) = (right, left ^ (scatter(right ^ self.seed.wrapping_add(round << 56)) & mask));
            }
            at = left << self.half_bits | right;
            if at < self.count {
                return at;
            }
        }
    }
}

#[cfg(test)]
#[path = "model_test.rs"]
mod tests;
