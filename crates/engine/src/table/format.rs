//! The frame of a table file: header, block handles, block trailers, footer.
//!
//! Header (16 bytes, at offset 0): magic `KONTISST` (8), format version (u32 LE), CRC-32 of those 12 bytes (u32 LE).
//!
//! A stored block: payload, compression (1 byte: 0 raw, 1 LZ4, 2 Zstandard), CRC-32 (u32 LE) of payload, compression
//! byte and the block's file offset (u64 LE), so that a block read from, or written to, a wrong place does not pass. An
//! LZ4 payload is the raw length (u32 LE) and an LZ4 block, a Zstandard payload the raw length and one frame.
//!
//! Footer (72 bytes, at the end): filter, properties and index handles (offset u64 LE, payload length u64 LE, each),
//! 8 zero bytes, format version (u32 LE), CRC-32 of the footer up to here (u32 LE), magic `KONTISST` (8).

use crate::types::Compression;
use crate::{Error, Result};
use kontiki_env::codec::{
    Truncated, checksum32, get_bytes, get_u32, get_u64, get_varint, put_u32, put_u64, put_varint,
};
use std::path::Path;

/// First and last 8 bytes of a table.
pub const MAGIC: &[u8; 8] = b"KONTISST";
/// The format this build writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 2;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 16;
/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 72;
/// Bytes after a block's payload: compression and checksum.
pub const TRAILER_BYTES: usize = 5;
/// Largest payload and largest uncompressed block a reader accepts: above anything written (an index of a table
/// with 64 KiB keys, or a value of 32 MiB), and a bound on what a wrong length can make it allocate.
pub const BLOCK_BYTES_MAX: u64 = 256 << 20;

const COMPRESSION_RAW: u8 = 0;
const COMPRESSION_LZ4: u8 = 1;
const COMPRESSION_ZSTD: u8 = 2;

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHandle {
    /// File offset of the payload.
    pub offset: u64,
    /// Length of the payload, without the trailer.
    pub length: u64,
}

impl BlockHandle {
    /// Offset and length as varints (index entries).
    pub fn encoded(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(12);
        put_varint(&mut out, self.offset);
        put_varint(&mut out, self.length);
        out
    }

    /// Takes what [`BlockHandle::encoded`] made.
    pub fn decode(input: &mut &[u8]) -> std::result::Result<BlockHandle, Truncated> {
        Ok(BlockHandle { offset: get_varint(input)?, length: get_varint(input)? })
    }
}

/// The footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Filter block.
    pub filter: BlockHandle,
    /// Properties block.
    pub properties: BlockHandle,
    /// Index block.
    pub index: BlockHandle,
}

/// The header.
pub fn encode_header() -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    put_u32(&mut out, FORMAT_VERSION);
    let checksum = checksum32(&[&out]);
    put_u32(&mut out, checksum);
    debug_assert_eq!(out.len(), HEADER_BYTES);
    out
}

/// Checks a header read from `file`.
pub fn check_header(bytes: &[u8], file: &Path) -> Result<()> {
    let corrupt = |what: &str| Error::Corruption { file: file.to_path_buf(), offset: 0, what: what.to_string() };
    let mut input = bytes;
    let parsed = (|| Ok::<_, Truncated>((get_bytes(&mut input, 8)?, get_u32(&mut input)?, get_u32(&mut input)?)))();
    let Ok((magic, version, checksum)) = parsed else { return Err(corrupt("the table's header is cut short")) };
    if magic != MAGIC {
        return Err(corrupt("not a table: the header's magic number is wrong"));
    }
    if checksum != checksum32(&[magic, &version.to_le_bytes()]) {
        return Err(corrupt("the table header's checksum does not match"));
    }
    check_version(version, file)
}

fn check_version(version: u32, file: &Path) -> Result<()> {
    if version == FORMAT_VERSION {
        return Ok(());
    }
    let what = format!(
        "table format version {version} is unknown, this build knows up to {FORMAT_VERSION}; open it with the \
             newer kontiki that wrote it"
    );
    Err(Error::UnsupportedFormat { file: file.to_path_buf(), what })
}

/// The footer's bytes.
pub fn encode_footer(footer: &Footer) -> Vec<u8> {
    let mut out = Vec::with_capacity(FOOTER_BYTES);
    assert!(footer.filter.offset < footer.properties.offset && footer.properties.offset < footer.index.offset);
    for handle in [footer.filter, footer.properties, footer.index] {
        put_u64(&mut out, handle.offset);
        put_u64(&mut out, handle.length);
    }
    put_u64(&mut out, 0);
    put_u32(&mut out, FORMAT_VERSION);
    let checksum = checksum32(&[&out]);
    put_u32(&mut out, checksum);
    out.extend_from_slice(MAGIC);
    debug_assert_eq!(out.len(), FOOTER_BYTES);
    out
}

/// Parses a footer at `offset` of `file`, checking that its handles lie before it.
pub fn decode_footer(bytes: &[u8], file: &Path, offset: u64) -> Result<Footer> {
    let corrupt = |what: &str| Error::Corruption { file: file.to_path_buf(), offset, what: what.to_string() };
    let short = |_: Truncated| corrupt("the table's footer is cut short");
    let mut input = bytes;
    let covered = bytes.get(..FOOTER_BYTES - 12).ok_or_else(|| short(Truncated))?;
    let handle = |input: &mut &[u8]| Ok(BlockHandle { offset: get_u64(input)?, length: get_u64(input)? });
    let filter = handle(&mut input).map_err(short)?;
    let properties = handle(&mut input).map_err(short)?;
    let index = handle(&mut input).map_err(short)?;
    let reserved = get_u64(&mut input).map_err(short)?;
    let version = get_u32(&mut input).map_err(short)?;
    let checksum = get_u32(&mut input).map_err(short)?;
    if input != MAGIC {
        return Err(corrupt("not a whole table: the footer's magic number is wrong"));
    }
    if checksum != checksum32(&[covered]) {
        return Err(corrupt("the table footer's checksum does not match"));
    }
    check_version(version, file)?;
    let inside = |handle: BlockHandle| {
        let end = handle.offset.checked_add(handle.length).and_then(|end| end.checked_add(TRAILER_BYTES as u64));
        handle.length <= BLOCK_BYTES_MAX && end.is_some_and(|end| end <= offset)
    };
    if reserved != 0 || !inside(filter) || !inside(properties) || !inside(index) {
        return Err(corrupt("the table's footer points outside of the file"));
    }
    Ok(Footer { filter, properties, index })
}

/// A block ready to be written at `offset`: payload and trailer. Compressed only if that saves an eighth.
pub fn encode_block(raw: &[u8], offset: u64, compression: Compression, out: &mut Vec<u8>) {
    assert!(raw.len() as u64 <= BLOCK_BYTES_MAX, "a block of {} bytes could not be read back", raw.len());
    out.clear();
    let packed = match compression {
        Compression::None => None,
        Compression::Lz4 => pack_lz4(raw, out),
        Compression::Zstd => pack_zstd(raw, out),
    };
    // Less than an eighth does not pay for the decompression.
    let kind = packed.filter(|_| out.len() < raw.len() - raw.len() / 8).unwrap_or(COMPRESSION_RAW);
    if kind == COMPRESSION_RAW {
        out.clear();
        out.extend_from_slice(raw);
    }
    debug_assert!(out.len() <= raw.len(), "compression that does not pay is not used");
    let checksum = checksum32(&[out, &[kind], &offset.to_le_bytes()]);
    out.push(kind);
    put_u32(out, checksum);
}

fn pack_lz4(raw: &[u8], out: &mut Vec<u8>) -> Option<u8> {
    put_u32(out, raw.len() as u32);
    out.resize(4 + lz4_flex::block::get_maximum_output_size(raw.len()), 0);
    let length = lz4_flex::block::compress_into(raw, out.get_mut(4..)?).ok()?;
    out.truncate(4 + length);
    Some(COMPRESSION_LZ4)
}

/// The encoder is a recent library, so its output is decompressed and compared: a block that could not be read back
/// would be lost.
fn pack_zstd(raw: &[u8], out: &mut Vec<u8>) -> Option<u8> {
    put_u32(out, raw.len() as u32);
    let frame = ruzstd::encoding::compress_to_vec(raw, ruzstd::encoding::CompressionLevel::Fastest);
    out.extend_from_slice(&frame);
    (unpack_zstd(&frame, raw.len()).as_deref() == Ok(raw)).then_some(COMPRESSION_ZSTD)
}

fn unpack_zstd(frame: &[u8], raw_bytes: usize) -> std::result::Result<Vec<u8>, Malformed> {
    let bad = "the block does not uncompress";
    let mut raw = vec![0; raw_bytes];
    let length = ruzstd::decoding::FrameDecoder::new().decode_all(frame, &mut raw).map_err(|_| bad)?;
    if length == raw_bytes { Ok(raw) } else { Err("the block's uncompressed length is wrong") }
}

/// The error of [`decode_block`].
pub type Malformed = &'static str;

/// Checks and uncompresses what `encode_block` made for `offset`: payload and trailer.
pub fn decode_block(mut stored: Vec<u8>, offset: u64) -> std::result::Result<Vec<u8>, Malformed> {
    let short = "the block is shorter than its trailer";
    let payload_bytes = stored.len().checked_sub(TRAILER_BYTES).ok_or(short)?;
    let (payload, trailer) = stored.split_at_checked(payload_bytes).ok_or(short)?;
    let (&kind, mut checksum) = trailer.split_first().ok_or(short)?;
    let checksum = get_u32(&mut checksum).map_err(|_| short)?;
    if checksum != checksum32(&[payload, &[kind], &offset.to_le_bytes()]) {
        return Err("the block's checksum does not match");
    }
    match kind {
        COMPRESSION_RAW => {
            stored.truncate(payload_bytes);
            Ok(stored)
        }
        COMPRESSION_LZ4 | COMPRESSION_ZSTD => {
            let mut input = payload;
            let raw_bytes = get_u32(&mut input).map_err(|_| short)? as usize;
            if raw_bytes as u64 > BLOCK_BYTES_MAX {
                return Err("the block's uncompressed length is beyond the limit");
            }
            if kind == COMPRESSION_ZSTD {
                return unpack_zstd(input, raw_bytes);
            }
            let raw = lz4_flex::block::decompress(input, raw_bytes).map_err(|_| "the block does not uncompress")?;
            if raw.len() == raw_bytes { Ok(raw) } else { Err("the block's uncompressed length is wrong") }
        }
        _ => Err("the block's compression is unknown"),
    }
}

#[cfg(test)]
#[path = "format_test.rs"]
mod tests;
