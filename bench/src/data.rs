//! Keys and values as pure functions of an index, so that every answer can be checked without keeping a copy.

/// SplitMix64: scatters indices, and seeds values.
pub fn scatter(index: u64) -> u64 {
    let mut z = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A 16-byte key.
pub fn key(index: u64) -> [u8; 16] {
    let mut key = *b"key-000000000000";
    key[4..].copy_from_slice(&format!("{:012x}", scatter(index) >> 16).as_bytes()[..12]);
    key
}

/// A value of `bytes` bytes, about half of it compressible.
pub fn value(index: u64, bytes: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes + 16);
    let mut seed = index;
    while value.len() < bytes {
        seed = scatter(seed);
        value.extend_from_slice(&seed.to_le_bytes());
        value.extend_from_slice(b"kontiki!");
    }
    value.truncate(bytes);
    value
}
