//! The index of a relocated file: from a pointer's segment and offset to where the value is now.
//!
//! It follows the records (whose end is `data end`), and is written once, with the file:
//!
//! - index pages: entries of 8 bytes, sorted: old offset / 8 (u32), new offset / 8 (u32), at most 510 of one old
//!   segment; then the CRC-32 (u32) of file number (8 bytes), the page's offset in the file (8 bytes) and the entries;
//! - directory: for each page 24 bytes, sorted: old segment (u64), first old offset / 8 (u32), entries (u32), offset of
//!   the page in the file (u64);
//! - trailer, the last 32 bytes: data end (u64), offset of the directory (u64), pages (u32), CRC-32 of the directory
//!   (u32), 0 (u32), CRC-32 of file number (8 bytes) and bytes 0 to 27 (u32).
//!
//! Open files keep the directory in memory, some 24 bytes for 510 values; a lookup reads one page.

use super::format::{FILE_HEADER_BYTES, RECORD_ALIGNMENT};
use kontiki_env::codec::{checksum32, get_bytes, get_u32, get_u64, put_u32, put_u64};

/// Entries of a page: with its checksum and the 8 bytes that it may be misaligned by, about 4 KiB.
const PAGE_ENTRIES_MAX: usize = 510;
const ENTRY_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;
const DIRECTORY_ENTRY_BYTES: usize = 24;
/// Bytes of the trailer.
pub(crate) const TRAILER_BYTES: u64 = 32;
/// Offsets are kept in 32 bits, in units of [`RECORD_ALIGNMENT`]: a value file is smaller than this.
pub(crate) const FILE_BYTES_MAX: u64 = (u32::MAX as u64) * RECORD_ALIGNMENT;

/// Where a value was when it was first written, and where it is in the file that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moved {
    pub(crate) segment: u64,
    pub(crate) old_offset: u64,
    pub(crate) new_offset: u64,
}

/// Encodes the index of file `number`, whose records end at `data_end`: what follows them, trailer included.
pub(crate) fn encode_index(number: u64, data_end: u64, moved: &mut [Moved]) -> Vec<u8> {
    moved.sort_unstable();
    let mut out = Vec::with_capacity(moved.len() * (ENTRY_BYTES + 1) + TRAILER_BYTES as usize);
    let mut directory = Vec::new();
    let mut pages = 0u32;
    for of_segment in moved.chunk_by(|a, b| a.segment == b.segment) {
        for page in of_segment.chunks(PAGE_ENTRIES_MAX) {
            let offset = data_end + out.len() as u64;
            put_u64(&mut directory, page[0].segment);
            put_u32(&mut directory, unit(page[0].old_offset));
            put_u32(&mut directory, page.len() as u32);
            put_u64(&mut directory, offset);
            let start = out.len();
            for entry in page {
                put_u32(&mut out, unit(entry.old_offset));
                put_u32(&mut out, unit(entry.new_offset));
            }
            let checksum = checksum32(&[&number.to_le_bytes(), &offset.to_le_bytes(), &out[start..]]);
            put_u32(&mut out, checksum);
            pages += 1;
        }
    }
    let directory_offset = data_end + out.len() as u64;
    let checksum = checksum32(&[&directory]);
    out.extend_from_slice(&directory);
    let start = out.len();
    put_u64(&mut out, data_end);
    put_u64(&mut out, directory_offset);
    put_u32(&mut out, pages);
    put_u32(&mut out, checksum);
    put_u32(&mut out, 0);
    let checksum = checksum32(&[&number.to_le_bytes(), &out[start..]]);
    put_u32(&mut out, checksum);
    assert_eq!((out.len() - start) as u64, TRAILER_BYTES, "the trailer's width is part of the format");
    out
}

/// An offset in units of the alignment.
fn unit(offset: u64) -> u32 {
    assert!(offset.is_multiple_of(RECORD_ALIGNMENT), "records are aligned");
    u32::try_from(offset / RECORD_ALIGNMENT).expect("a value file is below FILE_BYTES_MAX")
}

/// The content of a trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) data_end: u64,
    pub(crate) directory_offset: u64,
    pages: u32,
    checksum: u32,
}

impl Trailer {
    /// Decodes the trailer of file `number`, which has `file_bytes`.
    pub(crate) fn decode(number: u64, file_bytes: u64, bytes: &[u8]) -> Option<Trailer> {
        let covered = bytes.get(..TRAILER_BYTES as usize - CHECKSUM_BYTES)?;
        let mut input = bytes;
        let (data_end, directory_offset) = (get_u64(&mut input).ok()?, get_u64(&mut input).ok()?);
        let (pages, checksum) = (get_u32(&mut input).ok()?, get_u32(&mut input).ok()?);
        get_u32(&mut input).ok()?;
        let sound = get_u32(&mut input).ok()? == checksum32(&[&number.to_le_bytes(), covered]);
        let trailer = Trailer { data_end, directory_offset, pages, checksum };
        let ordered = data_end >= FILE_HEADER_BYTES && data_end <= directory_offset;
        let fits = directory_offset.checked_add(trailer.directory_bytes())?.checked_add(TRAILER_BYTES)? == file_bytes;
        (sound && ordered && fits).then_some(trailer)
    }

    /// Bytes of the directory.
    pub(crate) fn directory_bytes(&self) -> u64 {
        u64::from(self.pages) * DIRECTORY_ENTRY_BYTES as u64
    }
}

/// The position of a page, and its first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) segment: u64,
    first: u32,
    entries: u32,
    pub(crate) offset: u64,
}

impl Page {
    /// Bytes of the page in the file.
    pub(crate) fn bytes(&self) -> usize {
        self.entries as usize * ENTRY_BYTES + CHECKSUM_BYTES
    }

    /// Checks the page's bytes and returns its entries.
    pub(crate) fn decode<'a>(&self, number: u64, bytes: &'a [u8]) -> Option<IndexEntries<'a>> {
        let mut input = bytes;
        let entries = get_bytes(&mut input, self.entries as usize * ENTRY_BYTES).ok()?;
        let checksum = checksum32(&[&number.to_le_bytes(), &self.offset.to_le_bytes(), entries]);
        (get_u32(&mut input).ok()? == checksum).then_some(IndexEntries { bytes: entries })
    }
}

/// A page's entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexEntries<'a> {
    bytes: &'a [u8],
}

impl IndexEntries<'_> {
    fn get(&self, at: usize) -> Option<(u64, u64)> {
        let mut entry = self.bytes.get(at * ENTRY_BYTES..)?;
        let (old, new) = (get_u32(&mut entry).ok()?, get_u32(&mut entry).ok()?);
        Some((u64::from(old) * RECORD_ALIGNMENT, u64::from(new) * RECORD_ALIGNMENT))
    }

    /// Old and new offsets, ascending by the old.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        (0..self.bytes.len() / ENTRY_BYTES).filter_map(|at| self.get(at))
    }

    /// The new offset of what was at `old_offset`.
    pub(crate) fn find(&self, old_offset: u64) -> Option<u64> {
        let (mut low, mut high) = (0, self.bytes.len() / ENTRY_BYTES);
        while low < high {
            let middle = low + (high - low) / 2;
            let (old, new) = self.get(middle)?;
            match old.cmp(&old_offset) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(new),
            }
        }
        None
    }
}

/// The pages of an index.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pages: Vec<Page>,
    pub(crate) data_end: u64,
}

impl Directory {
    /// Decodes the directory that the trailer points to.
    pub(crate) fn decode(trailer: &Trailer, bytes: &[u8]) -> Option<Directory> {
        if bytes.len() as u64 != trailer.directory_bytes() || checksum32(&[bytes]) != trailer.checksum {
            return None;
        }
        let mut input = bytes;
        let mut pages = Vec::with_capacity(bytes.len() / DIRECTORY_ENTRY_BYTES);
        while !input.is_empty() {
            let segment = get_u64(&mut input).ok()?;
            let (first, entries) = (get_u32(&mut input).ok()?, get_u32(&mut input).ok()?);
            let page = Page { segment, first, entries, offset: get_u64(&mut input).ok()? };
            let end = page.offset.checked_add(page.bytes() as u64)?;
            if page.offset < trailer.data_end || end > trailer.directory_offset || page.entries == 0 {
                return None;
            }
            pages.push(page);
        }
        let key = |page: &Page| (page.segment, page.first);
        pages.is_sorted_by(|a, b| key(a) < key(b)).then_some(Directory { pages, data_end: trailer.data_end })
    }

    /// The page that leads to what was at `old_offset` of `segment`, if it is in this file.
    pub(crate) fn page_of(&self, segment: u64, old_offset: u64) -> Option<Page> {
        let first = u32::try_from(old_offset / RECORD_ALIGNMENT).ok()?;
        let after = self.pages.partition_point(|page| (page.segment, page.first) <= (segment, first));
        let page = self.pages.get(after.checked_sub(1)?)?;
        (page.segment == segment).then_some(*page)
    }

    /// All pages, in order.
    pub(crate) fn pages(&self) -> &[Page] {
        &self.pages
    }
}

#[cfg(test)]
#[path = "index_test.rs"]
mod tests;
