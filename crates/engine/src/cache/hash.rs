//! A fixed hash for small integer keys.

use std::hash::{BuildHasher, Hasher};

/// Builds [`FixedHasher`]s.
#[derive(Clone, Copy, Default)]
pub struct FixedHash;

impl BuildHasher for FixedHash {
    type Hasher = FixedHasher;

    fn build_hasher(&self) -> FixedHasher {
        FixedHasher(0)
    }
}

/// Mixes integers (multiply and fold). File numbers and offsets are chosen by the engine, so no client can force
/// collisions.
pub struct FixedHasher(u64);

impl Hasher for FixedHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.write_u64(kontiki_env::codec::hash64(bytes));
    }

    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ 0x9e37_79b9_7f4a_7c15) * u128::from(0xa076_1d64_78bd_642f_u64);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
