//! Memcomparable keys: an encoding that preserves order even when a suffix is appended.
//!
//! The key is cut into groups of 8 bytes. Each group is written zero-padded to 8 bytes, followed by one marker byte
//! 0xFF - (number of padding bytes). A key whose length is a multiple of 8 (the empty key too) gets one more group of
//! 8 zero bytes with marker 0xF7. So no encoding is a prefix of another, and byte order of encodings (also with a
//! timestamp behind them) is byte order of keys. The encoding is injective: padding must be zero to decode.

/// Bytes that are no memcomparable key, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotMemcomparable(pub &'static str);

const GROUP: usize = 8;
const MARKER: u8 = 0xff;

/// Encodes a key: `(len / 8 + 1) * 9` bytes.
pub fn encode(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity((key.len() / GROUP + 1) * (GROUP + 1));
    let mut groups = key.chunks_exact(GROUP);
    for group in &mut groups {
        out.extend_from_slice(group);
        out.push(MARKER);
    }
    let rest = groups.remainder();
    let padding = GROUP - rest.len();
    out.extend_from_slice(rest);
    out.resize(out.len() + padding, 0);
    out.push(MARKER - padding as u8);
    debug_assert_eq!(out.len(), (key.len() / GROUP + 1) * (GROUP + 1), "whole groups");
    out
}

/// The least encoding that is not below any key, taken as it is, which begins with the first eight bytes of `key`: a
/// boundary that is a valid encoding and divides keys that are not encoded. It depends on these bytes only.
pub fn boundary_behind(key: &[u8]) -> Vec<u8> {
    let boundary = encode(&key[..key.len().min(GROUP)]);
    debug_assert!(boundary.as_slice() > key || key.get(GROUP) == Some(&MARKER) || key.len() < GROUP);
    boundary
}

/// The encoding of a key at or near the place of `position`, which is an encoding, the beginning of one, or one with
/// something behind it. For dividing encoded keys: it is at or below every encoding that `position` begins.
pub fn boundary_near(position: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(position.len());
    for group in position.chunks(GROUP + 1) {
        let data = group.get(..GROUP).unwrap_or(group);
        let data = match group.get(GROUP) {
            Some(marker) => &data[..data.len() - usize::from(MARKER - marker).min(GROUP)],
            // Zeros at a cut may be padding.
            None => &data[..data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)],
        };
        key.extend_from_slice(data);
        if data.len() < GROUP {
            break;
        }
    }
    encode(&key)
}

/// Decodes a whole encoding.
pub fn decode(encoded: &[u8]) -> Result<Vec<u8>, NotMemcomparable> {
    let (key, rest) = decode_prefix(encoded)?;
    if rest.is_empty() { Ok(key) } else { Err(NotMemcomparable("bytes after a memcomparable key")) }
}

/// Decodes the encoding that `encoded` starts with; also returns the bytes after it.
fn decode_prefix(encoded: &[u8]) -> Result<(Vec<u8>, &[u8]), NotMemcomparable> {
    let mut key = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    loop {
        let (group, tail) =
            rest.split_first_chunk::<{ GROUP + 1 }>().ok_or(NotMemcomparable("a cut memcomparable key"))?;
        rest = tail;
        let [bytes @ .., marker] = group;
        let padding = usize::from(MARKER - marker);
        if padding == 0 {
            key.extend_from_slice(bytes);
            continue;
        }
        if padding > GROUP {
            return Err(NotMemcomparable("a wrong marker in a memcomparable key"));
        }
        let (data, zeros) = bytes.split_at(GROUP - padding);
        if zeros.iter().any(|byte| *byte != 0) {
            return Err(NotMemcomparable("non-zero padding in a memcomparable key"));
        }
        key.extend_from_slice(data);
        assert!(key.len() < encoded.len(), "an encoding is longer than its key");
        debug_assert!(encoded.starts_with(&encode(&key)), "the encoding is unique");
        return Ok((key, rest));
    }
}

#[cfg(test)]
#[path = "memcomparable_test.rs"]
mod tests;
