//! Reading and checking a snapshot file.

use super::frame::{FrameReader, KIND_DATA, KIND_DATA_EXPIRING, KIND_END, KIND_HEADER, MAGIC};
use super::write::RunningChecksum;
use super::{SnapshotError, SnapshotFile};
use crate::consensus::wire::SnapshotInfo;
use crate::families::Families;
use bytes::Bytes;
use kontiki_engine::{Family, WriteBatch};
use kontiki_env::codec::{get_slice, get_u32, get_u64, get_varint};
use std::io::Read;

/// The entries of one data frame.
pub(super) struct DataFrame {
    pub family: Family,
    pub entries: Vec<Entry>,
}

/// A key with its value.
pub(super) struct Entry {
    pub key: Bytes,
    pub value: Bytes,
    /// Milliseconds of the wall clock since 1970; `None`: it does not expire.
    pub expires_at_ms: Option<u64>,
}

impl Entry {
    /// Adds it to a batch.
    pub fn put_into(&self, family: Family, batch: &mut WriteBatch) {
        match self.expires_at_ms {
            None => batch.put(family, &self.key, &self.value),
            Some(expires_at_ms) => batch.put_expiring(family, &self.key, &self.value, expires_at_ms),
        };
    }
}

/// Reads a file front to back, checking each frame, the order of keys, that every key belongs to the region, and at the
/// end the counts and the checksum of the whole.
pub(super) struct SnapshotReader<'a> {
    families: &'a Families,
    frames: FrameReader<'a>,
    checksum: RunningChecksum,
    file: SnapshotFile,
    entry_count: u64,
    frame_count: u64,
    /// Family and key of the last entry.
    last: Option<(Family, Bytes)>,
}

impl<'a> SnapshotReader<'a> {
    pub fn new(families: &'a Families, input: &'a mut dyn Read) -> Result<SnapshotReader<'a>, SnapshotError> {
        let mut frames = FrameReader::new(input)?;
        let mut checksum = RunningChecksum::default();
        checksum.add(MAGIC);
        let (kind, payload, head) = frames.next()?;
        if kind != KIND_HEADER {
            return Err(SnapshotError::damaged(MAGIC.len() as u64, "the first frame is not a header"));
        }
        checksum.add(&[head, payload.clone()].concat());
        let info = <SnapshotInfo as prost::Message>::decode(payload.as_slice());
        let info = info.map_err(|_| SnapshotError::damaged(MAGIC.len() as u64, "a malformed header"))?;
        let file = SnapshotFile::from_info(&info).map_err(|what| SnapshotError::damaged(MAGIC.len() as u64, what))?;
        Ok(SnapshotReader { families, frames, checksum, file, entry_count: 0, frame_count: 0, last: None })
    }

    /// What the header says; size and checksum are filled in when the end is reached.
    pub fn file(&self) -> &SnapshotFile {
        &self.file
    }

    /// The next data frame; `None` after the last one, when the whole file was checked.
    pub fn next(&mut self) -> Result<Option<DataFrame>, SnapshotError> {
        let start = self.frames.offset;
        let (kind, payload, head) = self.frames.next()?;
        match kind {
            KIND_DATA | KIND_DATA_EXPIRING => {
                self.checksum.add(&[&head[..], &payload[..]].concat());
                let frame = self.decode(kind, payload.into(), start)?;
                self.frame_count += 1;
                self.entry_count += frame.entries.len() as u64;
                Ok(Some(frame))
            }
            KIND_END => self.finish(&payload, start).map(|()| None),
            _ => Err(SnapshotError::damaged(start, "a frame of an unknown kind")),
        }
    }

    fn decode(&mut self, kind: u8, payload: Bytes, start: u64) -> Result<DataFrame, SnapshotError> {
        let short = |_| SnapshotError::damaged(start, "a malformed data frame");
        let mut rest = payload.as_ref();
        let family = get_varint(&mut rest).map_err(short)?;
        // Files of versions before the families' numbers were reserved are recognised by their numbers.
        let family = u32::try_from(family).ok().map(|family| self.families.renumbered(Family(family)));
        let family = family.filter(|family| self.families.of(self.file.region.space).contains(family));
        let family = family.ok_or_else(|| SnapshotError::damaged(start, "a family that is not the region's"))?;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let key = payload.slice_ref(get_slice(&mut rest).map_err(short)?);
            let expires_at_ms = if kind == KIND_DATA_EXPIRING { get_varint(&mut rest).map_err(short)? } else { 0 };
            let expires_at_ms = (expires_at_ms > 0).then_some(expires_at_ms);
            let value = payload.slice_ref(get_slice(&mut rest).map_err(short)?);
            let ascends = self.last.as_ref().is_none_or(|last| (last.0, &last.1) < (family, &key));
            if !ascends || !self.file.region.contains(&key) {
                return Err(SnapshotError::damaged(start, "a key out of order or out of the region"));
            }
            self.last = Some((family, key.clone()));
            entries.push(Entry { key, value, expires_at_ms });
        }
        Ok(DataFrame { family, entries })
    }

    fn finish(&mut self, payload: &[u8], start: u64) -> Result<(), SnapshotError> {
        let mut rest = payload;
        let fields = (get_u64(&mut rest), get_u64(&mut rest), get_u32(&mut rest));
        let expected = (Ok(self.entry_count), Ok(self.frame_count), Ok(self.checksum.value()));
        if fields != expected || !rest.is_empty() {
            return Err(SnapshotError::damaged(start, "counts or checksum of the whole do not match"));
        }
        if !self.frames.at_end()? {
            return Err(SnapshotError::damaged(self.frames.offset, "bytes after the end"));
        }
        self.file.bytes = self.frames.offset;
        self.file.checksum = self.checksum.value();
        Ok(())
    }
}

/// Reads a whole file and checks everything; returns its description.
pub fn verify(families: &Families, input: &mut dyn Read) -> Result<SnapshotFile, SnapshotError> {
    let mut reader = SnapshotReader::new(families, input)?;
    while reader.next()?.is_some() {}
    Ok(reader.file().clone())
}
