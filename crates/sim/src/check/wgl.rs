//! Wing and Gong's search with Lowe's memo: linearizability of a register with puts, gets, deletes and
//! compare-and-swap.
//!
//! Events (invocations and completions) stand in a list. The search takes the first operation that may come next (one
//! invoked before the first completion left in the list), applies it to the register, removes its events from the list,
//! and starts again at the head; meeting a completion whose operation was not taken, it goes back and tries the next. A
//! pair (set of operations taken, register) that was visited before is not tried again.
//!
//! Operations with an unknown outcome have no completion event: they may be taken anywhere or never. To limit the
//! search they are *settled* first. If no other operation writes the same value, there are two cases: an answer shows
//! the value, and then the operation took effect before that answer completed; or no answer shows it, and then leaving
//! the operation out changes nothing. (An unanswered compare-and-swap whose own value was seen has seen the value that
//! it expected.)

use super::Violation;
use super::linearizability::CheckResult;
use crate::history::{Answer, Operation, Outcome, Record};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The state of the register.
type Register<'a> = Option<&'a Bytes>;

/// An operation to be placed: its interval, completion at infinity if it need not be placed.
struct Candidate<'a> {
    record: &'a Record,
    invoked: u64,
    completed: u64,
}

impl<'a> Candidate<'a> {
    fn is_optional(&self) -> bool {
        self.completed == u64::MAX
    }

    /// The register after it, or `None` if its answer does not fit `register`.
    fn apply(&self, register: Register<'a>) -> Option<Register<'a>> {
        if self.record.observed().is_some_and(|seen| seen != register) {
            return None;
        }
        match (&self.record.operation, &self.record.outcome) {
            (Operation::Get, _) => Some(register),
            (Operation::Put(value), _) => Some(Some(value)),
            (Operation::Delete, _) => Some(None),
            (Operation::CompareAndSwap { expected, value }, outcome) => {
                let swaps = expected.as_ref() == register;
                match outcome {
                    Outcome::Ok(Answer::Swap { swapped, .. }) if *swapped != swaps => None,
                    _ => Some(if swaps { Some(value) } else { register }),
                }
            }
        }
    }
}

/// The known facts about values that only one operation writes.
#[derive(Default)]
struct Sightings<'a> {
    /// When an answer completed that shows that the value had existed.
    proven: BTreeMap<&'a Bytes, u64>,
    /// Values that an operation expects which may or may not have taken effect.
    wanted: BTreeSet<&'a Bytes>,
    writers: BTreeMap<&'a Bytes, usize>,
}

impl<'a> Sightings<'a> {
    fn of(records: &'a [Record]) -> Sightings<'a> {
        let mut sightings = Sightings::default();
        for record in records {
            if let Some(Some(value)) = record.written() {
                *sightings.writers.entry(value).or_default() += 1;
            }
            if let Some(Some(value)) = record.observed() {
                sightings.prove(value, record.completed);
            }
        }
        while records.iter().any(|record| sightings.follow(record)) {}
        sightings
    }

    fn prove(&mut self, value: &'a Bytes, by: u64) -> bool {
        let first = self.proven.entry(value).or_insert(u64::MAX);
        let news = by < *first;
        *first = by.min(*first);
        news
    }

    /// A compare-and-swap without an answer that is proven to have swapped saw what it expected; one that may have
    /// swapped may have seen it. Returns whether that was not known before.
    fn follow(&mut self, record: &'a Record) -> bool {
        let Operation::CompareAndSwap { expected: Some(expected), value } = &record.operation else { return false };
        if record.outcome != Outcome::Unknown {
            return false;
        }
        match self.completion(value) {
            Some(u64::MAX) => self.wanted.insert(expected),
            Some(by) => self.prove(expected, by),
            None => false,
        }
    }

    /// The latest time at which an unanswered write of `value` took effect: `u64::MAX` if it need not have; `None` if
    /// leaving it out changes nothing.
    fn completion(&self, value: &Bytes) -> Option<u64> {
        match self.proven.get(value) {
            _ if self.writers.get(value) != Some(&1) => Some(u64::MAX),
            Some(by) => Some(*by),
            None => self.wanted.contains(value).then_some(u64::MAX),
        }
    }
}

/// Event numbers are doubled, so that a settled operation can be given a completion just before an answer's.
fn candidates(records: &[Record]) -> Vec<Candidate<'_>> {
    let sightings = Sightings::of(records);
    let mut candidates = Vec::new();
    for record in records {
        let completed = match (&record.outcome, record.written()) {
            (Outcome::Failed, _) | (Outcome::Unknown, None) => continue,
            (Outcome::Ok(_), _) => record.completed * 2,
            (Outcome::Unknown, Some(None)) => u64::MAX,
            (Outcome::Unknown, Some(Some(value))) => match sightings.completion(value) {
                Some(u64::MAX) => u64::MAX,
                Some(by) => by * 2 - 1,
                None => continue,
            },
        };
        candidates.push(Candidate { record, invoked: record.invoked * 2, completed });
    }
    candidates.sort_unstable_by_key(|candidate| candidate.invoked);
    candidates
}

/// The list of events: a node for each invocation and completion, linked both ways. Node 0 is the head and the end.
struct Events {
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Of each node: the candidate, and whether it is its invocation.
    node: Vec<(usize, bool)>,
    /// Of each candidate: its invocation's and, unless optional, its completion's node.
    places: Vec<(usize, Option<usize>)>,
}

impl Events {
    fn new(candidates: &[Candidate<'_>]) -> Events {
        let mut order: Vec<(u64, usize, bool)> = Vec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            order.push((candidate.invoked, index, true));
            if !candidate.is_optional() {
                order.push((candidate.completed, index, false));
            }
        }
        order.sort_unstable();
        let count = order.len() + 1;
        let mut events = Events {
            next: (1..=count).map(|next| next % count).collect(),
            previous: (0..count).map(|node| (node + count - 1) % count).collect(),
            node: vec![(usize::MAX, false)],
            places: vec![(0, None); candidates.len()],
        };
        for (number, (_, index, is_invocation)) in order.into_iter().enumerate() {
            events.node.push((index, is_invocation));
            let place = &mut events.places[index];
            if is_invocation { place.0 = number + 1 } else { place.1 = Some(number + 1) }
        }
        events
    }

    fn lift(&mut self, index: usize) {
        let (invocation, completion) = self.places[index];
        for node in std::iter::once(invocation).chain(completion) {
            let (previous, next) = (self.previous[node], self.next[node]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// Undoes [`Events::lift`]; calls must nest.
    fn put_back(&mut self, index: usize) {
        let (invocation, completion) = self.places[index];
        for node in completion.into_iter().chain(std::iter::once(invocation)) {
            self.next[self.previous[node]] = node;
            self.previous[self.next[node]] = node;
        }
    }
}

/// The operations taken, as bits. Almost always nearly all of the low ones are set, so its memo omits the full words at
/// the beginning.
struct Taken {
    words: Vec<u64>,
}

impl Taken {
    fn flip(&mut self, index: usize) {
        self.words[index / 64] ^= 1 << (index % 64);
    }

    fn memo(&self) -> (usize, Box<[u64]>) {
        let full = self.words.iter().take_while(|word| **word == u64::MAX).count();
        let used = self.words.iter().rposition(|word| *word != 0).map_or(full, |last| (last + 1).max(full));
        (full, self.words[full..used].into())
    }
}

pub(super) fn check(records: &[Record], steps_max: u64) -> CheckResult {
    let candidates = candidates(records);
    let mut events = Events::new(&candidates);
    let mut taken = Taken { words: vec![0; candidates.len().div_ceil(64)] };
    let mut met = HashSet::new();
    let mut path: Vec<(usize, Register<'_>)> = Vec::new();
    let mut register: Register<'_> = None;
    let mut required_left = candidates.iter().filter(|candidate| !candidate.is_optional()).count();
    let mut furthest = (usize::MAX, 0); // Fewest operations left, and the one that could not be placed then.
    let mut node = events.next[0];
    let mut steps = 0;
    while required_left > 0 {
        steps += 1;
        if steps > steps_max {
            return CheckResult::OutOfSteps;
        }
        let (index, is_invocation) = events.node[node];
        if is_invocation {
            let after = candidates[index].apply(register);
            taken.flip(index);
            if let Some(after) = after
                && met.insert((taken.memo(), after))
            {
                path.push((index, register));
                register = after;
                events.lift(index);
                required_left -= usize::from(!candidates[index].is_optional());
                node = events.next[0];
            } else {
                taken.flip(index);
                node = events.next[node];
            }
            continue;
        }
        // A completion (or the end): its operation had to be placed before. Undo the last choice.
        if required_left < furthest.0 && index < candidates.len() {
            furthest = (required_left, index);
        }
        let Some((last, before)) = path.pop() else {
            return CheckResult::Violated(violation(&candidates, furthest.1));
        };
        register = before;
        taken.flip(last);
        events.put_back(last);
        required_left += usize::from(!candidates[last].is_optional());
        node = events.next[events.places[last].0];
    }
    CheckResult::Linearizable
}

/// How many operations around the one that could not be placed are shown.
const EVIDENCE_RECORDS_MAX: usize = 20;

fn violation(candidates: &[Candidate<'_>], stuck: usize) -> Violation {
    let first = stuck.saturating_sub(EVIDENCE_RECORDS_MAX / 2);
    let shown = candidates.iter().skip(first).take(EVIDENCE_RECORDS_MAX).map(|candidate| candidate.record);
    let what = format!("no order explains the answers; the longest attempt ends at: {}", candidates[stuck].record);
    Violation::new(what, shown)
}
