//! `keyspacepb.Keyspace`.

use super::RequestMetrics;
use super::pd::REQUEST_BYTES_MAX;
use crate::api::Node;
use crate::pd::{Pd, PdError};
use crate::stopping::{Stage, Stopping};
use futures::{Stream, StreamExt};
use kontiki_proto::keyspacepb::keyspace_server::{Keyspace as KeyspaceTrait, KeyspaceServer};
use kontiki_proto::keyspacepb::{
    CreateKeyspaceRequest, CreateKeyspaceResponse, GetAllKeyspacesRequest, GetAllKeyspacesResponse, KeyspaceMeta,
    LoadKeyspaceRequest, LoadKeyspaceResponse, UpdateKeyspaceStateRequest, UpdateKeyspaceStateResponse,
    WatchKeyspacesRequest, WatchKeyspacesResponse,
};
use kontiki_proto::pdpb;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

/// How often a watch looks for changes: keyspaces change rarely, and nothing waits for the news.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The requests about keyspaces.
pub(super) struct KeyspaceService<N: Node> {
    pd: Pd<N>,
    metrics: RequestMetrics,
    stopping: Stopping,
}

impl<N: Node> KeyspaceService<N> {
    /// Serves `pd`.
    pub fn new(pd: Pd<N>, metrics: RequestMetrics, stopping: Stopping) -> KeyspaceService<N> {
        KeyspaceService { pd, metrics, stopping }
    }

    /// The tonic service.
    pub fn into_server(self) -> KeyspaceServer<KeyspaceService<N>> {
        KeyspaceServer::new(self)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .accept_compressed(CompressionEncoding::Gzip)
    }
}

#[tonic::async_trait]
impl<N: Node> KeyspaceTrait for KeyspaceService<N> {
    type WatchKeyspacesStream = Pin<Box<dyn Stream<Item = Result<WatchKeyspacesResponse, Status>> + Send>>;

    async fn load_keyspace(
        &self,
        request: Request<LoadKeyspaceRequest>,
    ) -> Result<Response<LoadKeyspaceResponse>, Status> {
        let answer = self.pd.load_keyspace(request.into_inner());
        Ok(Response::new(self.metrics.time("load_keyspace", answer).await?))
    }

    async fn create_keyspace(
        &self,
        request: Request<CreateKeyspaceRequest>,
    ) -> Result<Response<CreateKeyspaceResponse>, Status> {
        let answer = self.pd.create_keyspace(request.into_inner());
        Ok(Response::new(self.metrics.time("create_keyspace", answer).await?))
    }

    async fn update_keyspace_state(
        &self,
        request: Request<UpdateKeyspaceStateRequest>,
    ) -> Result<Response<UpdateKeyspaceStateResponse>, Status> {
        let answer = self.pd.update_keyspace_state(request.into_inner());
        Ok(Response::new(self.metrics.time("update_keyspace_state", answer).await?))
    }

    async fn get_all_keyspaces(
        &self,
        request: Request<GetAllKeyspacesRequest>,
    ) -> Result<Response<GetAllKeyspacesResponse>, Status> {
        let answer = self.pd.get_all_keyspaces(request.into_inner());
        Ok(Response::new(self.metrics.time("get_all_keyspaces", answer).await?))
    }

    async fn watch_keyspaces(
        &self,
        request: Request<WatchKeyspacesRequest>,
    ) -> Result<Response<Self::WatchKeyspacesStream>, Status> {
        let watch = Watch { pd: self.pd.clone(), header: request.into_inner().header, known: None };
        let news = futures::stream::try_unfold(watch, |mut watch| async move {
            let changed = watch.next().await?;
            Ok(Some((changed, watch)))
        });
        Ok(Response::new(Box::pin(news.take_until(self.stopping.reached(Stage::Clients)))))
    }
}

/// A watch in progress.
struct Watch<N: Node> {
    pd: Pd<N>,
    header: Option<pdpb::RequestHeader>,
    /// What the client knows; `None` before the first message.
    known: Option<BTreeMap<u32, KeyspaceMeta>>,
}

impl<N: Node> Watch<N> {
    /// All keyspaces at first, and then those that have changed, once some have.
    async fn next(&mut self) -> Result<WatchKeyspacesResponse, PdError> {
        loop {
            if self.known.is_some() {
                tokio::time::sleep(WATCH_INTERVAL).await;
            }
            let request = GetAllKeyspacesRequest { header: self.header, start_id: 0, limit: 0 };
            let GetAllKeyspacesResponse { header, mut keyspaces } = self.pd.get_all_keyspaces(request).await?;
            let is_first = self.known.is_none();
            let known = self.known.get_or_insert_default();
            keyspaces.retain(|keyspace| known.get(&keyspace.id) != Some(keyspace));
            known.extend(keyspaces.iter().map(|keyspace| (keyspace.id, keyspace.clone())));
            if is_first || !keyspaces.is_empty() {
                return Ok(WatchKeyspacesResponse { header, keyspaces });
            }
        }
    }
}

#[cfg(test)]
#[path = "keyspace_test.rs"]
mod tests;
