//! The client: a connection to a cluster, from which all other objects are created.

use crate::backoff::Backoff;
use crate::cluster::Cluster;
use crate::transport::{Grpc, Transport};
use crate::tso::LOGICAL_BITS;
use crate::txn::{self, LockResolver, Mutation, PessimisticTransaction, Snapshot, Transaction};
use crate::{ClientMetrics, Error, Options, RawClient, Result, TransactionOptions};
use bytes::Bytes;
use futures::future::BoxFuture;
use kontiki_proto::calls::{GetAllStores, ScanRegions};
use kontiki_proto::pdpb;
use std::sync::Arc;
use std::time::Duration;

/// A connection to a cluster. Cheap to clone; all clones share caches and connections. Needs a tokio runtime, unless
/// it is made for another [`Transport`].
pub struct Client<T: Transport = Grpc> {
    pub(crate) cluster: Arc<Cluster<T>>,
    resolver: Arc<LockResolver<T>>,
}

impl<T: Transport> Clone for Client<T> {
    fn clone(&self) -> Client<T> {
        Client { cluster: self.cluster.clone(), resolver: self.resolver.clone() }
    }
}

/// A node, as the placement driver knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// Its id.
    pub id: u64,
    /// host:port of its services.
    pub address: String,
    /// host:port of its HTTP status page; empty if it has none.
    pub status_address: String,
    /// The version of its program; for a store that does not report it, the protocol version that it follows.
    pub version: String,
}

/// A region, as the placement driver knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Its id.
    pub id: u64,
    /// First key, in the region table's encoding.
    pub start_key: Bytes,
    /// End, exclusive; empty is unbounded.
    pub end_key: Bytes,
    /// Stores that keep a replica.
    pub stores: Vec<u64>,
    /// The store of the leader, if known.
    pub leader: Option<u64>,
}

impl Client {
    /// Connects with default [`Options`]. Any node of the cluster can be given; `endpoints` are `host:port`.
    pub async fn connect<E: AsRef<str>>(endpoints: impl IntoIterator<Item = E>) -> Result<Client> {
        Client::connect_with(endpoints, Options::default()).await
    }

    /// Connects. Fails with [`Error::Timeout`] if no endpoint answers within the operation timeout, and with
    /// [`Error::Invalid`] if the files of [`Options::tls`] cannot be used, or the nodes do not agree on TLS.
    pub async fn connect_with<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        options: Options,
    ) -> Result<Client> {
        let grpc = Grpc::new(options.connect_timeout).with_tls(options.tls.clone())?;
        Client::connect_over(grpc, endpoints, options).await
    }
}

impl<T: Transport> Client<T> {
    /// Connects over another transport.
    pub async fn connect_over<E: AsRef<str>>(
        transport: T,
        endpoints: impl IntoIterator<Item = E>,
        options: Options,
    ) -> Result<Client<T>> {
        let endpoints: Vec<String> = endpoints.into_iter().map(|endpoint| endpoint.as_ref().to_string()).collect();
        let cluster = Arc::new(Cluster::connect(transport, &endpoints, options).await?);
        let resolver = Arc::new(LockResolver::new(cluster.clone()));
        Ok(Client { cluster, resolver })
    }

    /// Raw keys: single-key atomic, linearizable, no transactions.
    pub fn raw(&self) -> RawClient<T> {
        RawClient::new(self.cluster.clone())
    }

    /// A new timestamp, greater than every one handed out before.
    pub async fn timestamp(&self) -> Result<u64> {
        self.cluster.timestamp(&mut self.cluster.backoff()).await
    }

    /// Begins an optimistic transaction that reads the current state, with [`Options::transactions`].
    pub async fn begin(&self) -> Result<Transaction<T>> {
        self.begin_with(self.cluster.options.transactions.clone()).await
    }

    /// The same with other options.
    pub async fn begin_with(&self, options: TransactionOptions) -> Result<Transaction<T>> {
        let start_ts = self.timestamp().await?;
        Ok(Transaction::new(self.snapshot(start_ts), options))
    }

    /// Begins a pessimistic transaction, with [`Options::transactions`].
    pub async fn begin_pessimistic(&self) -> Result<PessimisticTransaction<T>> {
        self.begin_pessimistic_with(self.cluster.options.transactions.clone()).await
    }

    /// The same with other options.
    pub async fn begin_pessimistic_with(&self, options: TransactionOptions) -> Result<PessimisticTransaction<T>> {
        let start_ts = self.timestamp().await?;
        Ok(PessimisticTransaction::new(self.snapshot(start_ts), options))
    }

    /// Commits changes in two phases, at timestamps and with a primary key that the caller has chosen: prewrites all
    /// keys at `start_ts`, commits them at `commit_ts`. For programs that have their own source of timestamps, or that
    /// carry out a commit which was decided elsewhere; a repetition with the same arguments succeeds again.
    ///
    /// The timestamps have to be of the same source as those of all other transactions on these keys. Readers have to
    /// be excluded, as this call cannot do it: a snapshot at or above `commit_ts` that is read before the prewrite does
    /// not show the changes, and read again it does. So no client may read the keys at such a timestamp before this
    /// call has returned. Locks expire 3 s after the physical time of `start_ts`: other clients that meet them then
    /// roll the transaction back. Where readers cannot be excluded, [`Client::begin`] is the way to commit.
    ///
    /// [`Error::Invalid`]: nothing was sent. [`Error::CommitTsTooLow`]: see there. [`Error::Undetermined`]: it failed,
    /// and whether an earlier call with the same arguments has committed could not be found out; call again. Other
    /// errors: those of [`Transaction::commit`].
    pub async fn mutate(
        &self,
        primary: impl Into<Bytes>,
        mutations: Vec<Mutation>,
        start_ts: u64,
        commit_ts: u64,
    ) -> Result<()> {
        txn::mutate(self.snapshot(start_ts), primary.into(), mutations, commit_ts).await
    }

    /// Reads the transactional keys as they were at a timestamp.
    pub fn snapshot(&self, ts: u64) -> Snapshot<T> {
        Snapshot::new(self.cluster.clone(), self.resolver.clone(), ts)
    }

    /// Reads the transactional keys as they were `staleness` ago, at any replica: on the stores with most of this
    /// client's labels ([`Options::labels`]), in turn. A replica serves such a read without asking its leader, if it is
    /// known to have all that is ever committed at or below the timestamp; otherwise the leader serves it. Replicas of
    /// regions that are read in this way are behind by little more than the nodes' `safe-ts-interval-ms`, 1 s by
    /// default, and by the age of the oldest transaction that has prewritten keys of the region and not committed yet.
    /// No read waits for a transaction.
    pub async fn stale_snapshot(&self, staleness: Duration) -> Result<Snapshot<T>> {
        let past = u64::try_from(staleness.as_millis()).unwrap_or(u64::MAX).min(u64::MAX >> LOGICAL_BITS);
        Ok(self.stale_snapshot_at(self.timestamp().await?.saturating_sub(past << LOGICAL_BITS)))
    }

    /// The same at a timestamp, which should be in the past.
    pub fn stale_snapshot_at(&self, ts: u64) -> Snapshot<T> {
        self.snapshot(ts).stale()
    }

    /// Runs an optimistic transaction, and runs it again from its beginning after a conflict, at most `tries_max`
    /// times.
    ///
    /// ```no_run
    /// # async fn example(client: kontiki_client::Client) -> Result<(), kontiki_client::Error> {
    /// client.transact(10, |transaction| Box::pin(async move {
    ///     let count = transaction.get("count").await?.map_or(0, |value| value.len());
    ///     transaction.put("count", vec![b'x'; count + 1]);
    ///     Ok(())
    /// })).await
    /// # }
    /// ```
    pub async fn transact<V>(
        &self,
        tries_max: usize,
        mut body: impl for<'a> FnMut(&'a mut Transaction<T>) -> BoxFuture<'a, Result<V>>,
    ) -> Result<V> {
        let mut tries = self.tries(tries_max)?;
        loop {
            let mut transaction = self.begin().await?;
            let outcome = match body(&mut transaction).await {
                Ok(value) => transaction.commit().await.map(|_| value),
                Err(error) => Err(error),
            };
            if let Some(outcome) = tries.end(outcome).await {
                return outcome;
            }
        }
    }

    /// Runs a pessimistic transaction, and runs it again from its beginning after a deadlock, or when it could not get
    /// a lock in time, at most `tries_max` times.
    ///
    /// ```no_run
    /// # async fn example(client: kontiki_client::Client) -> Result<(), kontiki_client::Error> {
    /// client.transact_pessimistic(10, |transaction| Box::pin(async move {
    ///     let count = transaction.get_for_update("count").await?.map_or(0, |value| value.len());
    ///     transaction.put("count", vec![b'x'; count + 1]).await
    /// })).await
    /// # }
    /// ```
    pub async fn transact_pessimistic<V>(
        &self,
        tries_max: usize,
        mut body: impl for<'a> FnMut(&'a mut PessimisticTransaction<T>) -> BoxFuture<'a, Result<V>>,
    ) -> Result<V> {
        let mut tries = self.tries(tries_max)?;
        loop {
            let mut transaction = self.begin_pessimistic().await?;
            let outcome = match body(&mut transaction).await {
                Ok(value) => transaction.commit().await.map(|_| value),
                Err(error) => {
                    // The next try needs the locks.
                    let _ = transaction.rollback().await;
                    Err(error)
                }
            };
            if let Some(outcome) = tries.end(outcome).await {
                return outcome;
            }
        }
    }

    fn tries(&self, tries_max: usize) -> Result<Tries<T>> {
        if tries_max == 0 {
            return Err(Error::Invalid("tries_max = 0 is not accepted: at least 1".to_string()));
        }
        Ok(Tries { left: tries_max, backoff: self.cluster.backoff() })
    }

    /// What this client and its clones have done since they connected.
    pub fn metrics(&self) -> ClientMetrics {
        self.cluster.counters.read()
    }

    /// The nodes of the cluster.
    pub async fn stores(&self) -> Result<Vec<StoreInfo>> {
        let request = pdpb::GetAllStoresRequest::default();
        let stores = self.cluster.place::<GetAllStores>(request, &mut self.cluster.backoff()).await?.stores;
        let info = |store: kontiki_proto::metapb::Store| StoreInfo {
            id: store.id,
            address: store.address,
            status_address: store.status_address,
            version: if store.program_version.is_empty() { store.version } else { store.program_version },
        };
        Ok(stores.into_iter().map(info).collect())
    }

    /// The regions of the cluster, in key order.
    pub async fn regions(&self) -> Result<Vec<RegionInfo>> {
        let request = pdpb::ScanRegionsRequest::default();
        let regions = self.cluster.place::<ScanRegions>(request, &mut self.cluster.backoff()).await?.regions;
        let info = |region: pdpb::Region| {
            let meta = region.region?;
            Some(RegionInfo {
                id: meta.id,
                start_key: meta.start_key,
                end_key: meta.end_key,
                stores: meta.peers.iter().map(|peer| peer.store_id).collect(),
                leader: region.leader.map(|leader| leader.store_id).filter(|store| *store != 0),
            })
        };
        Ok(regions.into_iter().filter_map(info).collect())
    }
}

/// The tries of a transaction.
struct Tries<T> {
    left: usize,
    backoff: Backoff<T>,
}

impl<T: Transport> Tries<T> {
    /// The caller's result after a try; `None`: it waited, and there is another one.
    async fn end<V>(&mut self, outcome: Result<V>) -> Option<Result<V>> {
        self.left -= 1;
        match outcome {
            Err(error) if error.is_transaction_retryable() && self.left > 0 => {
                self.backoff.pause(&error).await.is_err().then_some(Err(error))
            }
            other => Some(other),
        }
    }
}
