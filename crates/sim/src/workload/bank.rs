//! A bank: transfers between accounts, and snapshots of all of them. The total never changes. There are also receipts,
//! which are inserted and deleted.
//!
//! A value is `amount:client:count`, and perhaps a long suffix, so that each is unique and a read identifies its
//! writer.

use super::behaviour::{Behaviour, BehaviourState, LOCK_ONLY};
use super::kinds::Kinds;
use super::{Connection, Records};
use crate::check::snapshot_isolation::{End, Transaction};
use crate::executor::Handle;
use crate::wire::TAIL_TXN;
use bytes::Bytes;
use kontiki_client::{Client, Error, Mutation};
use kontiki_env::rng::Rng;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The initial amount of each account.
const BALANCE: i128 = 100;
/// Longest suffix of a value: longer than a lock can hold, so that the family of long values is used.
const TAIL_BYTES_MAX: u64 = 700;

/// The parameters of the bank.
#[derive(Clone, Debug)]
pub struct BankSettings {
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
    pub behaviour: Behaviour,
    /// The kinds of their transactions.
    pub kinds: Kinds,
}

impl BankSettings {
    /// Draws a bank.
    pub fn draw(rng: &mut Rng) -> BankSettings {
        BankSettings {
            accounts: 2 + rng.below(8),
            receipts: rng.below(4),
            snapshots_percent: 10 + rng.below(40),
            pause_ms_max: 1 << rng.below(8),
            tail_one_in: rng.below(4),
            long_percent: if rng.chance(1, 2) { rng.below(60) } else { 0 },
            behaviour: Behaviour::draw(rng),
            kinds: Kinds::draw(&mut rng.child("kinds")),
        }
    }

    /// The total of all accounts, once they are opened.
    pub fn total(&self) -> i128 {
        BALANCE * i128::from(self.accounts)
    }

    pub(super) fn key(&self, kind: &str, number: u64) -> Bytes {
        let is_tail = self.tail_one_in > 0 && number.is_multiple_of(self.tail_one_in);
        let name = format!("{kind}-{number:03}").into_bytes();
        if is_tail { [TAIL_TXN, &name].concat().into() } else { name.into() }
    }

    /// All accounts.
    pub(super) fn accounts(&self) -> Vec<Bytes> {
        (0..self.accounts).map(|number| self.key("account", number)).collect()
    }
}

/// The amount in a value; an account that was never opened holds nothing.
pub fn amount(value: Option<&Bytes>) -> i128 {
    let text = value.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or("0");
    text.split(':').next().and_then(|amount| amount.parse().ok()).expect("the bank's values begin with an amount")
}

/// What a transaction does to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Put(Bytes),
    /// A put of a key that must be absent.
    Insert(Bytes),
    Delete,
    /// A lock without a value.
    Lock,
}

impl Change {
    /// What the key holds afterwards, if it is changed.
    pub(super) fn written(self) -> Option<Option<Bytes>> {
        match self {
            Change::Put(value) | Change::Insert(value) => Some(Some(value)),
            Change::Delete => Some(None),
            Change::Lock => None,
        }
    }
}

/// A transaction of the real client, and its record.
struct Running {
    real: kontiki_client::Transaction<Connection>,
    record: Transaction,
}

/// One teller.
pub struct Teller {
    /// The client below.
    pub client: Client<Connection>,
    /// The client's number.
    pub number: u64,
    /// The state of its behaviour.
    pub behaviour: Arc<Mutex<BehaviourState>>,
    /// The bank.
    pub settings: BankSettings,
    /// Where its transactions are recorded.
    pub records: Records,
    /// The executor, for sleeping and the time.
    pub executor: Handle,
    /// Its random generator.
    pub rng: Rng,
    /// Values written so far.
    pub count: u64,
}

impl Teller {
    pub(super) fn value(&mut self, amount: i128) -> Bytes {
        self.count += 1;
        let mut value = format!("{amount}:{}:{}", self.number, self.count).into_bytes();
        if self.rng.chance(self.settings.long_percent, 100) {
            value.push(b':');
            value.resize(value.len() + self.rng.below(TAIL_BYTES_MAX) as usize, b'.');
        }
        value.into()
    }

    /// Opens all accounts in one transaction; whether that is known to have succeeded.
    async fn open(&mut self) -> bool {
        let accounts = self.settings.accounts();
        let changes: Vec<_> = accounts.into_iter().map(|key| (key, Change::Put(self.value(BALANCE)))).collect();
        let Some(running) = self.begin().await else { return false };
        self.finish(running, changes).await == End::Committed
    }

    async fn begin(&mut self) -> Option<Running> {
        let began = self.records.history.lock().event();
        let options = self.settings.kinds.options(&mut self.rng);
        let real = self.client.begin_with(options).await.ok()?;
        let record = Transaction::begun(self.number, began, real.start_timestamp());
        Some(Running { real, record })
    }

    /// Writes and commits.
    async fn finish(&mut self, running: Running, changes: Vec<(Bytes, Change)>) -> End {
        let Running { mut real, mut record } = running;
        if self.records.commits_early.get() {
            return self.finish_early(record, changes).await;
        }
        for (key, change) in changes.clone() {
            match change {
                Change::Put(value) => real.put(key, value),
                Change::Insert(value) => real.insert(key, value).expect("each key is written once"),
                Change::Delete => real.delete(key),
                Change::Lock => real.put(key, LOCK_ONLY),
            }
        }
        record.writes = changes.into_iter().filter_map(|(key, change)| Some((key, change.written()?))).collect();
        record.commit_began = self.records.history.lock().event();
        let outcome = real.commit().await;
        self.committed(record, outcome)
    }

    /// A planted bug: the commit timestamp is older than the locks.
    async fn finish_early(&mut self, mut record: Transaction, changes: Vec<(Bytes, Change)>) -> End {
        let mutation = |(key, change)| match change {
            Change::Put(value) | Change::Insert(value) => Mutation::Put { key, value },
            Change::Delete => Mutation::Delete { key },
            Change::Lock => Mutation::Lock { key },
        };
        let primary = changes[0].0.clone();
        let mutations = changes.iter().cloned().map(mutation).collect();
        record.writes = changes.into_iter().filter_map(|(key, change)| Some((key, change.written()?))).collect();
        record.commit_began = self.records.history.lock().event();
        let Ok(commit_ts) = self.client.timestamp().await else { return self.end(record) };
        let outcome = self.client.mutate(primary, mutations, record.start_ts, commit_ts).await;
        self.committed(record, outcome.map(|()| Some(commit_ts)))
    }

    /// Records what a commit has returned.
    pub(super) fn committed(&mut self, mut record: Transaction, outcome: Result<Option<u64>, Error>) -> End {
        let sent = self.behaviour.lock().commit_ts_sent(record.start_ts);
        (record.commit_ts, record.end) = match outcome {
            Ok(commit_ts) => (commit_ts, End::Committed),
            Err(Error::Undetermined { .. }) => (sent, End::Unknown),
            Err(_) => (None, End::Aborted),
        };
        self.end(record)
    }

    pub(super) fn end(&mut self, mut record: Transaction) -> End {
        let end = record.end;
        record.ended = self.records.history.lock().event();
        self.records.transactions.borrow_mut().push(record);
        if end == End::Committed {
            self.records.answered.set(self.records.answered.get() + 1);
        }
        end
    }

    /// Reads keys: one by one, together, or by scans in either direction.
    async fn read(&mut self, running: &mut Running, keys: &[Bytes]) -> Result<(), Error> {
        let (real, mut found) = (&running.real, BTreeMap::new());
        match self.rng.below(4) {
            0 => {
                for key in keys {
                    found.extend(real.get(key.clone()).await?.map(|value| (key.clone(), value)));
                }
            }
            1 => {
                let pairs = real.batch_get(keys.to_vec()).await?;
                found.extend(pairs.into_iter().map(|pair| (pair.key, pair.value)));
            }
            way => {
                // The accounts at the end of the key space are far from the others.
                let mut parts = BTreeMap::<_, Vec<Bytes>>::new();
                for key in keys {
                    parts.entry(key.starts_with(TAIL_TXN)).or_default().push(key.clone());
                }
                for keys in parts.into_values() {
                    let (first, last) = (keys[0].clone(), &keys[keys.len() - 1]);
                    let end = [&last[..], b"\0"].concat();
                    // One more than there can be: a scan that ends early is detected.
                    let limit = keys.len() + 1;
                    let pairs = match way {
                        2 => real.scan_reverse(first, end, limit).await?,
                        _ => real.scan(first, end, limit).await?,
                    };
                    found.extend(pairs.into_iter().map(|pair| (pair.key, pair.value)));
                }
            }
        }
        // Scans return other accounts, too; those are valid reads.
        let others: Vec<Bytes> = found.keys().filter(|key| !keys.contains(key)).cloned().collect();
        let all = keys.iter().cloned().chain(others);
        running.record.reads.extend(all.map(|key| (key.clone(), found.remove(&key))));
        Ok(())
    }

    /// Reads all accounts at one timestamp; `false` if some could not be read.
    pub async fn snapshot(&mut self) -> bool {
        let Some(mut running) = self.begin().await else { return false };
        let accounts = self.settings.accounts();
        if self.read(&mut running, &accounts).await.is_err() {
            return false;
        }
        self.end(Transaction { end: End::Committed, ..running.record });
        true
    }

    async fn transfer(&mut self, from: u64, to: u64, asked: i128) {
        let Some(mut running) = self.begin().await else { return };
        let keys = [from, to].map(|number| self.settings.key("account", number));
        let mut amounts = Vec::new();
        for key in &keys {
            let Ok(value) = running.real.get(key.clone()).await else { return };
            amounts.push(amount(value.as_ref()));
            running.record.reads.push((key.clone(), value));
        }
        let moved = asked.min(amounts[0]);
        let (left, right) = (self.value(amounts[0] - moved), self.value(amounts[1] + moved));
        let [from, to] = keys;
        let mut changes = vec![(from, Change::Put(left)), (to, Change::Put(right))];
        if self.rng.chance(1, 8) {
            let witness = self.rng.below(self.settings.accounts);
            let witness = self.settings.key("account", witness);
            if changes.iter().all(|(key, _)| *key != witness) {
                changes.push((witness, Change::Lock));
            }
        }
        self.finish(running, changes).await;
    }

    /// Inserts a receipt, or deletes it if it exists.
    async fn receipt(&mut self) {
        let Some(mut running) = self.begin().await else { return };
        let number = self.rng.below(self.settings.receipts);
        let key = self.settings.key("receipt", number);
        let Ok(found) = running.real.get(key.clone()).await else { return };
        let change = if found.is_some() { Change::Delete } else { Change::Insert(self.value(0)) };
        running.record.reads.push((key.clone(), found));
        self.finish(running, vec![(key, change)]).await;
    }

    /// Works until it is stopped. The teller that opens the bank does that first; the others wait for it.
    pub async fn work(mut self, opens: bool, mut rng: Rng) {
        let (records, executor) = (self.records.clone(), self.executor.clone());
        while !records.stop.get() {
            if !records.bank_is_open.get() {
                if opens && self.open().await {
                    records.bank_is_open.set(true);
                }
            } else if rng.below(100) < self.settings.snapshots_percent {
                self.snapshot().await;
            } else if rng.below(100) < self.settings.kinds.pessimistic_percent {
                self.locking(&mut rng).await;
            } else if self.settings.receipts > 0 && rng.chance(1, 4) {
                self.receipt().await;
            } else {
                let from = rng.below(self.settings.accounts);
                let to = (from + 1 + rng.below(self.settings.accounts - 1)) % self.settings.accounts;
                self.transfer(from, to, rng.below(30) as i128).await;
            }
            executor.sleep(Duration::from_micros(1 + rng.below(self.settings.pause_ms_max * 1_000))).await;
        }
        let (done, [one_phase, in_background, two_phases]) = (self.client.metrics(), records.commits.get());
        records.commits.set([
            one_phase + done.commits_one_phase,
            in_background + done.commits_async,
            two_phases + done.commits_two_phases,
        ]);
        records.running.set(records.running.get() - 1);
    }
}
