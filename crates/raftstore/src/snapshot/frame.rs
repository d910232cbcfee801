//! The frames of a snapshot file.
//!
//! File: magic `KONTSNP` and format version 1 (8 bytes together), then frames to the end of the file.
//!
//! Frame:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | kind: 1 header, 2 data, 3 end, 4 data with expiry |
//! | 4, LE | length of the payload, at most [`PAYLOAD_BYTES_MAX`] |
//! | 4, LE | CRC-32 of kind, length and payload |
//! | length | payload |
//!
//! Payloads: *header* (first frame, once) is protobuf `SnapshotInfo` without size and checksum. *Data* is a family
//! (varint), then entries to the end: key, value (varint length and bytes each); families ascend over the file and keys
//! ascend within a family. *Data with expiry* has, between key and value, when the entry expires, in milliseconds of
//! the wall clock since 1970 (varint; 0: never); it is used only where an entry expires, so a file without such entries
//! is one that older releases read, and they refuse the others ("a frame of an unknown kind"). *End* (last frame, once)
//! is the number of entries and the number of data frames of both kinds (8 bytes LE each) and the CRC-32 of all bytes
//! of the file before this frame (4 bytes LE).

use super::SnapshotError;
use kontiki_env::codec::{checksum32, get_bytes, get_u8, get_u32, put_u32};
use std::io::{self, Read};

pub(super) const MAGIC: &[u8; 8] = b"KONTSNP\x01";
/// A data frame is closed at this size: large enough to amortise its header, small compared with a chunk.
pub(super) const FRAME_BYTES: usize = 256 << 10;
/// One entry may be as large as the largest key and value together, on top of a frame that was not full.
pub(super) const PAYLOAD_BYTES_MAX: usize =
    FRAME_BYTES + kontiki_engine::KEY_BYTES_MAX + kontiki_engine::VALUE_BYTES_MAX + 64;
pub(super) const HEAD_BYTES: usize = 9;

pub(super) const KIND_HEADER: u8 = 1;
pub(super) const KIND_DATA: u8 = 2;
pub(super) const KIND_END: u8 = 3;
pub(super) const KIND_DATA_EXPIRING: u8 = 4;

/// Encodes a frame.
pub(super) fn encode(kind: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a frame is bounded");
    let length = (payload.len() as u32).to_le_bytes();
    let mut out = Vec::with_capacity(HEAD_BYTES + payload.len());
    out.push(kind);
    out.extend_from_slice(&length);
    put_u32(&mut out, checksum32(&[&[kind], &length, payload]));
    out.extend_from_slice(payload);
    out
}

/// Reads frames and checks each; `offset` is where the next one starts.
pub(super) struct FrameReader<'a> {
    input: &'a mut dyn Read,
    pub offset: u64,
}

impl<'a> FrameReader<'a> {
    /// Reads the magic.
    pub fn new(input: &'a mut dyn Read) -> Result<FrameReader<'a>, SnapshotError> {
        let mut reader = FrameReader { input, offset: 0 };
        let magic = reader.take(MAGIC.len())?;
        if magic[..7] != MAGIC[..7] {
            return Err(SnapshotError::damaged(0, "not a snapshot file"));
        }
        if magic != MAGIC {
            return Err(SnapshotError::damaged(7, "a snapshot file of a newer format; upgrade this node"));
        }
        Ok(reader)
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>, SnapshotError> {
        // Grows with the bytes that exist, so a damaged length cannot make it allocate more.
        let mut bytes = Vec::new();
        let read = Read::take(&mut *self.input, count as u64).read_to_end(&mut bytes)?;
        if read < count {
            return Err(SnapshotError::damaged(self.offset, "the file ends in the middle of a frame"));
        }
        self.offset += count as u64;
        Ok(bytes)
    }

    /// The next frame's kind, payload, and all its bytes' parts for a running checksum.
    pub fn next(&mut self) -> Result<(u8, Vec<u8>, Vec<u8>), SnapshotError> {
        let start = self.offset;
        let head = self.take(HEAD_BYTES)?;
        let mut rest = head.as_slice();
        let fields = (|| Ok((get_u8(&mut rest)?, get_bytes(&mut rest, 4)?, get_u32(&mut rest)?)))();
        let (kind, length, checksum) =
            fields.map_err(|_: kontiki_env::codec::Truncated| SnapshotError::damaged(start, "a short frame head"))?;
        let count = get_u32(&mut { length }).unwrap_or(u32::MAX) as usize;
        if count > PAYLOAD_BYTES_MAX {
            return Err(SnapshotError::damaged(start, "a frame that is too long"));
        }
        let payload = self.take(count)?;
        if checksum32(&[&[kind], length, &payload]) != checksum {
            return Err(SnapshotError::damaged(start, "a frame whose checksum does not match"));
        }
        Ok((kind, payload, head))
    }

    /// Whether the file ends here.
    pub fn at_end(&mut self) -> io::Result<bool> {
        let mut byte = [0];
        loop {
            match self.input.read(&mut byte) {
                Ok(count) => return Ok(count == 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
