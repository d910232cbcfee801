//! The events of a run as a running hash: equal seeds must give equal traces, and the first difference locates a bug.

use kontiki_env::codec::{hash64, put_slice, put_u64};
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// A mark is kept every this many events: fine enough to find a divergence, coarse enough to keep them all.
pub const EVENTS_PER_MARK: u64 = 1000;
/// Lines of the readable log that are kept, when it is on.
const LINES_MAX: usize = 200_000;

/// The trace of a run.
#[derive(Debug, Default)]
pub struct Trace {
    events: u64,
    hash: u64,
    marks: Vec<u64>,
    lines: Option<VecDeque<String>>,
    scratch: Vec<u8>,
}

impl Trace {
    /// Keeps a readable log too.
    pub fn keep_lines(&mut self) {
        self.lines = Some(VecDeque::new());
    }

    /// Adds an event: its kind, the nodes or clients concerned, and the relevant bytes.
    pub fn add(&mut self, now: Duration, what: &str, parties: &[u64], bytes: &[u8]) {
        self.scratch.clear();
        put_u64(&mut self.scratch, self.hash);
        put_u64(&mut self.scratch, now.as_nanos() as u64);
        put_slice(&mut self.scratch, what.as_bytes());
        parties.iter().for_each(|id| put_u64(&mut self.scratch, *id));
        put_slice(&mut self.scratch, bytes);
        self.hash = hash64(&self.scratch);
        self.events += 1;
        if self.events.is_multiple_of(EVENTS_PER_MARK) {
            self.marks.push(self.hash);
        }
        if let Some(lines) = &mut self.lines {
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            let hash = hash64(bytes) as u32;
            let count = bytes.len();
            lines.push_back(format!("{:>12.6} {what} {parties:?} {count} bytes {hash:08x}", now.as_secs_f64()));
        }
    }

    /// Number of events so far.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The hash over all events so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The first mark at which two runs differ, as a number of events: they differ within the [`EVENTS_PER_MARK`]
    /// events before it. `None` if they are equal.
    pub fn first_difference(&self, other: &Trace) -> Option<u64> {
        let differs = self.marks.iter().zip(&other.marks).position(|(own, others)| own != others);
        match differs {
            Some(mark) => Some((mark as u64 + 1) * EVENTS_PER_MARK),
            None if (self.events, self.hash) == (other.events, other.hash) => None,
            None => Some(self.events.max(other.events)),
        }
    }
}

/// The readable log, oldest first.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().flatten().try_for_each(|line| writeln!(f, "{line}"))
    }
}
