//! A bloom filter over user keys, blocked by cache line: a lookup touches one line of 64 bytes.
//!
//! If the family enables it (`filter_prefix_bytes`), the filter also holds the first so many bytes of every key that
//! is as long, so that a scan of one prefix can skip a table. Prefix and key are hashed alike: a prefix that is a
//! key too costs nothing more.
//!
//! Filter block: lines of 64 bytes, then the number of probes (1 byte). With the key's XXH3-64 hash `h`, its line is
//! `((h >> 32) * lines) >> 32`; probe `i` (from 0) takes the top 9 bits of the 32-bit product
//! `(h & 0xffffffff) * 0x9e3779b9^(i + 1)` as bit number in the line: byte `bit / 8`, mask `1 << (bit % 8)`.
//! An empty filter (0 lines) lets every key pass.
//!
//! At 10 bits per key and 6 probes about 1 % of absent keys pass; blocking costs some tenths of a percent against a
//! plain filter and saves five cache misses.

use super::format::Malformed;
use bytes::Bytes;
use kontiki_env::codec::hash64;

const LINE_BYTES: usize = 64;
/// Odd, with well-mixed bits: 2^32 divided by the golden ratio.
const MULTIPLIER: u32 = 0x9e37_79b9;
/// More probes than this gain nothing at any sensible size.
const PROBES_MAX: u8 = 16;

/// The hash of a user key or a prefix in filters: computed once for a lookup in many tables.
pub fn filter_hash(user_key: &[u8]) -> u64 {
    hash64(user_key)
}

/// Collects the keys of one table.
pub struct FilterWriter {
    hashes: Vec<u64>,
    bits_per_key: usize,
    prefix_bytes: usize,
    last: Option<u64>,
    last_prefix: Option<u64>,
}

impl FilterWriter {
    /// `bits_per_key` 0 makes an empty filter, `prefix_bytes` 0 one without prefixes.
    pub fn new(bits_per_key: usize, prefix_bytes: usize) -> FilterWriter {
        FilterWriter { hashes: Vec::new(), bits_per_key, prefix_bytes, last: None, last_prefix: None }
    }

    /// Adds a user key; versions of one key, and keys of one prefix, come in a row and count once.
    pub fn add(&mut self, user_key: &[u8]) {
        if self.bits_per_key == 0 {
            return;
        }
        let hash = filter_hash(user_key);
        if self.last.replace(hash) != Some(hash) {
            self.hashes.push(hash);
        }
        if let Some(prefix) = user_key.get(..self.prefix_bytes).filter(|prefix| !prefix.is_empty()) {
            let hash = filter_hash(prefix);
            if self.last_prefix.replace(hash) != Some(hash) {
                self.hashes.push(hash);
            }
        }
    }

    /// Bytes of the block if it ended now.
    pub fn bytes(&self) -> usize {
        self.lines() * LINE_BYTES + 1
    }

    fn lines(&self) -> usize {
        (self.hashes.len() * self.bits_per_key).div_ceil(LINE_BYTES * 8)
    }

    /// The filter block.
    pub fn finish(self) -> Vec<u8> {
        let lines = self.lines();
        // 0.69 * bits per key is the optimum of a plain filter; a blocked one needs a little less.
        assert!(lines > 0 || self.hashes.is_empty() || self.bits_per_key == 0, "every key has a line");
        let probes = ((self.bits_per_key * 3) / 5).clamp(1, PROBES_MAX as usize) as u8;
        let mut out = vec![0; lines * LINE_BYTES];
        for hash in self.hashes {
            let start = line_of(hash, lines) * LINE_BYTES;
            let line = out.get_mut(start..start + LINE_BYTES).expect("line_of stays below the number of lines");
            for bit in bits_of(hash, probes) {
                line[bit / 8] |= 1 << (bit % 8);
            }
        }
        out.push(probes);
        out
    }
}

fn line_of(hash: u64, lines: usize) -> usize {
    debug_assert!(lines > 0 && lines < 1 << 32, "the product fits 64 bits");
    (((hash >> 32) * lines as u64) >> 32) as usize
}

fn bits_of(hash: u64, probes: u8) -> impl Iterator<Item = usize> {
    let mut mixed = hash as u32;
    (0..probes).map(move |_| {
        mixed = mixed.wrapping_mul(MULTIPLIER);
        (mixed >> 23) as usize
    })
}

/// A filter that was read.
#[derive(Clone, Debug)]
pub struct Filter {
    lines: Bytes,
    probes: u8,
}

impl Filter {
    /// Checks the block's shape.
    pub fn new(mut block: Bytes) -> std::result::Result<Filter, Malformed> {
        let bad = "the filter block is malformed";
        let lines_bytes = block.len().checked_sub(1).ok_or(bad)?;
        let probes = *block.get(lines_bytes).ok_or(bad)?;
        block.truncate(lines_bytes);
        if lines_bytes % LINE_BYTES != 0 || probes == 0 || probes > PROBES_MAX {
            return Err(bad);
        }
        Ok(Filter { lines: block, probes })
    }

    /// False only if the key, or prefix, with this [`filter_hash`] was not added.
    pub fn may_contain(&self, hash: u64) -> bool {
        let lines = self.lines.len() / LINE_BYTES;
        if lines == 0 {
            return true;
        }
        let start = line_of(hash, lines) * LINE_BYTES;
        let Some(line) = self.lines.get(start..start + LINE_BYTES) else { return true };
        bits_of(hash, self.probes).all(|bit| line.get(bit / 8).is_some_and(|byte| byte & (1 << (bit % 8)) != 0))
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.lines.len()
    }
}

#[cfg(test)]
#[path = "filter_test.rs"]
mod tests;
