//! A bank: transfers between accounts, and snapshots of all of them. The total never changes.
//!
//! A value is `amount:client:count`, so that each is unique and a read names its writer.

use super::Committed;
use super::percolator::Percolator;
use crate::check::snapshot_isolation::{End, Transaction};
use bytes::Bytes;
use kontiki_env::rng::Rng;
use std::time::Duration;

/// What each account begins with.
const BALANCE: i128 = 100;

/// How the bank is used.
#[derive(Clone, Debug)]
pub struct BankKnobs {
    /// Accounts.
    pub accounts: u64,
    /// Of a hundred transactions, snapshots of everything.
    pub snapshots_percent: u64,
    /// Longest pause between two transactions, milliseconds.
    pub pause_ms_max: u64,
}

impl BankKnobs {
    /// Draws a bank.
    pub fn draw(rng: &mut Rng) -> BankKnobs {
        BankKnobs { accounts: 2 + rng.below(8), snapshots_percent: 10 + rng.below(40), pause_ms_max: 1 << rng.below(8) }
    }

    /// What all accounts hold together, once they are opened.
    pub fn total(&self) -> i128 {
        BALANCE * i128::from(self.accounts)
    }
}

/// The key of an account.
fn account(number: u64) -> Bytes {
    format!("account-{number:03}").into()
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
    /// A teller who has done nothing yet.
    pub fn new(percolator: Percolator, knobs: BankKnobs) -> Teller {
        Teller { percolator, knobs, count: 0 }
    }

    fn value(&mut self, amount: i128) -> Bytes {
        self.count += 1;
        format!("{amount}:{}:{}", self.percolator.router.caller().client(), self.count).into()
    }

    /// Opens all accounts in one transaction; tries until it is known to have worked, or until it cannot know.
    async fn open(&mut self) -> bool {
        let writes: Vec<_> =
            (0..self.knobs.accounts).map(|number| (account(number), Some(self.value(BALANCE)))).collect();
        let Some(mut transaction) = self.begin().await else { return false };
        let (commit_ts, committed) = self.percolator.write(transaction.start_ts, &writes).await;
        (transaction.writes, transaction.commit_ts) = (writes, commit_ts);
        self.end(transaction, committed);
        committed == Committed::Yes
    }

    async fn begin(&mut self) -> Option<Transaction> {
        let client = self.percolator.router.caller().client();
        let began = self.percolator.records.history.borrow_mut().event();
        let start_ts = self.percolator.timestamp().await?;
        let (reads, writes) = (Vec::new(), Vec::new());
        Some(Transaction { client, began, ended: 0, start_ts, commit_ts: None, end: End::Aborted, reads, writes })
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

    /// Reads all accounts at one timestamp; `false` if some could not be read.
    pub async fn snapshot(&mut self) -> bool {
        let Some(mut transaction) = self.begin().await else { return false };
        for number in 0..self.knobs.accounts {
            let key = account(number);
            let Ok(value) = self.percolator.get(&key, transaction.start_ts).await else { return false };
            transaction.reads.push((key, value));
        }
        self.end(transaction, Committed::Yes);
        true
    }

    async fn transfer(&mut self, from: u64, to: u64, asked: i128) {
        let Some(mut transaction) = self.begin().await else { return };
        let mut amounts = Vec::new();
        for number in [from, to] {
            let key = account(number);
            let Ok(value) = self.percolator.get(&key, transaction.start_ts).await else { return };
            amounts.push(amount(value.as_ref()));
            transaction.reads.push((key, value));
        }
        let moved = asked.min(amounts[0]);
        let (left, right) = (self.value(amounts[0] - moved), self.value(amounts[1] + moved));
        let writes = vec![(account(from), Some(left)), (account(to), Some(right))];
        let (commit_ts, committed) = self.percolator.write(transaction.start_ts, &writes).await;
        (transaction.writes, transaction.commit_ts) = (writes, commit_ts);
        self.end(transaction, committed);
    }

    /// Works until told to stop. The teller with `opens` opens the bank first; the others wait for that.
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
