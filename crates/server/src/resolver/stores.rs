//! Calls to the leader of a key's region, wherever it is. This node is called like the others, through its address.

use crate::driver::NodeHandle;
use bytes::Bytes;
use kontiki_placement::{Command, Outcome, RegionByKey, RegionInfo, StoreById};
use kontiki_proto::calls::KvCall;
use kontiki_proto::codec::Codec;
use kontiki_proto::{errorpb, kvrpcpb, metapb};
use kontiki_tls::Credentials;
use kontiki_txn::memcomparable_encode;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

/// How long a call may take, connecting included.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Tries of a call: the leader may have moved since placement was asked.
const TRIES: usize = 3;
/// Between two tries.
const BACKOFF: Duration = Duration::from_millis(200);
/// Addresses to which a connection is kept; beyond it all are closed.
const CHANNELS_MAX: usize = 1_000;

/// Why a call has no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Placement does not know the region, its leader or that one's address at the moment.
    #[error("placement: {0}")]
    Placement(String),
    /// The store did not answer, or not in time.
    #[error("store {address}: {error}")]
    Store {
        /// Where it was called.
        address: String,
        /// What happened.
        error: String,
    },
    /// The store does not serve the region now.
    #[error("region {region}: {error}")]
    Region {
        /// The region.
        region: u64,
        /// The region error.
        error: String,
    },
    /// The transaction protocol refuses.
    #[error("{0}")]
    Key(String),
}

/// The stores of a cluster.
pub trait Stores: Send + Sync + 'static {
    /// Calls the leader of the region that holds a user key.
    fn call<C: KvCall>(
        &self,
        key: &[u8],
        request: C::Request,
    ) -> impl Future<Output = Result<C::Reply, CallError>> + Send;

    /// User keys, grouped by their regions.
    fn by_region(&self, keys: &[Bytes]) -> impl Future<Output = Result<Vec<Vec<Bytes>>, CallError>> + Send;
}

/// The stores behind their addresses.
pub struct Connections {
    node: NodeHandle,
    credentials: Option<Arc<Credentials>>,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl Connections {
    /// As `node` knows them; with its certificates, if it has any.
    pub fn new(node: NodeHandle, credentials: Option<Arc<Credentials>>) -> Connections {
        Connections { node, credentials, channels: Mutex::default() }
    }

    async fn ask(&self, command: Command) -> Result<Outcome, CallError> {
        let answer = self.node.placement(command.into()).await;
        let outcome = answer.map_err(|error| error.to_string());
        let outcome = outcome.and_then(|response| response.into_result().map_err(|refusal| refusal.to_string()));
        outcome.map_err(CallError::Placement)
    }

    async fn region(&self, key: &[u8]) -> Result<RegionInfo, CallError> {
        match self.ask(Command::RegionByKey(RegionByKey { key: memcomparable_encode(key).into() })).await? {
            Outcome::Region(info) => Ok(info),
            _ => Err(CallError::Placement("an answer of a wrong kind".into())),
        }
    }

    async fn address(&self, id: u64) -> Result<String, CallError> {
        match self.ask(Command::StoreById(StoreById { id })).await? {
            Outcome::Store(info) => Ok(info.store.address),
            _ => Err(CallError::Placement("an answer of a wrong kind".into())),
        }
    }

    fn channel(&self, address: &str) -> Result<Channel, CallError> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        let channel = kontiki_tls::connect_lazy(address, self.credentials.as_ref(), |endpoint| {
            endpoint.connect_timeout(CALL_TIMEOUT).tcp_nodelay(true)
        });
        let channel =
            channel.map_err(|error| CallError::Store { address: address.to_owned(), error: error.to_string() })?;
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    async fn try_call<C: KvCall>(&self, key: &[u8], mut request: C::Request) -> Result<C::Reply, CallError> {
        let RegionInfo { region, leader, .. } = self.region(key).await?;
        let leader = leader.ok_or_else(|| CallError::Placement(format!("region {} has no leader", region.id)))?;
        let address = self.address(leader.store_id).await?;
        *C::context(&mut request) = kvrpcpb::Context {
            region_id: region.id,
            region_epoch: Some(metapb::RegionEpoch { conf_ver: region.epoch.conf_ver, version: region.epoch.version }),
            peer: Some(metapb::Peer { id: leader.id, store_id: leader.store_id, ..Default::default() }),
            ..Default::default()
        };
        let failed = |error: String| CallError::Store { address: address.clone(), error };
        let mut client = tonic::client::Grpc::new(self.channel(&address)?);
        let called = async {
            client.ready().await.map_err(|error| failed(error.to_string()))?;
            let (codec, path) = (Codec::<C::Request, C::Reply>::default(), PathAndQuery::from_static(C::PATH));
            client.unary(Request::new(request), path, codec).await.map_err(|status| failed(status.to_string()))
        };
        let answer = tokio::time::timeout(CALL_TIMEOUT, called).await;
        let mut reply = answer.map_err(|_| failed("no answer in time".into()))??.into_inner();
        match C::take_region_error(&mut reply) {
            Some(errorpb::Error { message, .. }) => Err(CallError::Region { region: region.id, error: message }),
            None => Ok(reply),
        }
    }
}

impl Stores for Connections {
    async fn call<C: KvCall>(&self, key: &[u8], request: C::Request) -> Result<C::Reply, CallError> {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            match self.try_call::<C>(key, request.clone()).await {
                Err(error) if tries > 0 => {
                    tracing::debug!(%error, "a call of the resolver failed");
                    tokio::time::sleep(BACKOFF).await;
                }
                answer => return answer,
            }
        }
    }

    async fn by_region(&self, keys: &[Bytes]) -> Result<Vec<Vec<Bytes>>, CallError> {
        let mut groups: BTreeMap<u64, Vec<Bytes>> = BTreeMap::new();
        for key in keys {
            groups.entry(self.region(key).await?.region.id).or_default().push(key.clone());
        }
        Ok(groups.into_values().collect())
    }
}
