//! Single calls to one node, whether it leads or not: a client that follows the leader never asks a deposed one.

use super::Connection;
use super::connection::LOGICAL_BITS;
use crate::world::NodeId;
use futures::future::{Either, select};
use kontiki_client::transport::{Timestamps, Transport};
use kontiki_proto::calls::{Call, KvCall};
use kontiki_proto::metapb;
use kontiki_proto::pdpb::TsoRequest;
use kontiki_raftstore::RegionId;
use prost::Message;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

/// How long a call waits: it must not miss the moment at which its node answers again.
const ANSWER_WAIT: Duration = Duration::from_millis(300);
/// The same for a hasty client.
const HASTY_ANSWER_WAIT: Duration = Duration::from_millis(60);

/// Why a call has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It certainly had no effect.
    Refused,
    /// It may have had one.
    Unknown,
}

/// Calls to one node.
#[derive(Clone)]
pub struct Direct {
    connection: Connection,
    node: NodeId,
    answer_wait: Duration,
}

impl Direct {
    /// Calls to `node`.
    pub fn new(connection: Connection, node: NodeId) -> Direct {
        Direct { connection, node, answer_wait: ANSWER_WAIT }
    }

    /// Gives up soon.
    pub fn hasty(self) -> Direct {
        Direct { answer_wait: HASTY_ANSWER_WAIT, ..self }
    }

    /// The connection below.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The result of `work`, unless it takes longer than the client waits.
    async fn within<R>(&self, work: impl Future<Output = R>) -> Option<R> {
        match select(pin!(work), self.connection.executor().sleep(self.answer_wait)).await {
            Either::Left((result, _)) => Some(result),
            Either::Right(_) => None,
        }
    }

    /// Makes a call.
    pub async fn ask<C: Call>(&self, request: C::Request) -> Result<C::Reply, NoAnswer> {
        let answer = self.connection.exchange(self.node, C::PATH, request.encode_to_vec().into());
        match self.within(answer).await {
            Some(Ok(reply)) => Ok(C::Reply::decode(reply).expect("nodes' replies decode")),
            Some(Err(failure)) if failure.is_unsent => Err(NoAnswer::Refused),
            Some(Err(_)) | None => Err(NoAnswer::Unknown),
        }
    }

    /// The last of `count` timestamps, which the connection records.
    pub async fn timestamps(&self, count: u32) -> Option<u64> {
        let asked = async {
            let mut stream = self.connection.timestamps(&self.node).await.ok()?;
            stream.ask(TsoRequest { count, ..Default::default() }).await.ok()?.timestamp
        };
        let last = self.within(asked).await.flatten()?;
        Some((last.physical as u64) << LOGICAL_BITS | last.logical as u64)
    }

    /// Makes a call to the node's replica of `region`. The first regions of a cluster never change here.
    pub async fn call<C: KvCall>(&self, region: RegionId, mut request: C::Request) -> Result<C::Reply, NoAnswer> {
        let context = C::context(&mut request);
        context.region_id = region.0;
        context.region_epoch = Some(metapb::RegionEpoch { conf_ver: 1, version: 1 });
        let (id, store_id) = (region.0 * 1_000 + self.node, self.node);
        context.peer = Some(metapb::Peer { id, store_id, ..Default::default() });
        let mut reply = self.ask::<C>(request).await?;
        match C::take_region_error(&mut reply) {
            None => Ok(reply),
            // Also returned for a write whose outcome is unknown.
            Some(error) if error.stale_command.is_some() => Err(NoAnswer::Unknown),
            Some(_) => Err(NoAnswer::Refused),
        }
    }
}
