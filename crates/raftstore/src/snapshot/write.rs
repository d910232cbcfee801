//! Writing a snapshot from a view.

use super::frame::{self, FRAME_BYTES, KIND_DATA, KIND_END, KIND_HEADER, MAGIC};
use super::{SnapshotError, SnapshotFile, SnapshotHead, SnapshotId};
use crate::families::Families;
use crate::meta;
use crate::region::RegionId;
use kontiki_engine::{Direction, Family, Range, View};
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
}

impl Output<'_> {
    fn part(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.add(bytes);
        self.bytes += bytes.len() as u64;
        (self.write)(bytes)
    }

    fn data(&mut self, payload: &[u8]) -> io::Result<()> {
        self.data_frames += 1;
        self.part(&frame::encode(KIND_DATA, payload))
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

/// Writes the region's state in `view` through `write`, front to back, and returns what was written. `left_out` is a
/// planted bug.
pub fn write(
    families: &Families,
    view: &dyn View,
    region: RegionId,
    left_out: Option<Family>,
    write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<SnapshotFile, SnapshotError> {
    let head = describe(families, view, region)?;
    let mut file = SnapshotFile { id: head.id, number: 0, region: head.region.clone(), bytes: 0, checksum: 0 };

    let mut output = Output { write, bytes: 0, checksum: RunningChecksum::default(), data_frames: 0 };
    output.part(MAGIC)?;
    output.part(&frame::encode(KIND_HEADER, &prost::Message::encode_to_vec(&head.to_info())))?;
    let mut entry_count = 0u64;
    for &family in families.of(file.region.space).iter().filter(|family| Some(**family) != left_out) {
        let range = Range::region(&file.region.start_key, &file.region.end_key);
        let mut entries = view.entries(family, range, Direction::Forward)?;
        let mut payload = Vec::new();
        while let Some((key, value)) = entries.next().transpose()? {
            if payload.is_empty() {
                put_varint(&mut payload, u64::from(family.0));
            }
            put_slice(&mut payload, &key);
            put_slice(&mut payload, &value);
            entry_count += 1;
            if payload.len() >= FRAME_BYTES {
                output.data(&payload)?;
                payload.clear();
            }
        }
        if !payload.is_empty() {
            output.data(&payload)?;
        }
    }
    file.checksum = output.checksum.value();
    let mut end = Vec::new();
    put_u64(&mut end, entry_count);
    put_u64(&mut end, output.data_frames);
    put_u32(&mut end, file.checksum);
    output.part(&frame::encode(KIND_END, &end))?;
    file.bytes = output.bytes;
    Ok(file)
}
