//! How far the child has come, in a file: written with system calls, so that it survives the child.

use crate::child::TRANSFERRERS;
use crate::script::WRITERS;
use kontiki_env::fs::{File, Fs, OpenMode, RealFs, read_all};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const THREADS: u64 = WRITERS + TRANSFERRERS;
/// Numbers of the file: whether the database is open, commits refused for lack of space, then for each thread what it
/// has begun and what was answered.
const NUMBERS: u64 = 2 + 2 * THREADS;

/// The child's end.
pub struct Progress {
    file: Arc<dyn File>,
    refusals: AtomicU64,
}

/// The parent's end: what the child has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(Vec<u64>);

/// Makes the file afresh.
pub fn reset(place: &Path) {
    let path = place.join("progress");
    if RealFs.exists(&path) {
        RealFs.remove(&path).expect("it can be replaced");
    }
    let file = RealFs.open(&path, OpenMode::CreateNew).expect("created");
    file.write_at(&vec![0; 8 * NUMBERS as usize], 0).expect("written");
}

impl Progress {
    pub fn open(place: &Path) -> Progress {
        let file = RealFs.open(&place.join("progress"), OpenMode::ReadWrite).expect("the parent has made it");
        Progress { file, refusals: AtomicU64::new(0) }
    }

    fn set(&self, index: u64, number: u64) {
        self.file.write_at(&number.to_le_bytes(), 8 * index).expect("an allocated part of a file");
    }

    pub fn set_opened(&self) {
        self.set(0, 1);
    }

    pub fn note_refusal(&self) {
        self.set(1, self.refusals.fetch_add(1, Ordering::Relaxed) + 1);
    }

    pub fn begin(&self, thread: u64, number: u64) {
        self.set(2 + 2 * thread, number);
    }

    pub fn end(&self, thread: u64, number: u64) {
        self.set(3 + 2 * thread, number);
    }
}

impl Seen {
    pub fn read(place: &Path) -> Seen {
        let bytes = read_all(&RealFs, &place.join("progress")).expect("the parent has made it");
        Seen(bytes.chunks_exact(8).map(|chunk| u64::from_le_bytes(*chunk.first_chunk().expect("eight"))).collect())
    }

    pub fn is_open(&self) -> bool {
        self.0[0] > 0
    }

    pub fn refusals(&self) -> u64 {
        self.0[1]
    }

    pub fn begun(&self, thread: u64) -> u64 {
        self.0[2 + 2 * thread as usize]
    }

    pub fn answered(&self, thread: u64) -> u64 {
        self.0[3 + 2 * thread as usize]
    }

    /// Steps of writers that were answered.
    pub fn steps(&self) -> u64 {
        (0..WRITERS).map(|writer| self.answered(writer)).sum()
    }
}
