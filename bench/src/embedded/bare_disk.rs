//! The disk without an engine, for the sync workloads of the same run.
//!
//! - `disk`: each thread writes its record to the next place of one shared recycled file (allocated and written before)
//!   and calls `fdatasync` on it. No grouping: as many syncs as commits, as many in flight as threads.
//! - `disk-group`: the simplest group commit: threads append to a shared buffer; one of them writes what is there and
//!   syncs for all; the others wait, and one of them is next. One sync in flight.
//!
//! The arithmetic bound with one sync in flight and no other cost is threads x the rate of one thread of `disk`.

use super::client::{self, Outcome};
use super::plan::Step;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};

/// The names of these in the tables.
pub const NAMES: [&str; 2] = ["disk", "disk-group"];

const FILE_BYTES: u64 = 64 << 20;
/// Approximate bytes that an engine's log adds to key and value.
const RECORD_OVERHEAD_BYTES: usize = 28;

/// The file that is written repeatedly.
pub struct BareDisk {
    file: File,
    record: Vec<u8>,
    next: AtomicU64,
    group: Mutex<Group>,
    changed: Condvar,
}

#[derive(Default)]
struct Group {
    buffer: Vec<u8>,
    spare: Vec<u8>,
    /// The batch that is being filled; all before it were taken.
    filling: u64,
    /// Batches below it are durable.
    durable: u64,
    flushing: bool,
}

impl BareDisk {
    pub fn new(dir: &Path, value_bytes: usize) -> BareDisk {
        let file = File::create(dir.join("disk")).expect("a file");
        // In pieces, because ext4 visits all blocks of a piece at each later write into it.
        let chunk = vec![1; 64 << 10];
        (0..FILE_BYTES).step_by(chunk.len()).for_each(|at| file.write_all_at(&chunk, at).expect("write"));
        file.sync_all().expect("sync");
        let record = vec![7; value_bytes + RECORD_OVERHEAD_BYTES];
        BareDisk { file, record, next: AtomicU64::new(0), group: Mutex::default(), changed: Condvar::new() }
    }

    /// Runs a step of a sync group.
    pub fn run(&self, grouped: bool, step: Step, seconds: f64) -> Outcome {
        client::run(step.threads, seconds, |_| {
            move || {
                if grouped {
                    self.commit_grouped()
                } else {
                    self.commit()
                }
                1
            }
        })
    }

    fn write_and_sync(&self, bytes: &[u8]) {
        let at = self.next.fetch_add(bytes.len() as u64, Ordering::Relaxed) % (FILE_BYTES - (1 << 20));
        self.file.write_all_at(bytes, at).expect("write");
        self.file.sync_data().expect("sync");
    }

    fn commit(&self) {
        self.write_and_sync(&self.record);
    }

    fn commit_grouped(&self) {
        let mut group = self.group.lock().expect("no thread panics");
        group.buffer.extend_from_slice(&self.record);
        let own = group.filling;
        while group.durable <= own {
            if group.flushing {
                group = self.changed.wait(group).expect("no thread panics");
                continue;
            }
            let spare = std::mem::take(&mut group.spare);
            let mut buffer = std::mem::replace(&mut group.buffer, spare);
            group.flushing = true;
            group.filling += 1;
            let through = group.filling;
            drop(group);
            self.write_and_sync(&buffer);
            buffer.clear();
            group = self.group.lock().expect("no thread panics");
            (group.spare, group.durable, group.flushing) = (buffer, through, false);
            self.changed.notify_all();
        }
    }
}
