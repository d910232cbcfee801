//! Timestamps are unique and respect real time: one that was requested after another had been received is greater.

use super::Violation;
use std::fmt;

/// One answered request for timestamps. Unanswered ones guarantee nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The client that asked.
    pub client: u64,
    /// Event number of the request ([`crate::history::History::event`]).
    pub invoked: u64,
    /// Event number of the answer.
    pub completed: u64,
    /// The smallest timestamp granted.
    pub first: u64,
    /// How many, consecutive; at least 1.
    pub count: u64,
}

impl Grant {
    fn last(&self) -> u64 {
        self.first + (self.count - 1)
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Grant { client, invoked, completed, .. } = self;
        write!(f, "client {client}, events {invoked} to {completed}: {} to {}", self.first, self.last())
    }
}

/// Checks all grants of a run, in any order.
pub fn check(grants: &[Grant]) -> Result<(), Violation> {
    assert!(grants.iter().all(|grant| grant.count > 0), "a grant holds at least one timestamp");
    let mut by_value: Vec<&Grant> = grants.iter().collect();
    by_value.sort_unstable_by_key(|grant| grant.first);
    for pair in by_value.windows(2) {
        if pair[1].first <= pair[0].last() {
            return Err(Violation::new("a timestamp was granted twice", pair.iter().copied()));
        }
    }
    check_order(grants, true)
}

/// Checks numbers that only rise but may be returned repeatedly (a safe point): one that was requested after another
/// had been received is not below it.
pub fn check_rising(grants: &[Grant]) -> Result<(), Violation> {
    check_order(grants, false)
}

/// A sweep over the events: at each request, the greatest number received so far is a lower bound of its answer.
fn check_order(grants: &[Grant], strictly: bool) -> Result<(), Violation> {
    let mut by_request: Vec<&Grant> = grants.iter().collect();
    by_request.sort_unstable_by_key(|grant| grant.invoked);
    let mut by_answer: Vec<&Grant> = grants.iter().collect();
    by_answer.sort_unstable_by_key(|grant| grant.completed);
    let mut answers = by_answer.into_iter().peekable();
    let mut greatest: Option<&Grant> = None;
    for grant in by_request {
        while let Some(answer) = answers.next_if(|answer| answer.completed < grant.invoked) {
            if greatest.is_none_or(|greatest| greatest.last() < answer.last()) {
                greatest = Some(answer);
            }
        }
        let goes_back = |earlier: &&Grant| earlier.last() > grant.first || (strictly && earlier.last() == grant.first);
        if let Some(earlier) = greatest.filter(goes_back) {
            return Err(Violation::new("timestamps went back", [earlier, grant]));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "timestamps_test.rs"]
mod tests;
