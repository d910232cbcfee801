//! Raw operations on few keys by several clients: single keys, batches, scans both ways, range deletes. Every written
//! value is unique.
//!
//! An operation on many keys is recorded as one on each of them with the same interval: each takes effect at some
//! moment of it. That a batch takes effect at one moment for all its keys is checked with *groups* of keys that are
//! only written together: a read of a whole group must find the same value in all of it.

use super::{CallOutcome, Records, Router};
use crate::cluster::wire::{Ask, Response, TAIL_RAW, raw_region};
use crate::history::{Answer, Operation, OperationId, Outcome};
use bytes::Bytes;
use kontiki_env::rng::Rng;
use kontiki_proto::kvrpcpb::{self, KvPair, RawDeleteRequest, RawGetRequest, RawPutRequest};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Keys of a group that is only written as a whole.
const GROUP_KEYS: u64 = 3;
/// How long a client tries an operation.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How raw clients behave.
#[derive(Clone, Debug)]
pub struct RawKnobs {
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
}

impl RawKnobs {
    /// Draws a workload.
    pub fn draw(rng: &mut Rng) -> RawKnobs {
        RawKnobs {
            keys: 2 + rng.below(10),
            rotate: Duration::from_secs(2 + rng.below(6)),
            gets_percent: 20 + rng.below(60),
            deletes_percent: rng.below(15),
            many_percent: if rng.chance(1, 2) { 5 + rng.below(40) } else { 0 },
            tail_one_in: rng.below(5),
            pause_ms_max: 1 << rng.below(7),
            value_bytes_max: 16 << rng.below(7),
        }
    }

    /// The same, reading only.
    pub fn reading(&self) -> RawKnobs {
        RawKnobs { gets_percent: 100, many_percent: 0, ..self.clone() }
    }

    fn key(&self, period: u128, number: u64) -> Bytes {
        let is_tail = self.tail_one_in > 0 && number.is_multiple_of(self.tail_one_in);
        let name = format!("k{period:04}-{number:02}").into_bytes();
        if is_tail { [TAIL_RAW, &name].concat().into() } else { name.into() }
    }
}

/// A raw get.
pub fn raw_get(key: Bytes) -> Ask {
    Ask::RawGet(RawGetRequest { key, ..Default::default() })
}

/// One client: operations until it is stopped.
pub async fn raw_client(router: Router, knobs: RawKnobs, records: Records, rng: Rng) {
    let mut client = Client { router, knobs, records, rng, count: 0 };
    let executor = client.router.caller().executor().clone();
    while !client.records.stop.get() {
        let period = executor.now().as_millis() / client.knobs.rotate.as_millis();
        if client.rng.chance(client.knobs.many_percent, 100) {
            client.many(period).await;
        } else {
            client.single(period).await;
        }
        let pause = 1 + client.rng.below(client.knobs.pause_ms_max * 1_000);
        executor.sleep(Duration::from_micros(pause)).await;
    }
    client.records.running.set(client.records.running.get() - 1);
}

struct Client {
    router: Router,
    knobs: RawKnobs,
    records: Records,
    rng: Rng,
    count: u64,
}

impl Client {
    fn value(&mut self) -> Bytes {
        self.count += 1;
        let mut value = format!("c{}-{}-", self.router.caller().client(), self.count).into_bytes();
        value.resize(value.len() + self.rng.below(self.knobs.value_bytes_max) as usize, b'.');
        value.into()
    }

    fn invoke(&self, key: Bytes, operation: Operation) -> OperationId {
        let (client, now) = (self.router.caller().client(), self.router.caller().executor().now());
        self.records.history.borrow_mut().invoke(client, key, operation, now)
    }

    fn complete(&self, id: OperationId, outcome: Outcome) {
        let now = self.router.caller().executor().now();
        self.records.history.borrow_mut().complete(id, outcome, now);
    }

    /// Sends a request; counts its answer.
    async fn ask(&mut self, ask: Ask) -> Result<Response, Outcome> {
        match self.router.ask(ask, CALL_TIMEOUT).await {
            CallOutcome::Answered(response) => {
                self.records.answered.set(self.records.answered.get() + 1);
                Ok(*response)
            }
            CallOutcome::Failed => Err(Outcome::Failed),
            CallOutcome::Unknown => Err(Outcome::Unknown),
        }
    }

    async fn single(&mut self, period: u128) {
        let number = self.rng.below(self.knobs.keys);
        let key = self.knobs.key(period, number);
        let dice = self.rng.below(100);
        let (gets, deletes) = (self.knobs.gets_percent, self.knobs.deletes_percent);
        let (operation, ask) = if dice < gets {
            (Operation::Get, raw_get(key.clone()))
        } else if number % 2 == 1 && dice < gets + deletes {
            (Operation::Delete, Ask::RawDelete(RawDeleteRequest { key: key.clone(), ..Default::default() }))
        } else {
            let value = self.value();
            let request = RawPutRequest { key: key.clone(), value: value.clone(), ..Default::default() };
            (Operation::Put(value), Ask::RawPut(request))
        };
        let id = self.invoke(key, operation);
        let outcome = self.ask(ask).await.map_or_else(
            |outcome| outcome,
            |response| {
                Outcome::Ok(match response {
                    Response::RawGet(answer) => Answer::Value((!answer.not_found).then_some(answer.value)),
                    _ => Answer::Done,
                })
            },
        );
        self.complete(id, outcome);
    }

    async fn many(&mut self, period: u128) {
        match self.rng.below(8) {
            0 => self.batch_get(period).await,
            1 => self.scan(period, false).await,
            2 => self.scan(period, true).await,
            3 => self.batch_put(period).await,
            4 => self.batch_delete(period).await,
            5 => self.delete_range(period).await,
            6 => self.put_group(period).await,
            _ => self.read_group(period).await,
        }
    }

    /// Some keys of one region, ascending; on request only those with an odd number.
    fn some_keys(&mut self, period: u128, odd: bool) -> Vec<Bytes> {
        let mut keys = BTreeSet::new();
        for _ in 0..2 + self.rng.below(3) {
            let number = self.rng.below(self.knobs.keys);
            let number = if odd { number | 1 } else { number };
            keys.insert(self.knobs.key(period, number));
        }
        let first = keys.first().cloned().expect("at least one was drawn");
        keys.into_iter().filter(|key| raw_region(key) == raw_region(&first)).collect()
    }

    /// A read of keys at once; returns what was found.
    async fn read(&mut self, keys: Vec<Bytes>, ask: Ask) -> Option<BTreeMap<Bytes, Bytes>> {
        let ids: Vec<_> = keys.iter().map(|key| self.invoke(key.clone(), Operation::Get)).collect();
        let found = self.ask(ask).await.map(|response| match response {
            Response::RawBatchGet(answer) => answer.pairs,
            Response::RawScan(answer) => answer.kvs,
            _ => Vec::new(),
        });
        let found = found.map(|pairs| pairs.into_iter().map(|pair| (pair.key, pair.value)).collect::<BTreeMap<_, _>>());
        for (id, key) in ids.into_iter().zip(&keys) {
            let outcome = match &found {
                Ok(found) => Outcome::Ok(Answer::Value(found.get(key).cloned())),
                Err(outcome) => outcome.clone(),
            };
            self.complete(id, outcome);
        }
        found.ok()
    }

    /// A write of keys at once.
    async fn write(&mut self, writes: Vec<(Bytes, Operation)>, ask: Ask) {
        let ids: Vec<_> = writes.into_iter().map(|(key, operation)| self.invoke(key, operation)).collect();
        let outcome = self.ask(ask).await.map_or_else(|outcome| outcome, |_| Outcome::Ok(Answer::Done));
        for id in ids {
            self.complete(id, outcome.clone());
        }
    }

    async fn batch_get(&mut self, period: u128) {
        let keys = self.some_keys(period, false);
        let request = kvrpcpb::RawBatchGetRequest { keys: keys.clone(), ..Default::default() };
        self.read(keys, Ask::RawBatchGet(request)).await;
    }

    /// Scans all keys of the period in one region. Every key that exists must be returned, in order.
    async fn scan(&mut self, period: u128, reverse: bool) {
        let all: BTreeSet<Bytes> = (0..self.knobs.keys).map(|number| self.knobs.key(period, number)).collect();
        let number = self.rng.below(self.knobs.keys);
        let region = raw_region(&self.knobs.key(period, number));
        let keys: Vec<Bytes> = all.into_iter().filter(|key| raw_region(key) == region).collect();
        let (Some(first), Some(last)) = (keys.first().cloned(), keys.last()) else { return };
        let end = Bytes::from([&last[..], b"\0"].concat());
        let (start_key, end_key) = if reverse { (end, first) } else { (first, end) };
        let limit = keys.len() as u32 + 1;
        let request = kvrpcpb::RawScanRequest { start_key, end_key, limit, reverse, ..Default::default() };
        self.read(keys, Ask::RawScan(request)).await;
    }

    async fn batch_put(&mut self, period: u128) {
        let keys = self.some_keys(period, false);
        let pairs: Vec<KvPair> =
            keys.into_iter().map(|key| KvPair { key, value: self.value(), ..Default::default() }).collect();
        self.put_pairs(pairs).await;
    }

    async fn put_pairs(&mut self, pairs: Vec<KvPair>) {
        let writes = pairs.iter().map(|pair| (pair.key.clone(), Operation::Put(pair.value.clone()))).collect();
        let request = kvrpcpb::RawBatchPutRequest { pairs, ..Default::default() };
        self.write(writes, Ask::RawBatchPut(request)).await;
    }

    async fn batch_delete(&mut self, period: u128) {
        let keys = self.some_keys(period, true);
        let writes = keys.iter().map(|key| (key.clone(), Operation::Delete)).collect();
        let request = kvrpcpb::RawBatchDeleteRequest { keys, ..Default::default() };
        self.write(writes, Ask::RawBatchDelete(request)).await;
    }

    /// Deletes a range around one odd key.
    async fn delete_range(&mut self, period: u128) {
        let number = self.rng.below(self.knobs.keys) | 1;
        let key = self.knobs.key(period, number);
        let end_key = [&key[..], b"\0"].concat().into();
        let request = kvrpcpb::RawDeleteRangeRequest { start_key: key.clone(), end_key, ..Default::default() };
        self.write(vec![(key, Operation::Delete)], Ask::RawDeleteRange(request)).await;
    }

    fn group(period: u128) -> Vec<Bytes> {
        (0..GROUP_KEYS).map(|number| Bytes::from(format!("g{period:04}-{number:02}"))).collect()
    }

    async fn put_group(&mut self, period: u128) {
        let value = self.value();
        let pair = |key| KvPair { key, value: value.clone(), ..Default::default() };
        self.put_pairs(Self::group(period).into_iter().map(pair).collect()).await;
    }

    async fn read_group(&mut self, period: u128) {
        let keys = Self::group(period);
        let ask = if self.rng.chance(1, 2) {
            Ask::RawBatchGet(kvrpcpb::RawBatchGetRequest { keys: keys.clone(), ..Default::default() })
        } else {
            let (start_key, end_key) = (keys[0].clone(), [&keys[keys.len() - 1][..], b"\0"].concat().into());
            let limit = GROUP_KEYS as u32;
            Ask::RawScan(kvrpcpb::RawScanRequest { start_key, end_key, limit, ..Default::default() })
        };
        let Some(found) = self.read(keys.clone(), ask).await else { return };
        let values: BTreeSet<Option<&Bytes>> = keys.iter().map(|key| found.get(key)).collect();
        if values.len() > 1 {
            let what = format!("a batch that was read in part: {values:?} in the group of period {period}");
            self.records.violations.borrow_mut().push(what);
        }
    }
}
