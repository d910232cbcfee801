//! Writing a snapshot from a view.

use super::frame::{self, FRAME_BYTES, KIND_DATA, KIND_DATA_EXPIRING, KIND_END, KIND_HEADER, MAGIC};
use super::{SnapshotError, SnapshotFile, SnapshotHead, SnapshotId};
use crate::families::Families;
use crate::meta;
use crate::region::RegionId;
use kontiki_engine::{Direction, Entries, Family, Range, View};
use kontiki_env::codec::{checksum32, put_slice, put_u32, put_u64, put_varint};
use std::io;

/// A running CRC-32 over the parts of a file: each part's checksum is folded in, in order.
///
/// Not the CRC of the concatenation, which would need the whole file or a combining step; as strong for our purpose,
/// since it depends on every part and on their order.
#[derive(Clone, Copy, Default)]
pub(super) struct RunningChecksum(u32);

impl RunningChecksum {
    pub fn add(&mut self, part: &[u8]) {
        self.0 = checksum32(&[&self.0.to_le_bytes(), part]);
    }

    pub fn value(self) -> u32 {
        self.0
    }
}

struct Output<'a> {
    write: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
    bytes: u64,
    checksum: RunningChecksum,
    data_frames: u64,
    entries: u64,
}

impl Output<'_> {
    fn part(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.add(bytes);
        self.bytes += bytes.len() as u64;
        (self.write)(bytes)
    }

    /// Writes a data frame, if there is anything in it, and empties it.
    fn data(&mut self, frame: &mut Frame) -> io::Result<()> {
        if frame.payload.is_empty() {
            return Ok(());
        }
        self.data_frames += 1;
        self.part(&frame::encode(frame.kind, &frame.payload))?;
        *frame = Frame::default();
        Ok(())
    }

    /// Writes the entries of a family.
    fn family(&mut self, family: Family, mut entries: Box<dyn Entries>, content: Content) -> Result<(), SnapshotError> {
        let mut frame = Frame::default();
        while let Some((key, value)) = entries.next().transpose()? {
            let expires_at_ms = entries.expires_at_ms();
            if expires_at_ms.is_some() && content.without_expiry {
                return Err(SnapshotError::Expiry);
            }
            if expires_at_ms.is_some() && frame.kind == KIND_DATA {
                // From here on a byte more for the entries that stay, until the frame is full: a frame for each of them
                // would cost more.
                self.data(&mut frame)?;
                frame.kind = KIND_DATA_EXPIRING;
            }
            if frame.payload.is_empty() {
                put_varint(&mut frame.payload, u64::from(family.0));
            }
            put_slice(&mut frame.payload, &key);
            if frame.kind == KIND_DATA_EXPIRING {
                put_varint(&mut frame.payload, expires_at_ms.unwrap_or(0));
            }
            put_slice(&mut frame.payload, &value);
            self.entries += 1;
            if frame.payload.len() >= FRAME_BYTES {
                self.data(&mut frame)?;
            }
        }
        Ok(self.data(&mut frame)?)
    }
}

/// A data frame that is being filled.
struct Frame {
    kind: u8,
    payload: Vec<u8>,
}

impl Default for Frame {
    fn default() -> Frame {
        Frame { kind: KIND_DATA, payload: Vec::new() }
    }
}

/// What a snapshot of the region in `view` holds. Position and descriptor are the view's own, so they fit the data by
/// construction.
pub fn describe(families: &Families, view: &dyn View, region: RegionId) -> Result<SnapshotHead, SnapshotError> {
    let descriptor = meta::region(families.meta, view, region)?.ok_or(SnapshotError::NoRegion(region))?;
    let position = meta::applied_position(families.meta, view, region)?.ok_or(SnapshotError::NoRegion(region))?;
    assert!(position.index > 0 && position.term > 0, "a region that exists has an applied position");
    let id = SnapshotId { region, term: position.term, index: position.index };
    Ok(SnapshotHead { id, region: descriptor })
}

/// What is not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// A planted bug.
    pub left_out: Option<Family>,
    /// The receiver is of a release that does not know entries that expire: one ends the write with
    /// [`SnapshotError::Expiry`]. Without their expiry the replica would differ from the others.
    pub without_expiry: bool,
}

/// Writes the region's state in `view` through `write`, front to back, and returns what was written.
pub fn write(
    families: &Families,
    view: &dyn View,
    region: RegionId,
    content: Content,
    write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<SnapshotFile, SnapshotError> {
    let head = describe(families, view, region)?;
    let mut file = SnapshotFile { id: head.id, number: 0, region: head.region.clone(), bytes: 0, checksum: 0 };

    let mut output = Output { write, bytes: 0, checksum: RunningChecksum::default(), data_frames: 0, entries: 0 };
    output.part(MAGIC)?;
    output.part(&frame::encode(KIND_HEADER, &prost::Message::encode_to_vec(&head.to_info())))?;
    for &family in families.of(file.region.space).iter().filter(|family| Some(**family) != content.left_out) {
        let range = Range::region(&file.region.start_key, &file.region.end_key);
        output.family(family, view.entries(family, range, Direction::Forward)?, content)?;
    }
    file.checksum = output.checksum.value();
    let mut end = Vec::new();
    put_u64(&mut end, output.entries);
    put_u64(&mut end, output.data_frames);
    put_u32(&mut end, file.checksum);
    output.part(&frame::encode(KIND_END, &end))?;
    file.bytes = output.bytes;
    Ok(file)
}
