//! A bank: transfers between accounts, and snapshots of all of them. The total never changes. There are also receipts,
//! which are inserted and deleted.
//!
//! A value is `amount:client:count`, and perhaps a long suffix, so that each is unique and a read identifies its
//! writer.

use super::Committed;
use super::percolator::{Change, Habits, Percolator};
use crate::check::snapshot_isolation::{End, Transaction};
use crate::cluster::wire::{TAIL_TXN, txn_region};
use bytes::Bytes;
use kontiki_env::rng::Rng;
use std::collections::BTreeMap;
use std::time::Duration;

/// The initial amount of each account.
const BALANCE: i128 = 100;
/// Longest suffix of a value: longer than a lock can hold, so that the family of long values is used.
const TAIL_BYTES_MAX: u64 = 700;

/// The parameters of the bank.
#[derive(Clone, Debug)]
pub struct BankKnobs {
    /// Accounts.
    pub accounts: u64,
    /// Receipts; 0 for none.
    pub receipts: u64,
    /// Percentage of transactions that read a snapshot of everything.
    pub snapshots_percent: u64,
    /// Longest wait between two transactions, milliseconds.
    pub pause_ms_max: u64,
    /// Every n-th account is in the last region; 0: none.
    pub tail_one_in: u64,
    /// Percentage of long values.
    pub long_percent: u64,
    /// How tellers write.
    pub habits: Habits,
}

impl BankKnobs {
    /// Draws a bank.
    pub fn draw(rng: &mut Rng) -> BankKnobs {
        BankKnobs {
            accounts: 2 + rng.below(8),
            receipts: rng.below(4),
            snapshots_percent: 10 + rng.below(40),
            pause_ms_max: 1 << rng.below(8),
            tail_one_in: rng.below(4),
            long_percent: if rng.chance(1, 2) { rng.below(60) } else { 0 },
            habits: Habits::draw(rng),
        }
    }

    /// The total of all accounts, once they are opened.
    pub fn total(&self) -> i128 {
        BALANCE * i128::from(self.accounts)
    }

    fn key(&self, kind: &str, number: u64) -> Bytes {
        let is_tail = self.tail_one_in > 0 && number.is_multiple_of(self.tail_one_in);
        let name = format!("{kind}-{number:03}").into_bytes();
        if is_tail { [TAIL_TXN, &name].concat().into() } else { name.into() }
    }

    /// All accounts.
    fn accounts(&self) -> Vec<Bytes> {
        (0..self.accounts).map(|number| self.key("account", number)).collect()
    }
}

/// The amount in a value; an account that was never opened holds nothing.
pub fn amount(value: Option<&Bytes>) -> i128 {
    let text = value.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or("0");
    text.split(':').next().and_then(|amount| amount.parse().ok()).expect("the bank's values begin with an amount")
}

/// One teller.
pub struct Teller {
    /// The client below.
    pub percolator: Percolator,
    /// The bank.
    pub knobs: BankKnobs,
    count: u64,
}

impl Teller {
    /// A new teller.
    pub fn new(percolator: Percolator, knobs: BankKnobs) -> Teller {
        Teller { percolator, knobs, count: 0 }
    }

    fn value(&mut self, amount: i128) -> Bytes {
        self.count += 1;
        let mut value = format!("{amount}:{}:{}", self.percolator.router.caller().client(), self.count).into_bytes();
        let rng = &mut self.percolator.rng;
        if rng.chance(self.knobs.long_percent, 100) {
            value.push(b':');
            value.resize(value.len() + rng.below(TAIL_BYTES_MAX) as usize, b'.');
        }
        value.into()
    }

    /// Opens all accounts in one transaction; retries until it is known to have succeeded, or until its outcome is
    /// unknown.
    async fn open(&mut self) -> bool {
        let accounts = self.knobs.accounts();
        let writes: Vec<_> = accounts.into_iter().map(|key| (key, Change::Put(self.value(BALANCE)))).collect();
        let Some(transaction) = self.begin().await else { return false };
        self.finish(transaction, writes).await == Committed::Yes
    }

    async fn begin(&mut self) -> Option<Transaction> {
        let client = self.percolator.router.caller().client();
        let began = self.percolator.records.history.borrow_mut().event();
        let start_ts = self.percolator.timestamp().await?;
        let (reads, writes) = (Vec::new(), Vec::new());
        Some(Transaction { client, began, ended: 0, start_ts, commit_ts: None, end: End::Aborted, reads, writes })
    }

    /// Writes and commits.
    async fn finish(&mut self, mut transaction: Transaction, changes: Vec<(Bytes, Change)>) -> Committed {
        let (commit_ts, committed) = self.percolator.write(transaction.start_ts, &changes).await;
        let written = |(key, change): (Bytes, Change)| Some((key, change.written()?));
        (transaction.writes, transaction.commit_ts) = (changes.into_iter().filter_map(written).collect(), commit_ts);
        self.end(transaction, committed);
        committed
    }

    fn end(&mut self, mut transaction: Transaction, committed: Committed) {
        transaction.end = match committed {
            Committed::Yes => End::Committed,
            Committed::No => End::Aborted,
            Committed::Unknown => End::Unknown,
        };
        let records = &self.percolator.records;
        transaction.ended = records.history.borrow_mut().event();
        records.transactions.borrow_mut().push(transaction);
        if committed == Committed::Yes {
            records.answered.set(records.answered.get() + 1);
        }
    }

    /// Reads keys as of `version`: one by one, together, or by scans in either direction.
    async fn read(&mut self, keys: &[Bytes], version: u64) -> Result<Vec<(Bytes, Option<Bytes>)>, ()> {
        let way = self.percolator.rng.below(4);
        let mut found = BTreeMap::new();
        if way == 0 {
            for key in keys {
                found.extend(self.percolator.get(key, version).await?.map(|value| (key.clone(), value)));
            }
        } else {
            let mut regions = BTreeMap::<_, Vec<Bytes>>::new();
            for key in keys {
                regions.entry(txn_region(key)).or_default().push(key.clone());
            }
            for keys in regions.into_values() {
                let range = (way > 1).then(|| self.range_of(&keys, way == 2));
                found.extend(self.percolator.read_many(&keys, range, version).await?);
            }
        }
        // Scans return other accounts, too; those are valid reads.
        let others: Vec<Bytes> = found.keys().filter(|key| !keys.contains(key)).cloned().collect();
        Ok(keys.iter().cloned().chain(others).map(|key| (key.clone(), found.remove(&key))).collect())
    }

    /// Bounds of a scan around keys of one region.
    fn range_of(&self, keys: &[Bytes], reverse: bool) -> (Bytes, Bytes, bool) {
        let (first, last) = (keys.iter().min().expect("a region of some keys"), keys.iter().max().expect("likewise"));
        (first.clone(), [&last[..], b"\0"].concat().into(), reverse)
    }

    /// Reads all accounts at one timestamp; `false` if some could not be read.
    pub async fn snapshot(&mut self) -> bool {
        let Some(mut transaction) = self.begin().await else { return false };
        let accounts = self.knobs.accounts();
        let Ok(reads) = self.read(&accounts, transaction.start_ts).await else { return false };
        transaction.reads = reads;
        self.end(transaction, Committed::Yes);
        true
    }

    async fn transfer(&mut self, from: u64, to: u64, asked: i128) {
        let Some(mut transaction) = self.begin().await else { return };
        let keys = [from, to].map(|number| self.knobs.key("account", number));
        let mut amounts = Vec::new();
        for key in &keys {
            let Ok(value) = self.percolator.get(key, transaction.start_ts).await else { return };
            amounts.push(amount(value.as_ref()));
            transaction.reads.push((key.clone(), value));
        }
        let moved = asked.min(amounts[0]);
        let (left, right) = (self.value(amounts[0] - moved), self.value(amounts[1] + moved));
        let [from, to] = keys;
        let mut writes = vec![(from, Change::Put(left)), (to, Change::Put(right))];
        if self.percolator.rng.chance(1, 8) {
            let witness = self.percolator.rng.below(self.knobs.accounts);
            let witness = self.knobs.key("account", witness);
            if writes.iter().all(|(key, _)| *key != witness) {
                writes.push((witness, Change::Lock));
            }
        }
        self.finish(transaction, writes).await;
    }

    /// Inserts a receipt, or deletes it if it exists.
    async fn receipt(&mut self) {
        let Some(mut transaction) = self.begin().await else { return };
        let number = self.percolator.rng.below(self.knobs.receipts);
        let key = self.knobs.key("receipt", number);
        let Ok(found) = self.percolator.get(&key, transaction.start_ts).await else { return };
        let change = if found.is_some() { Change::Delete } else { Change::Insert(self.value(0)) };
        transaction.reads.push((key.clone(), found));
        self.finish(transaction, vec![(key, change)]).await;
    }

    /// Works until it is stopped. The teller with `opens` opens the bank first; the others wait for that.
    pub async fn work(mut self, opens: bool, mut rng: Rng) {
        let records = self.percolator.records.clone();
        let executor = self.percolator.router.caller().executor().clone();
        while !records.stop.get() {
            if !records.bank_is_open.get() {
                if opens && self.open().await {
                    records.bank_is_open.set(true);
                }
            } else if rng.below(100) < self.knobs.snapshots_percent {
                self.snapshot().await;
            } else if self.knobs.receipts > 0 && rng.chance(1, 4) {
                self.receipt().await;
            } else {
                let from = rng.below(self.knobs.accounts);
                let to = (from + 1 + rng.below(self.knobs.accounts - 1)) % self.knobs.accounts;
                self.transfer(from, to, rng.below(30) as i128).await;
            }
            executor.sleep(Duration::from_micros(1 + rng.below(self.knobs.pause_ms_max * 1_000))).await;
        }
        records.running.set(records.running.get() - 1);
    }
}
