//! What came of transactions, as the store has it at the end, compared with what their clients report.
//!
//! The commit timestamp of a transaction whose outcome is unknown to its client may be unknown, too: the servers have
//! computed it, and the answer was lost. The records have it.

use super::Violation;
use super::records::Commits;
use super::snapshot_isolation::{End, Transaction};
use std::collections::BTreeSet;

/// Compares, and gives each transaction whose outcome is unknown the commit timestamp that is on record, if any. Every
/// lock is resolved, and all keys of transactions are in `commits`.
pub fn settle(transactions: &mut [Transaction], commits: &Commits) -> Result<(), Violation> {
    for transaction in transactions.iter_mut().filter(|transaction| !transaction.writes.is_empty()) {
        let found = |key| commits.get(&(key, transaction.start_ts)).copied();
        let found: Vec<Option<u64>> = transaction.writes.iter().map(|(key, _)| found(key.clone())).collect();
        let distinct: BTreeSet<Option<u64>> = found.iter().copied().collect();
        let what = match (transaction.end, distinct.len(), found[0]) {
            (_, 2.., _) => format!("it is committed partly, or at several timestamps: {found:?}"),
            (End::Committed, _, on_record) if on_record != transaction.commit_ts => {
                format!("it is acknowledged, and on record is {on_record:?}")
            }
            (End::Aborted, _, Some(commit_ts)) => format!("it was reported as failed, and is committed at {commit_ts}"),
            (End::Unknown, _, on_record) => {
                transaction.commit_ts = on_record;
                continue;
            }
            _ => continue,
        };
        return Err(Violation::new(what, [&*transaction]));
    }
    Ok(())
}

#[cfg(test)]
#[path = "outcomes_test.rs"]
mod tests;
