//! A file without a name: what readers see, what the disk holds, and the changes between the two.

use super::CrashMode;
use super::image::{Image, PAGE_BYTES, pieces};
use crate::rng::Rng;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A file, whatever its names; directories and handles share it.
pub(super) type Inode = Arc<Mutex<Content>>;

/// A change that no sync has covered yet.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Resize { length: u64 },
}

impl Change {
    fn apply(&self, image: &mut Image) {
        match self {
            Change::Write { offset, bytes } => image.write(bytes, *offset),
            Change::Resize { length } => image.set_len(*length),
        }
    }
}

/// Content of a file. Invariant, until a sync fails: `durable` with `pending` applied in order is `live`.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// Identifies the file among hard links.
    pub(super) id: u64,
    pub(super) live: Image,
    durable: Image,
    pending: Vec<Change>,
    /// Names in live directories.
    pub(super) links: u32,
    /// Open handles of the running process.
    pub(super) handles: u32,
}

impl Content {
    /// An empty file with one name.
    pub(super) fn new(id: u64) -> Content {
        Content { id, links: 1, ..Content::default() }
    }

    /// The same file on a cloned disk: it is not open there.
    pub(super) fn cloned(&self) -> Content {
        Content { handles: 0, ..self.clone() }
    }

    /// Bytes that count against the quota: space is free again once neither name nor handle is left.
    pub(super) fn charge(&self) -> u64 {
        if self.links + self.handles > 0 { self.live.len() } else { 0 }
    }

    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            change.apply(&mut self.durable);
        }
    }

    /// What Linux does when writing back fails: some pages reached the disk, the rest is dropped and marked
    /// clean, so a later sync succeeds without them. Readers may still see them, until the cache evicts them.
    pub(super) fn sync_failed(&mut self, rng: &mut Rng) {
        self.durable = self.random_pages(rng);
        self.pending.clear();
        if rng.chance(1, 2) {
            let length = self.live.len();
            self.live = self.durable.clone();
            self.live.set_len(length);
        }
    }

    /// Power loss: the file becomes what the disk may hold.
    pub(super) fn lose_power(&mut self, mode: CrashMode, rng: &mut Rng) {
        let image = match mode {
            CrashMode::LoseUnsynced => self.durable.clone(),
            CrashMode::KeepUnsynced => self.all_applied(),
            CrashMode::Prefix => self.random_prefix(rng),
            CrashMode::Pages => self.random_pages(rng),
            CrashMode::Random if rng.chance(1, 2) => self.random_prefix(rng),
            CrashMode::Random => self.random_pages(rng),
            CrashMode::Kill => unreachable!("a killed process loses no power"),
        };
        self.pending.clear();
        self.live = image.clone();
        self.durable = image;
    }

    /// Bit rot: the bit changes for readers and on the disk.
    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        for image in [&mut self.live, &mut self.durable] {
            let mut byte = [0];
            if image.read(&mut byte, offset) == 1 {
                image.write(&[byte[0] ^ (1 << bit)], offset);
            }
        }
        for change in &mut self.pending {
            if let Change::Write { offset: start, bytes } = change
                && let Some(byte) = offset.checked_sub(*start).and_then(|at| bytes.get_mut(at as usize))
            {
                *byte ^= 1 << bit;
            }
        }
    }

    fn all_applied(&self) -> Image {
        let mut image = self.durable.clone();
        self.pending.iter().for_each(|change| change.apply(&mut image));
        image
    }

    /// Changes reach the disk in order; the one in flight may be torn.
    fn random_prefix(&self, rng: &mut Rng) -> Image {
        let kept = rng.below(self.pending.len() as u64 + 1) as usize;
        let mut image = self.durable.clone();
        self.pending[..kept].iter().for_each(|change| change.apply(&mut image));
        if let Some(Change::Write { offset, bytes }) = self.pending.get(kept)
            && rng.chance(1, 2)
        {
            let torn = rng.below(bytes.len() as u64 + 1) as usize;
            let before = image.len();
            image.write(&bytes[..torn], *offset);
            let end = offset + bytes.len() as u64;
            if end > image.len() && rng.chance(1, 2) {
                // The new length reached the disk before the data did.
                let written = image.len().max(before);
                image.set_len(end);
                if rng.chance(1, 2) {
                    fill_with_garbage(&mut image, written.max(*offset), end, rng);
                }
            }
        }
        image
    }

    /// Each page reaches the disk at any time, as it was after any number of changes; so does the length.
    fn random_pages(&self, rng: &mut Rng) -> Image {
        if self.shrinks() {
            return self.random_prefix(rng); // A journal orders a cut with what follows it.
        }
        let mut image = self.durable.clone();
        let changes = self.pending.len() as u64 + 1;
        let mut kept_by_page: BTreeMap<u64, u64> = BTreeMap::new();
        for (number, change) in self.pending.iter().enumerate() {
            let Change::Write { offset, bytes } = change else { continue };
            for (page, within, range) in pieces(*offset, bytes.len()) {
                let kept = *kept_by_page.entry(page).or_insert_with(|| rng.below(changes));
                let at = page * PAGE_BYTES + within as u64;
                if (number as u64) < kept {
                    image.write(&bytes[range], at);
                } else if number as u64 == kept && rng.chance(1, 4) {
                    let torn = rng.below(range.len() as u64 + 1) as usize;
                    image.write(&bytes[range.start..range.start + torn], at);
                }
            }
        }
        let length = self.lengths().nth(rng.below(changes) as usize).unwrap_or(self.durable.len());
        if rng.chance(1, 4) {
            for (&page, _) in kept_by_page.iter().filter(|(_, kept)| **kept == 0) {
                // Blocks given to the file, never written: unless they were reserved, old content shows through.
                let start = (page * PAGE_BYTES).max(self.durable.len());
                fill_with_garbage(&mut image, start, ((page + 1) * PAGE_BYTES).min(length), rng);
            }
        }
        image.set_len(length);
        image
    }

    fn shrinks(&self) -> bool {
        !self.lengths().is_sorted()
    }

    /// The file's length on disk if the first 0, 1, 2, ... pending changes reached it.
    fn lengths(&self) -> impl Iterator<Item = u64> {
        let mut length = self.durable.len();
        std::iter::once(length).chain(self.pending.iter().map(move |change| {
            length = match change {
                Change::Write { offset, bytes } => length.max(offset + bytes.len() as u64),
                Change::Resize { length } => *length,
            };
            length
        }))
    }
}

fn fill_with_garbage(image: &mut Image, start: u64, end: u64, rng: &mut Rng) {
    let mut at = start;
    while at < end {
        let count = (end - at).min(8);
        image.write(&rng.next_u64().to_le_bytes()[..count as usize], at);
        at += count;
    }
}
