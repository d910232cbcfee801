//! Injected faults: armed by the test, checked by every operation.

use std::io;
use std::path::{Path, PathBuf};

/// Kinds of operations. All but [`Op::Read`] are *mutating*: they are counted, and power can go off at them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Op {
    /// `read_at`.
    Read,
    /// `open` with `CreateNew`.
    Create,
    /// `write_at`, also of no bytes.
    Write,
    /// `write_at` of a mapping, also of no bytes.
    MappedWrite,
    /// `sync`.
    Sync,
    /// `allocate`.
    Allocate,
    /// `set_len`.
    SetLen,
    /// `create_dir_all` that makes at least one directory.
    CreateDir,
    /// `rename`.
    Rename,
    /// `remove`.
    Remove,
    /// `link`.
    Link,
    /// `sync_dir`.
    SyncDir,
    /// `lock`.
    Lock,
}

/// One operation that was attempted, for debugging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    /// Its number among mutating operations since the file system was made (a read has that of the next one).
    pub number: u64,
    /// The operation.
    pub op: Op,
    /// Its path; the target of a rename or link.
    pub path: PathBuf,
    /// Offset in the file; 0 for operations without one.
    pub offset: u64,
    /// Bytes, or the new length; 0 for operations without one.
    pub length: u64,
    /// Whether an injected fault hit it.
    pub faulted: bool,
}

/// How an operation must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Normally.
    Proceed,
    /// The power goes off in the middle of it: its effect is in flight, its caller gets an error.
    PowerOff,
    /// It fails with an I/O error.
    Fail,
}

type Predicate = Box<dyn Fn(&Path) -> bool + Send>;

struct Fault {
    op: Op,
    times_left: u64,
    predicate: Predicate,
}

/// Entries kept of the trace; older ones are dropped. Enough for any scripted workload.
const TRACE_ENTRIES_MAX: usize = 100_000;

#[derive(Default)]
pub(super) struct Faults {
    faults: Vec<Fault>,
    /// Mutating operations since the beginning.
    pub(super) ops: u64,
    /// The mutating operation at which the power goes off.
    power_off_at: Option<u64>,
    /// Operations that failed because a fault was armed for them.
    pub(super) injected: u64,
    off: bool,
    pub(super) trace: Option<std::collections::VecDeque<TraceEntry>>,
}

impl Faults {
    pub(super) fn arm(&mut self, op: Op, times: u64, predicate: Predicate) {
        self.faults.push(Fault { op, times_left: times, predicate });
    }

    pub(super) fn clear(&mut self) {
        self.faults.clear();
        self.power_off_at = None;
    }

    pub(super) fn power_off_after(&mut self, ops: u64) {
        self.power_off_at = Some(self.ops + ops);
    }

    pub(super) fn power_off(&mut self) {
        self.off = true;
    }

    pub(super) fn power_on(&mut self) {
        self.off = false;
        self.power_off_at = None;
    }

    pub(super) fn is_off(&self) -> bool {
        self.off
    }

    /// Counts and checks one operation. With the power off it fails.
    pub(super) fn check(&mut self, op: Op, path: &Path, offset: u64, length: u64) -> io::Result<Outcome> {
        if self.off {
            return Err(power_is_off());
        }
        let outcome = self.outcome(op, path);
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_ENTRIES_MAX {
                trace.pop_front();
            }
            let faulted = outcome != Outcome::Proceed;
            trace.push_back(TraceEntry { number: self.ops, op, path: path.to_path_buf(), offset, length, faulted });
        }
        if op != Op::Read {
            self.ops += 1;
        }
        Ok(outcome)
    }

    fn outcome(&mut self, op: Op, path: &Path) -> Outcome {
        if op != Op::Read && self.power_off_at == Some(self.ops) {
            self.off = true;
            return Outcome::PowerOff;
        }
        for fault in &mut self.faults {
            if fault.op == op && fault.times_left > 0 && (fault.predicate)(path) {
                fault.times_left -= 1;
                self.injected += 1;
                return Outcome::Fail;
            }
        }
        Outcome::Proceed
    }
}

pub(super) fn power_is_off() -> io::Error {
    io::Error::other("simulated: the power is off")
}

pub(super) fn process_has_ended() -> io::Error {
    io::Error::other("simulated: the process that opened this handle has ended")
}

pub(super) fn injected() -> io::Error {
    io::Error::other("simulated: I/O error")
}

pub(super) fn out_of_descriptors() -> io::Error {
    rustix::io::Errno::MFILE.into()
}

pub(super) fn no_space() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "simulated: no space left on device")
}
