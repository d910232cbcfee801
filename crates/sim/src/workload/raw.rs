//! Raw operations on few keys by several clients: single keys, batches, scans both ways, range deletes or
//! compare-and-swap. Every written value is unique.
//!
//! An operation on many keys is recorded as one on each of them with the same interval: each takes effect at some
//! moment of it. That a batch takes effect at one moment for all its keys is checked with *groups* of keys that are
//! only written together: a read of a whole group must find the same value in all of it.

use super::{Connection, Direct, NoAnswer, Records};
use crate::executor::Handle;
use crate::history::{Answer, Operation, OperationId, Outcome};
use crate::wire::TAIL_RAW;
use bytes::Bytes;
use kontiki_client::{Error, KeyPair, RawClient, Swap};
use kontiki_env::rng::Rng;
use kontiki_proto::calls::{RawCompareAndSwap, RawDelete, RawGet, RawPut};
use kontiki_proto::kvrpcpb::{Context, RawCasRequest, RawDeleteRequest, RawGetRequest, RawPutRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

/// Keys of a group that is only written as a whole.
const GROUP_KEYS: u64 = 3;

/// How raw clients behave.
#[derive(Clone, Debug)]
pub struct RawSettings {
    /// Keys in use at a time: few, so that operations on one key overlap.
    pub keys: u64,
    /// A set of keys is replaced by the next after this time: the search of the checker is exponential in the number of
    /// operations on one key.
    pub rotate: Duration,
    /// Percentage of gets.
    pub gets_percent: u64,
    /// Percentage of deletes; only on the odd keys, so that the others can be checked without a search.
    pub deletes_percent: u64,
    /// Percentage of operations on many keys.
    pub many_percent: u64,
    /// Every n-th key is in the last region; 0: none.
    pub tail_one_in: u64,
    /// Longest wait between two operations, milliseconds.
    pub pause_ms_max: u64,
    /// Longest value, bytes.
    pub value_bytes_max: u64,
    /// All writes are atomic, and odd keys are also compared and swapped. Range deletes are not atomic: there are none
    /// then.
    pub is_atomic: bool,
}

impl RawSettings {
    /// Draws a workload.
    pub fn draw(rng: &mut Rng) -> RawSettings {
        RawSettings {
            keys: 2 + rng.below(10),
            rotate: Duration::from_secs(2 + rng.below(6)),
            gets_percent: 20 + rng.below(60),
            deletes_percent: rng.below(15),
            many_percent: if rng.chance(1, 2) { 5 + rng.below(40) } else { 0 },
            tail_one_in: rng.below(5),
            pause_ms_max: 1 << rng.below(7),
            value_bytes_max: 16 << rng.below(7),
            is_atomic: rng.child("atomic writes").chance(1, 3),
        }
    }

    /// The same, reading only.
    pub fn reading(&self) -> RawSettings {
        RawSettings { gets_percent: 100, many_percent: 0, ..self.clone() }
    }

    fn key(&self, period: u128, number: u64) -> Bytes {
        let is_tail = self.tail_one_in > 0 && number.is_multiple_of(self.tail_one_in);
        let name = format!("k{period:04}-{number:02}").into_bytes();
        if is_tail { [TAIL_RAW, &name].concat().into() } else { name.into() }
    }
}

/// Where a raw client sends its operations.
pub enum RawTarget {
    /// To the cluster, by the real client.
    Cluster(RawClient<Connection>),
    /// To one node only, whether it leads or not, each once. Operations on many keys are not sent this way.
    Node(Direct),
}

impl RawTarget {
    /// The value of a key.
    pub async fn get(&self, key: Bytes) -> Result<Option<Bytes>, Outcome> {
        match self {
            RawTarget::Cluster(client) => client.get(key).await.map_err(|_| Outcome::Failed),
            RawTarget::Node(direct) => {
                // At every other node, whether or not it leads; at the others only if it does.
                let replica_read = direct.node().is_multiple_of(2);
                let context = Some(Context { replica_read, ..Default::default() });
                let request = RawGetRequest { context, key: key.clone(), ..Default::default() };
                match direct.call::<RawGet>(&key, request).await {
                    Ok(reply) if reply.error.is_empty() => Ok((!reply.not_found).then_some(reply.value)),
                    _ => Err(Outcome::Failed),
                }
            }
        }
    }

    /// Sets a key, on request as an atomic write.
    pub async fn put(&self, key: Bytes, value: Bytes, for_cas: bool) -> Outcome {
        match self {
            RawTarget::Cluster(client) => written(client.put(key, value).await),
            RawTarget::Node(direct) => {
                let request = RawPutRequest { key: key.clone(), value, for_cas, ..Default::default() };
                sent(direct.call::<RawPut>(&key, request).await.map(|reply| reply.error))
            }
        }
    }

    async fn delete(&self, key: Bytes, for_cas: bool) -> Outcome {
        match self {
            RawTarget::Cluster(client) => written(client.delete(key).await),
            RawTarget::Node(direct) => {
                let request = RawDeleteRequest { key: key.clone(), for_cas, ..Default::default() };
                sent(direct.call::<RawDelete>(&key, request).await.map(|reply| reply.error))
            }
        }
    }

    /// Sets a key to `value` if it is `expected`.
    async fn swap(&self, key: Bytes, expected: Option<Bytes>, value: Bytes) -> Outcome {
        match self {
            RawTarget::Cluster(client) => match client.compare_and_swap(key, expected, value).await {
                Ok(Swap { swapped, previous }) => Outcome::Ok(Answer::Swap { swapped, previous }),
                Err(error) => written(Err(error)),
            },
            RawTarget::Node(direct) => {
                let request = RawCasRequest {
                    key: key.clone(),
                    value,
                    previous_not_exist: expected.is_none(),
                    previous_value: expected.unwrap_or_default(),
                    ..Default::default()
                };
                match direct.call::<RawCompareAndSwap>(&key, request).await {
                    Ok(reply) if reply.error.is_empty() => {
                        let previous = (!reply.previous_not_exist).then_some(reply.previous_value);
                        Outcome::Ok(Answer::Swap { swapped: reply.succeed, previous })
                    }
                    answer => sent(answer.map(|reply| reply.error)),
                }
            }
        }
    }

    fn cluster(&self) -> &RawClient<Connection> {
        match self {
            RawTarget::Cluster(client) => client,
            RawTarget::Node(_) => panic!("operations on many keys are sent to the cluster"),
        }
    }
}

/// The outcome of a write by the real client.
fn written(result: Result<(), Error>) -> Outcome {
    match result {
        Ok(()) => Outcome::Ok(Answer::Done),
        // A store that fails may have written it.
        Err(Error::Undetermined { .. } | Error::Server(_)) => Outcome::Unknown,
        Err(_) => Outcome::Failed,
    }
}

/// The outcome of a write at one node, from the text of an error in its reply.
fn sent(result: Result<String, NoAnswer>) -> Outcome {
    match result {
        Ok(error) if error.is_empty() => Outcome::Ok(Answer::Done),
        Err(NoAnswer::Refused) => Outcome::Failed,
        Ok(_) | Err(NoAnswer::Unknown) => Outcome::Unknown,
    }
}

/// One client.
pub struct RawWorkload {
    /// The client's number.
    pub client: u64,
    /// Where it sends its operations.
    pub target: RawTarget,
    /// How it behaves.
    pub settings: RawSettings,
    /// Where its operations are recorded.
    pub records: Records,
    /// The executor, for sleeping and the time.
    pub executor: Handle,
    /// Its random generator.
    pub rng: Rng,
    /// Values written so far.
    pub count: u64,
}

impl RawWorkload {
    /// Operations until it is stopped.
    pub async fn work(mut self) {
        while !self.records.stop.get() {
            let period = self.executor.now().as_millis() / self.settings.rotate.as_millis();
            if self.rng.chance(self.settings.many_percent, 100) {
                self.many(period).await;
            } else {
                self.single(period).await;
            }
            let pause = 1 + self.rng.below(self.settings.pause_ms_max * 1_000);
            self.executor.sleep(Duration::from_micros(pause)).await;
        }
        self.records.running.set(self.records.running.get() - 1);
    }

    fn value(&mut self) -> Bytes {
        self.count += 1;
        let mut value = format!("c{}-{}-", self.client, self.count).into_bytes();
        value.resize(value.len() + self.rng.below(self.settings.value_bytes_max) as usize, b'.');
        value.into()
    }

    fn invoke(&self, key: Bytes, operation: Operation) -> OperationId {
        self.records.history.lock().invoke(self.client, key, operation, self.executor.now())
    }

    fn complete(&self, id: OperationId, outcome: Outcome) {
        if matches!(outcome, Outcome::Ok(_)) {
            self.records.answered.set(self.records.answered.get() + 1);
        }
        self.records.history.lock().complete(id, outcome, self.executor.now());
    }

    async fn single(&mut self, period: u128) {
        let number = self.rng.below(self.settings.keys);
        let key = self.settings.key(period, number);
        let dice = self.rng.below(100);
        let (gets, deletes) = (self.settings.gets_percent, self.settings.deletes_percent);
        if dice < gets {
            let id = self.invoke(key.clone(), Operation::Get);
            let outcome = self.target.get(key).await;
            self.complete(id, outcome.map_or_else(|outcome| outcome, |value| Outcome::Ok(Answer::Value(value))));
        } else if number % 2 == 1 && dice < gets + deletes {
            let id = self.invoke(key.clone(), Operation::Delete);
            let outcome = self.target.delete(key, self.settings.is_atomic).await;
            self.complete(id, outcome);
        } else if number % 2 == 1 && self.settings.is_atomic && self.rng.chance(1, 2) {
            self.swap(key).await;
        } else {
            let value = self.value();
            let id = self.invoke(key.clone(), Operation::Put(value.clone()));
            let outcome = self.target.put(key, value, self.settings.is_atomic).await;
            self.complete(id, outcome);
        }
    }

    /// Reads the key, and swaps what it has found: between the two others may write.
    async fn swap(&mut self, key: Bytes) {
        let id = self.invoke(key.clone(), Operation::Get);
        let found = self.target.get(key.clone()).await;
        let outcome = found.clone().map_or_else(|outcome| outcome, |value| Outcome::Ok(Answer::Value(value)));
        self.complete(id, outcome);
        let Ok(expected) = found else { return };
        let value = self.value();
        let operation = Operation::CompareAndSwap { expected: expected.clone(), value: value.clone() };
        let id = self.invoke(key.clone(), operation);
        let outcome = self.target.swap(key, expected, value).await;
        self.complete(id, outcome);
    }

    async fn many(&mut self, period: u128) {
        match self.rng.below(8) {
            0 => self.batch_get(period).await,
            1 => self.scan(period, false).await,
            2 => self.scan(period, true).await,
            3 => self.batch_put(period).await,
            4 => self.batch_delete(period).await,
            5 if self.settings.is_atomic => self.batch_delete(period).await,
            5 => self.delete_range(period).await,
            6 => self.put_group(period).await,
            _ => self.read_group(period).await,
        }
    }

    /// Some keys that were of one region at first, ascending; on request only those with an odd number.
    fn some_keys(&mut self, period: u128, odd: bool) -> Vec<Bytes> {
        let mut keys = BTreeSet::new();
        for _ in 0..2 + self.rng.below(3) {
            let number = self.rng.below(self.settings.keys);
            let number = if odd { number | 1 } else { number };
            keys.insert(self.settings.key(period, number));
        }
        let first = keys.first().cloned().expect("at least one was drawn");
        keys.into_iter().filter(|key| is_tail(key) == is_tail(&first)).collect()
    }

    /// A read of keys at once; returns what was found.
    async fn read(
        &self,
        keys: &[Bytes],
        pairs: impl Future<Output = kontiki_client::Result<Vec<KeyPair>>>,
    ) -> Option<BTreeMap<Bytes, Bytes>> {
        let ids: Vec<_> = keys.iter().map(|key| self.invoke(key.clone(), Operation::Get)).collect();
        let found: Option<BTreeMap<_, _>> =
            pairs.await.ok().map(|pairs| pairs.into_iter().map(|pair| (pair.key, pair.value)).collect());
        for (id, key) in ids.into_iter().zip(keys) {
            let outcome = match &found {
                Some(found) => Outcome::Ok(Answer::Value(found.get(key).cloned())),
                None => Outcome::Failed,
            };
            self.complete(id, outcome);
        }
        found
    }

    /// A write of keys of one region at once: a request that takes effect as a whole.
    async fn write(&self, writes: Vec<(Bytes, Operation)>, result: impl Future<Output = kontiki_client::Result<()>>) {
        let ids: Vec<_> = writes.into_iter().map(|(key, operation)| self.invoke(key, operation)).collect();
        let outcome = written(result.await);
        for id in ids {
            self.complete(id, outcome.clone());
        }
    }

    async fn batch_get(&mut self, period: u128) {
        let keys = self.some_keys(period, false);
        self.read(&keys, self.target.cluster().batch_get(keys.clone())).await;
    }

    /// Scans all keys of the period in one region. Every key that exists must be returned, in order.
    async fn scan(&mut self, period: u128, reverse: bool) {
        let all: BTreeSet<Bytes> = (0..self.settings.keys).map(|number| self.settings.key(period, number)).collect();
        let number = self.rng.below(self.settings.keys);
        let tail = is_tail(&self.settings.key(period, number));
        let keys: Vec<Bytes> = all.into_iter().filter(|key| is_tail(key) == tail).collect();
        let (Some(first), Some(last)) = (keys.first().cloned(), keys.last()) else { return };
        let (end, limit) = (after(last), keys.len() + 1);
        let client = self.target.cluster();
        match reverse {
            false => self.read(&keys, client.scan(first, end, limit)).await,
            true => self.read(&keys, client.scan_reverse(first, end, limit)).await,
        };
    }

    async fn batch_put(&mut self, period: u128) {
        let keys = self.some_keys(period, false);
        let pairs: Vec<_> = keys.into_iter().map(|key| (key, self.value())).collect();
        self.put_pairs(pairs).await;
    }

    async fn put_pairs(&self, pairs: Vec<(Bytes, Bytes)>) {
        let writes = pairs.iter().map(|(key, value)| (key.clone(), Operation::Put(value.clone()))).collect();
        self.write(writes, self.target.cluster().batch_put(pairs)).await;
    }

    async fn batch_delete(&mut self, period: u128) {
        let keys = self.some_keys(period, true);
        let writes = keys.iter().map(|key| (key.clone(), Operation::Delete)).collect();
        self.write(writes, self.target.cluster().batch_delete(keys)).await;
    }

    /// Deletes a range around one odd key.
    async fn delete_range(&mut self, period: u128) {
        let number = self.rng.below(self.settings.keys) | 1;
        let key = self.settings.key(period, number);
        let deleting = self.target.cluster().delete_range(key.clone(), after(&key));
        self.write(vec![(key, Operation::Delete)], deleting).await;
    }

    /// Their first eight bytes are the same, so no boundary divides them.
    fn group(period: u128) -> Vec<Bytes> {
        (0..GROUP_KEYS).map(|number| Bytes::from(format!("g{period:06}-{number:02}"))).collect()
    }

    async fn put_group(&mut self, period: u128) {
        let value = self.value();
        self.put_pairs(Self::group(period).into_iter().map(|key| (key, value.clone())).collect()).await;
    }

    async fn read_group(&mut self, period: u128) {
        let keys = Self::group(period);
        let is_batch = self.rng.chance(1, 2);
        let client = self.target.cluster();
        let found = if is_batch {
            self.read(&keys, client.batch_get(keys.clone())).await
        } else {
            let (first, end) = (keys[0].clone(), after(&keys[keys.len() - 1]));
            self.read(&keys, client.scan(first, end, GROUP_KEYS as usize)).await
        };
        let Some(found) = found else { return };
        let values: BTreeSet<Option<&Bytes>> = keys.iter().map(|key| found.get(key)).collect();
        if values.len() > 1 {
            let what = format!("a batch that was read in part: {values:?} in the group of period {period}");
            self.records.violations.borrow_mut().push(what);
        }
    }
}

/// Whether a key is at the end of the key space, far from the others.
fn is_tail(key: &[u8]) -> bool {
    key.starts_with(TAIL_RAW)
}

/// The smallest key above `key`.
fn after(key: &[u8]) -> Bytes {
    [key, b"\0"].concat().into()
}
