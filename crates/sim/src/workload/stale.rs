//! A client that reads the bank as it was: at a timestamp of the past, each key at any node, whether it leads or not.

use super::{BankSettings, Connection, Direct, Records};
use crate::check::snapshot_isolation::{End, Transaction};
use crate::executor::Handle;
use crate::wire::txn_position;
use crate::world::NodeId;
use bytes::Bytes;
use kontiki_client::Client;
use kontiki_env::rng::Rng;
use kontiki_proto::calls::{KvBatchGet, KvGet, KvScan};
use kontiki_proto::kvrpcpb::{BatchGetRequest, Context, GetRequest, ScanRequest};
use std::time::Duration;

/// How long ago it reads at most, in milliseconds.
const PAST_MS_MAX: u64 = 4_000;

/// One such client.
pub struct StaleReader {
    /// The real client, for timestamps and for some of the reads.
    pub client: Client<Connection>,
    /// Its calls to single nodes.
    pub direct: Direct,
    /// The nodes.
    pub nodes: Vec<NodeId>,
    /// The client's number.
    pub number: u64,
    /// The bank.
    pub settings: BankSettings,
    /// Where its reads are recorded.
    pub records: Records,
    /// The executor, for sleeping.
    pub executor: Handle,
    /// Its random generator.
    pub rng: Rng,
}

impl StaleReader {
    /// Reads until it is stopped.
    pub async fn work(mut self) {
        let records = self.records.clone();
        while !records.stop.get() {
            if records.bank_is_open.get() {
                self.read_all().await;
            }
            self.executor.sleep(Duration::from_micros(1 + self.rng.below(200_000))).await;
        }
        records.running.set(records.running.get() - 1);
    }

    /// All accounts at one timestamp, unless a replica refuses.
    async fn read_all(&mut self) -> Option<()> {
        let scale = self.rng.below(12);
        let past_ms = self.rng.below(PAST_MS_MAX >> scale);
        let ts = self.client.timestamp().await.ok()?.saturating_sub(past_ms << super::connection::LOGICAL_BITS);
        let keys = self.settings.accounts();
        let is_direct = self.rng.chance(3, 4);
        let mut reads = Vec::new();
        if is_direct {
            for key in keys {
                let node = *self.rng.pick(&self.nodes)?;
                reads.push((key.clone(), self.read_at(node, key, ts).await?));
            }
        } else {
            let snapshot = self.client.stale_snapshot_at(ts);
            if self.rng.chance(1, 2) {
                let found = snapshot.batch_get(keys.clone()).await.ok()?;
                let value = |key: &Bytes| found.iter().find(|pair| pair.key == *key).map(|pair| pair.value.clone());
                reads.extend(keys.iter().map(|key| (key.clone(), value(key))));
            } else {
                for key in keys {
                    let value = snapshot.get(key.clone()).await.ok()?;
                    reads.push((key, value));
                }
            }
        }
        if is_direct {
            self.records.stale.set(self.records.stale.get() + 1);
        }
        self.records.answered.set(self.records.answered.get() + 1);
        let ended = self.records.history.lock().event();
        // It need not see what was committed before it began, only what was committed at its timestamp.
        let begun = Transaction::begun(self.number, 0, ts);
        self.records.transactions.borrow_mut().push(Transaction { ended, end: End::Committed, reads, ..begun });
        Some(())
    }

    /// One key, at one node alone.
    async fn read_at(&mut self, node: NodeId, key: Bytes, version: u64) -> Option<Option<Bytes>> {
        let (direct, position) = (self.direct.at(node), txn_position(&key));
        let context = Some(Context { stale_read: true, ..Context::default() });
        match self.rng.below(3) {
            0 => {
                let request = GetRequest { context, key, version, ..GetRequest::default() };
                let reply = direct.call::<KvGet>(&position, request).await.ok()?;
                self.expect(reply.error.is_none());
                Some((!reply.not_found).then_some(reply.value))
            }
            1 => {
                let request = BatchGetRequest { context, keys: vec![key], version };
                let mut reply = direct.call::<KvBatchGet>(&position, request).await.ok()?;
                self.expect(reply.error.is_none() && reply.pairs.iter().all(|pair| pair.error.is_none()));
                Some(reply.pairs.pop().map(|pair| pair.value))
            }
            _ => {
                let end_key = [&key[..], b"\0"].concat().into();
                let request =
                    ScanRequest { context, start_key: key, end_key, limit: 2, version, ..ScanRequest::default() };
                let mut reply = direct.call::<KvScan>(&position, request).await.ok()?;
                self.expect(reply.error.is_none() && reply.pairs.iter().all(|pair| pair.error.is_none()));
                Some(reply.pairs.pop().map(|pair| pair.value))
            }
        }
    }

    /// No lock is in the way of a read below everything that can still be committed.
    fn expect(&self, is_read: bool) {
        if !is_read {
            self.records.violations.borrow_mut().push("a stale read met a lock".into());
        }
    }
}
