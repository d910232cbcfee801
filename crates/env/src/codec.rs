//! Byte codecs: little-endian fixed integers, LEB128 varints, length-prefixed slices, checksums.
//!
//! Decoding never panics: each `get_*` advances the slice, or returns [`Truncated`] and leaves it as it was.

/// The input ended before the value did, or a varint is longer than its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("truncated or malformed encoding")]
pub struct Truncated;

/// Appends `value`, 4 bytes little-endian.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends `value`, 8 bytes little-endian.
pub fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends `value` as LEB128, 1 to 10 bytes.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a varint length and the bytes.
pub fn put_slice(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes `count` bytes.
pub fn get_bytes<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8], Truncated> {
    let (head, tail) = input.split_at_checked(count).ok_or(Truncated)?;
    *input = tail;
    Ok(head)
}

/// Takes one byte.
pub fn get_u8(input: &mut &[u8]) -> Result<u8, Truncated> {
    let (first, tail) = input.split_first().ok_or(Truncated)?;
    *input = tail;
    Ok(*first)
}

/// Takes 4 bytes little-endian.
pub fn get_u32(input: &mut &[u8]) -> Result<u32, Truncated> {
    let (head, tail) = input.split_first_chunk::<4>().ok_or(Truncated)?;
    *input = tail;
    Ok(u32::from_le_bytes(*head))
}

/// Takes 8 bytes little-endian.
pub fn get_u64(input: &mut &[u8]) -> Result<u64, Truncated> {
    let (head, tail) = input.split_first_chunk::<8>().ok_or(Truncated)?;
    *input = tail;
    Ok(u64::from_le_bytes(*head))
}

/// Takes a LEB128 varint.
pub fn get_varint(input: &mut &[u8]) -> Result<u64, Truncated> {
    let mut value = 0u64;
    for (i, byte) in input.iter().enumerate().take(10) {
        if i == 9 && *byte > 1 {
            return Err(Truncated);
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *input = input.get(i + 1..).ok_or(Truncated)?;
            return Ok(value);
        }
    }
    Err(Truncated)
}

/// Takes a varint length and that many bytes.
pub fn get_slice<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], Truncated> {
    let mut rest = *input;
    let count = usize::try_from(get_varint(&mut rest)?).map_err(|_| Truncated)?;
    let bytes = get_bytes(&mut rest, count)?;
    *input = rest;
    Ok(bytes)
}

/// CRC-32 (IEEE) of the parts, in order.
pub fn checksum32(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// XXH3-64 of the bytes.
pub fn hash64(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

#[cfg(test)]
#[path = "codec_test.rs"]
mod tests;
