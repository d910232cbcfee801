//! The bytes of a file at one moment: sparse pages, shared between copies until one of them is written.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The unit in which the simulated disk keeps and loses data.
pub(super) const PAGE_BYTES: u64 = 4096;

type Page = [u8; PAGE_BYTES as usize];

/// The bytes of a file. A page that is missing is all zeros.
///
/// Invariant: every byte of a page at or beyond `length` is zero, so that extending the file is free.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    length: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` from `offset`; returns how much there was before the end.
    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let count = self.length.saturating_sub(offset).min(buffer.len() as u64) as usize;
        for (page, within, range) in pieces(offset, count) {
            match self.pages.get(&page) {
                Some(bytes) => buffer[range.clone()].copy_from_slice(&bytes[within..within + range.len()]),
                None => buffer[range].fill(0),
            }
        }
        count
    }

    /// Writes, extending the file if needed.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        for (page, within, range) in pieces(offset, bytes.len()) {
            let target = Arc::make_mut(self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize])));
            target[within..within + range.len()].copy_from_slice(&bytes[range]);
        }
        if !bytes.is_empty() {
            self.length = self.length.max(offset + bytes.len() as u64);
        }
    }

    /// Cuts, or extends with zeros.
    pub(super) fn set_len(&mut self, length: u64) {
        if length < self.length {
            self.pages.split_off(&length.div_ceil(PAGE_BYTES));
            if let Some(last) = self.pages.get_mut(&(length / PAGE_BYTES)) {
                Arc::make_mut(last)[(length % PAGE_BYTES) as usize..].fill(0);
            }
        }
        self.length = length;
    }
}

/// Splits `count` bytes at `offset` at page boundaries: (page, offset within the page, range of the bytes).
pub(super) fn pieces(offset: u64, count: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == count {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES) as usize;
        let take = (PAGE_BYTES as usize - within).min(count - done);
        let range = done..done + take;
        done += take;
        Some((at / PAGE_BYTES, within, range))
    })
}
