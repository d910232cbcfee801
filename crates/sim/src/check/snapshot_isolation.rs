//! Snapshot isolation, with the timestamps in view: every read returns the newest commit at or below the reader's
//! start, no two overlapping transactions write one key, commits become visible whole, real time is respected, between
//! commits, too. A read that locked its key returns the newest commit below the reader's own: nothing came in between.
//! Linear in the number of reads and writes, apart from sorting, and exact.
//!
//! Requirements on the workload: every written value is unique (deletes aside), so that a read names its writer; a
//! transaction records the reads that went to the store, not those of its own writes; and a transaction whose
//! outcome is unknown records the commit timestamp it tried (without one it cannot have committed).

use super::Violation;
use crate::history::Shown;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Acknowledged.
    Committed,
    /// Rolled back for certain.
    Aborted,
    /// It may have committed at its commit timestamp.
    Unknown,
}

/// One transaction.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// The client that ran it.
    pub client: u64,
    /// Event number when its start timestamp was requested.
    pub began: u64,
    /// Event number when its end was known to the client.
    pub ended: u64,
    /// Start timestamp: what it reads is what was committed at or below it.
    pub start_ts: u64,
    /// Commit timestamp, once there is one.
    pub commit_ts: Option<u64>,
    /// How it ended.
    pub end: End,
    /// Keys read from the store and what was found.
    pub reads: Vec<(Bytes, Option<Bytes>)>,
    /// Keys written; `None` is a delete. Each key once.
    pub writes: Vec<(Bytes, Option<Bytes>)>,
    /// It locks what it writes before its commit, so that its start bounds nothing.
    pub is_pessimistic: bool,
    /// Keys read under a lock that is held until the commit, and what was found.
    pub locked_reads: Vec<(Bytes, Option<Bytes>)>,
    /// Event number when its commit was requested; 0 if it was not.
    pub commit_began: u64,
}

impl Transaction {
    /// One that has done nothing yet, and will count as rolled back.
    pub fn begun(client: u64, began: u64, start_ts: u64) -> Transaction {
        let (reads, writes, locked_reads) = Default::default();
        Transaction {
            client,
            began,
            ended: 0,
            start_ts,
            commit_ts: None,
            end: End::Aborted,
            reads,
            writes,
            is_pessimistic: false,
            locked_reads,
            commit_began: 0,
        }
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} start {} ", self.client, self.start_ts)?;
        match self.commit_ts {
            Some(ts) => write!(f, "commit {ts} {:?}:", self.end)?,
            None => write!(f, "{:?}:", self.end)?,
        }
        let show = |f: &mut fmt::Formatter<'_>, verb: &str, (key, value): &(Bytes, Option<Bytes>)| {
            write!(f, " {verb} {}={}", Shown(Some(key)), Shown(value.as_ref()))
        };
        self.reads.iter().try_for_each(|read| show(f, "read", read))?;
        self.locked_reads.iter().try_for_each(|read| show(f, "locked", read))?;
        self.writes.iter().try_for_each(|write| show(f, "wrote", write))
    }
}

/// A version of a key: its writer, and whether it is certain.
pub(super) struct Version<'a> {
    pub(super) commit_ts: u64,
    pub(super) value: Option<&'a Bytes>,
    pub(super) writer: &'a Transaction,
    pub(super) certain: bool,
}

/// Checks all transactions of a run, in any order. All keys begin absent.
pub fn check(transactions: &[Transaction]) -> Result<(), Violation> {
    check_timestamps(transactions)?;
    check_real_time(transactions)?;
    check_order_of_commits(transactions)?;
    let versions = versions(transactions);
    for versions in versions.values() {
        check_conflicts(versions)?;
    }
    transactions.iter().try_for_each(|reader| check_reads(reader, &versions))
}

/// Checks that each snapshot of a bank adds up: `total(reads)` of every transaction that read all `accounts`.
pub fn check_totals(
    transactions: &[Transaction],
    accounts: usize,
    total: i128,
    amount: impl Fn(Option<&Bytes>) -> i128,
) -> Result<usize, Violation> {
    let mut snapshots = 0;
    let locked = transactions.iter().filter(|reader| reader.end == End::Committed);
    let locked = locked.map(|reader| (reader, &reader.locked_reads));
    for (reader, reads) in transactions.iter().map(|reader| (reader, &reader.reads)).chain(locked) {
        let keys: BTreeSet<&Bytes> = reads.iter().map(|(key, _)| key).collect();
        if keys.len() < accounts {
            continue;
        }
        snapshots += 1;
        let found: i128 = reads.iter().map(|(_, value)| amount(value.as_ref())).sum();
        if found != total {
            return Err(Violation::new(format!("a snapshot adds up to {found} instead of {total}"), [reader]));
        }
    }
    Ok(snapshots)
}

fn check_timestamps(transactions: &[Transaction]) -> Result<(), Violation> {
    let mut commits: BTreeMap<u64, Vec<&Transaction>> = BTreeMap::new();
    for transaction in transactions.iter().filter(|transaction| transaction.end == End::Committed) {
        if transaction.writes.is_empty() {
            continue;
        }
        let Some(commit_ts) = transaction.commit_ts else {
            return Err(Violation::new("a transaction committed writes without a commit timestamp", [transaction]));
        };
        if commit_ts <= transaction.start_ts {
            return Err(Violation::new("a transaction committed at or before its start", [transaction]));
        }
        // Timestamps that are computed may coincide, on other keys.
        let same = commits.entry(commit_ts).or_default();
        let writes = |other: &Transaction, key: &Bytes| other.writes.iter().any(|(written, _)| written == key);
        let shares = |other: &&&Transaction| transaction.writes.iter().any(|(key, _)| writes(other, key));
        if let Some(other) = same.iter().find(shares) {
            return Err(Violation::new("two transactions on a key share a commit timestamp", [*other, transaction]));
        }
        same.push(transaction);
    }
    Ok(())
}

/// A transaction that begins after a commit was acknowledged must see it.
fn check_real_time(transactions: &[Transaction]) -> Result<(), Violation> {
    let mut by_begin: Vec<&Transaction> = transactions.iter().collect();
    by_begin.sort_unstable_by_key(|transaction| transaction.began);
    let mut by_end: Vec<&Transaction> =
        transactions.iter().filter(|transaction| transaction.end == End::Committed).collect();
    by_end.sort_unstable_by_key(|transaction| transaction.ended);
    let mut ends = by_end.into_iter().peekable();
    let mut newest: Option<&Transaction> = None;
    for transaction in by_begin {
        while let Some(ended) = ends.next_if(|ended| ended.ended < transaction.began) {
            if newest.is_none_or(|newest| newest.commit_ts < ended.commit_ts) {
                newest = Some(ended);
            }
        }
        if let Some(newest) = newest.filter(|newest| newest.commit_ts > Some(transaction.start_ts)) {
            let what = "a transaction started below a commit that was acknowledged before it began";
            return Err(Violation::new(what, [newest, transaction]));
        }
    }
    Ok(())
}

/// A commit that was requested after another one was acknowledged is not earlier: otherwise a snapshot in between would
/// show the later one only.
fn check_order_of_commits(transactions: &[Transaction]) -> Result<(), Violation> {
    let written = |transaction: &&Transaction| transaction.end == End::Committed && !transaction.writes.is_empty();
    let mut by_begin: Vec<&Transaction> = transactions.iter().filter(written).collect();
    let mut by_end = by_begin.clone();
    by_begin.sort_unstable_by_key(|transaction| transaction.commit_began);
    by_end.sort_unstable_by_key(|transaction| transaction.ended);
    let (mut ends, mut newest) = (by_end.into_iter().peekable(), None::<&Transaction>);
    for transaction in by_begin {
        while let Some(ended) = ends.next_if(|ended| ended.ended < transaction.commit_began) {
            if newest.is_none_or(|newest| newest.commit_ts < ended.commit_ts) {
                newest = Some(ended);
            }
        }
        if let Some(newest) = newest.filter(|newest| newest.commit_ts > transaction.commit_ts) {
            let what = "a commit got a timestamp below one that was acknowledged before it was requested";
            return Err(Violation::new(what, [newest, transaction]));
        }
    }
    Ok(())
}

/// The versions of each key by commit timestamp. An unknown transaction is certain once a read returned a value of it.
pub(super) fn versions(transactions: &[Transaction]) -> BTreeMap<&Bytes, Vec<Version<'_>>> {
    let seen: BTreeSet<(&Bytes, &Bytes)> = transactions
        .iter()
        .flat_map(|reader| reader.reads.iter().chain(&reader.locked_reads))
        .filter_map(|(key, value)| Some((key, value.as_ref()?)))
        .collect();
    let mut versions: BTreeMap<&Bytes, Vec<Version<'_>>> = BTreeMap::new();
    for writer in transactions.iter().filter(|writer| writer.end != End::Aborted) {
        let Some(commit_ts) = writer.commit_ts else { continue };
        let was_seen =
            writer.writes.iter().any(|(key, value)| value.as_ref().is_some_and(|value| seen.contains(&(key, value))));
        let certain = writer.end == End::Committed || was_seen;
        for (key, value) in &writer.writes {
            let version = Version { commit_ts, value: value.as_ref(), writer, certain };
            versions.entry(key).or_default().push(version);
        }
    }
    versions.values_mut().for_each(|versions| versions.sort_unstable_by_key(|version| version.commit_ts));
    versions
}

fn check_conflicts(versions: &[Version<'_>]) -> Result<(), Violation> {
    let mut certain = versions.iter().filter(|version| version.certain);
    let Some(mut former) = certain.next() else { return Ok(()) };
    for version in certain {
        if !version.writer.is_pessimistic && version.writer.start_ts < former.commit_ts {
            let what = "two overlapping transactions wrote one key (a lost update)";
            return Err(Violation::new(what, [former.writer, version.writer]));
        }
        former = version;
    }
    Ok(())
}

fn check_reads(reader: &Transaction, versions: &BTreeMap<&Bytes, Vec<Version<'_>>>) -> Result<(), Violation> {
    for (key, found) in &reader.reads {
        let all = versions.get(key).map_or(&[][..], Vec::as_slice);
        let visible = &all[..all.partition_point(|version| version.commit_ts <= reader.start_ts)];
        check_read(reader, key, found, visible, "the newest commit at its start")?;
    }
    let Some(commit_ts) = reader.commit_ts.filter(|_| reader.end == End::Committed) else { return Ok(()) };
    for (key, found) in &reader.locked_reads {
        let all = versions.get(key).map_or(&[][..], Vec::as_slice);
        let visible = &all[..all.partition_point(|version| version.commit_ts < commit_ts)];
        check_read(reader, key, found, visible, "the newest commit below its own, though it was locked")?;
    }
    Ok(())
}

fn check_read(
    reader: &Transaction,
    key: &Bytes,
    found: &Option<Bytes>,
    visible: &[Version<'_>],
    expectation: &str,
) -> Result<(), Violation> {
    let newest_certain = visible.iter().rposition(|version| version.certain);
    // Uncertain versions above the newest certain one may or may not exist.
    let mut expected = visible[newest_certain.map_or(0, |newest| newest)..].iter();
    let absent_fits = newest_certain.is_none() && found.is_none();
    if absent_fits || expected.any(|version| version.value == found.as_ref()) {
        return Ok(());
    }
    let what = format!(
        "a transaction with start {} read {} of {}, which is not {expectation}",
        reader.start_ts,
        Shown(found.as_ref()),
        Shown(Some(key))
    );
    let writers = visible.iter().rev().take(3).map(|version| version.writer);
    Err(Violation::new(what, std::iter::once(reader).chain(writers)))
}

#[cfg(test)]
#[path = "snapshot_isolation_test.rs"]
mod tests;
