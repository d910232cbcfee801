//! The operations and answers of clients: the only input of checkers of client-visible guarantees.
//!
//! Every invocation and every completion gets the next *event number*. They order all events of a run as they really
//! happened (the simulation has one thread), so that an operation's interval is a pair of numbers and no two ends are
//! equal. Virtual times are recorded for readers.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A client's operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets the value.
    Put(Bytes),
    /// Reads the value.
    Get,
    /// Removes the value.
    Delete,
    /// Sets `value` if the present value is `expected` (`None`: absent).
    CompareAndSwap {
        /// The condition.
        expected: Option<Bytes>,
        /// The new value.
        value: Bytes,
    },
}

/// The answer of a successful operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A put or delete was done.
    Done,
    /// A get found this.
    Value(Option<Bytes>),
    /// A compare-and-swap found `previous`, and swapped if that was expected.
    Swap {
        /// Whether it swapped.
        swapped: bool,
        /// The value before.
        previous: Option<Bytes>,
    },
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Ok(Answer),
    /// With an error that guarantees that it had no effect and will have none.
    Failed,
    /// With a timeout or a broken connection, or not at all: it may take effect at any later moment, or never.
    Unknown,
}

/// Names an operation of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperationId(usize);

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The client.
    pub client: u64,
    /// The key.
    pub key: Bytes,
    /// The operation.
    pub operation: Operation,
    /// How it ended; [`Outcome::Unknown`] while it is running.
    pub outcome: Outcome,
    /// Event number of the invocation.
    pub invoked: u64,
    /// Event number of the completion; `u64::MAX` while it runs. That of an unknown outcome is when the client gave up,
    /// which bounds nothing.
    pub completed: u64,
    /// Virtual time of the invocation.
    pub invoked_at: Duration,
    /// Virtual time of the completion.
    pub completed_at: Option<Duration>,
}

impl Record {
    /// The last moment at which it can have taken effect: its completion if it was acknowledged, otherwise unbounded.
    pub fn effective_by(&self) -> u64 {
        if matches!(self.outcome, Outcome::Ok(_)) { self.completed } else { u64::MAX }
    }

    /// The state it leaves the key in if it writes (unconditionally, or as its answer says). Of an unknown
    /// compare-and-swap: what it may have written.
    pub fn written(&self) -> Option<Option<&Bytes>> {
        match (&self.operation, &self.outcome) {
            (_, Outcome::Failed) | (Operation::Get, _) => None,
            (Operation::CompareAndSwap { .. }, Outcome::Ok(Answer::Swap { swapped: false, .. })) => None,
            (Operation::Put(value) | Operation::CompareAndSwap { value, .. }, _) => Some(Some(value)),
            (Operation::Delete, _) => Some(None),
        }
    }

    /// The state it saw, if its answer shows one.
    pub fn observed(&self) -> Option<Option<&Bytes>> {
        match &self.outcome {
            Outcome::Ok(Answer::Value(value)) | Outcome::Ok(Answer::Swap { previous: value, .. }) => {
                Some(value.as_ref())
            }
            _ => None,
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.completed_at {
            Some(at) => format!("{:>12.6}", at.as_secs_f64()),
            None => format!("{:>12}", "-"),
        };
        write!(f, "{:>6} {:>12.6} {end} client {:<3} ", self.invoked, self.invoked_at.as_secs_f64(), self.client)?;
        write!(f, "{} ", Shown(Some(&self.key)))?;
        match &self.operation {
            Operation::Put(value) => write!(f, "put {}", Shown(Some(value)))?,
            Operation::Get => write!(f, "get")?,
            Operation::Delete => write!(f, "delete")?,
            Operation::CompareAndSwap { expected, value } => {
                write!(f, "cas {} to {}", Shown(expected.as_ref()), Shown(Some(value)))?;
            }
        }
        match &self.outcome {
            Outcome::Ok(Answer::Done) => write!(f, " -> ok"),
            Outcome::Ok(Answer::Value(value)) => write!(f, " -> {}", Shown(value.as_ref())),
            Outcome::Ok(Answer::Swap { swapped, previous }) => {
                let result = if *swapped { "swapped" } else { "refused" };
                write!(f, " -> {result}, was {}", Shown(previous.as_ref()))
            }
            Outcome::Failed => write!(f, " -> failed"),
            Outcome::Unknown => write!(f, " -> unknown"),
        }
    }
}

/// A key or value in readable form.
pub(crate) struct Shown<'a>(pub(crate) Option<&'a Bytes>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            None => write!(f, "nothing"),
        }
    }
}

/// All operations of a run, in the order of their invocation.
#[derive(Clone, Debug, Default)]
pub struct History {
    records: Vec<Record>,
    next_event: u64,
}

impl History {
    /// An empty history.
    pub fn new() -> History {
        History::default()
    }

    /// Records that `client` begins `operation` on `key`.
    pub fn invoke(&mut self, client: u64, key: Bytes, operation: Operation, now: Duration) -> OperationId {
        let invoked = self.event();
        self.records.push(Record {
            client,
            key,
            operation,
            outcome: Outcome::Unknown,
            invoked,
            completed: u64::MAX,
            invoked_at: now,
            completed_at: None,
        });
        OperationId(self.records.len() - 1)
    }

    /// Records how an operation ended; each ends once.
    pub fn complete(&mut self, id: OperationId, outcome: Outcome, now: Duration) {
        let event = self.event();
        let record = &mut self.records[id.0];
        assert_eq!(record.completed, u64::MAX, "an operation ends once: {record}");
        record.completed = event;
        record.completed_at = Some(now);
        record.outcome = outcome;
    }

    /// An event number for something that is recorded elsewhere (a timestamp request, a transaction).
    pub fn event(&mut self) -> u64 {
        self.next_event += 1;
        self.next_event
    }

    /// The operations.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Those on some keys.
    pub fn of_keys(&self, is_in: impl Fn(&Bytes) -> bool) -> History {
        let records = self.records.iter().filter(|record| is_in(&record.key)).cloned().collect();
        History { records, next_event: self.next_event }
    }

    /// The operations of each key.
    pub fn by_key(&self) -> BTreeMap<Bytes, Vec<Record>> {
        let mut keys: BTreeMap<Bytes, Vec<Record>> = BTreeMap::new();
        for record in &self.records {
            keys.entry(record.key.clone()).or_default().push(record.clone());
        }
        keys
    }
}

/// One operation per line: event number, begin and end in virtual seconds, client, key, operation, outcome.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.records.iter().try_for_each(|record| writeln!(f, "{record}"))
    }
}

#[cfg(test)]
#[path = "history_test.rs"]
mod tests;
