//! The bank's pessimistic transactions: transfers, receipts and sums, in which every read locks its key.

use super::Connection;
use super::bank::{Change, Teller, amount};
use crate::check::snapshot_isolation::Transaction;
use bytes::Bytes;
use kontiki_client::{Error, PessimisticTransaction};
use kontiki_env::rng::Rng;
use std::time::Duration;

/// The longest time that a teller holds its locks without doing anything: longer than the locks live without
/// heartbeats.
const THINK_MS_MAX: u64 = 1_500;

/// A pessimistic transaction of the real client, and its record.
struct Locking {
    real: PessimisticTransaction<Connection>,
    record: Transaction,
}

impl Teller {
    /// One pessimistic transaction.
    pub(super) async fn locking(&mut self, rng: &mut Rng) {
        let Some(mut running) = self.begin_locking().await else { return };
        let done = match rng.below(8) {
            0 => self.sum(&mut running, rng).await.map(|()| Vec::new()),
            1 if self.settings.receipts > 0 => self.locked_receipt(&mut running, rng).await,
            _ => self.locked_transfer(&mut running, rng).await,
        };
        // After an error it is rolled back, or dropped.
        let Ok(changes) = done else {
            if rng.chance(1, 2) {
                let _ = running.real.rollback().await;
            }
            return;
        };
        if rng.chance(self.settings.kinds.thinks_percent, 100) {
            self.executor.sleep(Duration::from_millis(rng.below(THINK_MS_MAX))).await;
        }
        if rng.chance(1, 20) {
            return; // It changes its mind.
        }
        let Locking { real, mut record } = running;
        record.writes =
            changes.into_iter().filter_map(|(key, change): (_, Change)| Some((key, change.written()?))).collect();
        record.commit_began = self.records.history.lock().event();
        let outcome = real.commit().await;
        self.committed(record, outcome);
    }

    async fn begin_locking(&mut self) -> Option<Locking> {
        let began = self.records.history.lock().event();
        let options = self.settings.kinds.options(&mut self.rng);
        let real = self.client.begin_pessimistic_with(options).await.ok()?;
        let begun = Transaction::begun(self.number, began, real.start_timestamp());
        Some(Locking { real, record: Transaction { is_pessimistic: true, ..begun } })
    }

    /// Locks all accounts, one after the other or together, and reads them.
    async fn sum(&mut self, running: &mut Locking, rng: &mut Rng) -> Result<(), Error> {
        let accounts = self.settings.accounts();
        running.read(&accounts, rng).await.map(drop)
    }

    async fn locked_transfer(&mut self, running: &mut Locking, rng: &mut Rng) -> Result<Vec<(Bytes, Change)>, Error> {
        let from = rng.below(self.settings.accounts);
        let to = (from + 1 + rng.below(self.settings.accounts - 1)) % self.settings.accounts;
        // In any order: two of them may wait for each other.
        let mut keys: Vec<Bytes> = [from, to].map(|number| self.settings.key("account", number)).to_vec();
        if rng.chance(1, 3) {
            let witness = self.settings.key("account", rng.below(self.settings.accounts));
            if !keys.contains(&witness) {
                keys.push(witness);
            }
        }
        let found = running.read(&keys, rng).await?;
        let amounts: Vec<i128> = found.iter().map(|value| amount(value.as_ref())).collect();
        let moved = i128::from(rng.below(30)).min(amounts[0]);
        let (left, right) = (self.value(amounts[0] - moved), self.value(amounts[1] + moved));
        let changes = vec![(keys[0].clone(), Change::Put(left)), (keys[1].clone(), Change::Put(right))];
        running.write(&changes).await?;
        Ok(changes)
    }

    /// Inserts a receipt, or deletes it if it exists.
    async fn locked_receipt(&mut self, running: &mut Locking, rng: &mut Rng) -> Result<Vec<(Bytes, Change)>, Error> {
        let key = self.settings.key("receipt", rng.below(self.settings.receipts));
        let value = self.value(0);
        let changes = if rng.chance(1, 3) {
            let insert = vec![(key.clone(), Change::Insert(value.clone()))];
            match running.write(&insert).await {
                Ok(()) => {
                    running.record.locked_reads.push((key, None));
                    return Ok(insert);
                }
                Err(Error::AlreadyExists { .. }) => vec![(key.clone(), Change::Delete)],
                Err(error) => return Err(error),
            }
        } else {
            match running.read(std::slice::from_ref(&key), rng).await?.pop().flatten() {
                Some(_) => vec![(key, Change::Delete)],
                None => vec![(key, Change::Insert(value))],
            }
        };
        running.write(&changes).await?;
        Ok(changes)
    }
}

impl Locking {
    /// Locks keys and reads them: one by one, together, or first all locks.
    async fn read(&mut self, keys: &[Bytes], rng: &mut Rng) -> Result<Vec<Option<Bytes>>, Error> {
        let mut found = Vec::new();
        match rng.below(3) {
            0 => {
                let pairs = self.real.batch_get_for_update(keys.to_vec()).await?;
                let value = |key: &Bytes| pairs.iter().find(|pair| pair.key == *key).map(|pair| pair.value.clone());
                found.extend(keys.iter().map(value));
            }
            way => {
                if way == 1 {
                    self.real.lock_keys(keys.to_vec()).await?;
                }
                for key in keys {
                    found.push(self.real.get_for_update(key.clone()).await?);
                }
            }
        }
        self.record.locked_reads.extend(keys.iter().cloned().zip(found.iter().cloned()));
        Ok(found)
    }

    async fn write(&mut self, changes: &[(Bytes, Change)]) -> Result<(), Error> {
        for (key, change) in changes.iter().cloned() {
            match change {
                Change::Put(value) => self.real.put(key, value).await?,
                Change::Insert(value) => self.real.insert(key, value).await?,
                Change::Delete => self.real.delete(key).await?,
                Change::Lock => self.real.lock_keys([key]).await?,
            }
        }
        Ok(())
    }
}
