//! Calls by path, with encoded messages: the services without gRPC's transport. The simulator's nodes are served this
//! way.

use crate::api::Node;
use crate::kv::Kv;
use crate::pd::Pd;
use bytes::Bytes;
use kontiki_proto::pdpb;
use prost::Message;
use std::future::Future;
use tonic::Status;

/// The path of the stream of timestamps. Here each of its requests is a call.
pub const TSO_PATH: &str = "/pdpb.PD/Tso";

/// The services of a node. Cheap to clone.
#[derive(Clone)]
pub struct EncodedCalls<N: Node> {
    kv: Kv<N>,
    pd: Pd<N>,
}

macro_rules! serve_kv {
    ($($call:ident, $function:ident, $handler:ident, $request:ident, $reply:ident, $path:literal, $effect:ident,
       $($errors:ident)+;)+) => {
        impl<N: Node> EncodedCalls<N> {
            async fn serve_kv(&self, path: &str, request: Bytes) -> Result<Bytes, Status> {
                match path {
                    $($path => reply_to(request, async |request| Ok(self.kv.$handler(request).await)).await,)+
                    _ => Err(Status::unimplemented(path)),
                }
            }
        }
    };
}

macro_rules! serve_placement {
    ($($call:ident, $function:ident, $handler:ident, $request:ident, $reply:ident, $path:literal, $effect:ident,
       $($errors:ident)+;)+) => {
        impl<N: Node> EncodedCalls<N> {
            async fn serve_placement(&self, path: &str, request: Bytes) -> Result<Bytes, Status> {
                match path {
                    $($path => reply_to(request, async |request| Ok(self.pd.$handler(request).await?)).await,)+
                    TSO_PATH => {
                        reply_to(request, async |request: pdpb::TsoRequest| Ok(self.pd.tso(request).await?)).await
                    }
                    _ => self.serve_kv(path, request).await,
                }
            }
        }
    };
}

kontiki_proto::for_each_kv_call!(serve_kv);
kontiki_proto::for_each_placement_call!(serve_placement);

impl<N: Node> EncodedCalls<N> {
    /// Serves `kv` and `pd`.
    pub fn new(kv: Kv<N>, pd: Pd<N>) -> EncodedCalls<N> {
        EncodedCalls { kv, pd }
    }

    /// The key-value service.
    pub fn kv(&self) -> &Kv<N> {
        &self.kv
    }

    /// The encoded reply to an encoded request. Fails as gRPC does: UNIMPLEMENTED for a path that is not in the table
    /// of calls, INTERNAL for a request that cannot be decoded.
    pub async fn serve(&self, path: &str, request: Bytes) -> Result<Bytes, Status> {
        self.serve_placement(path, request).await
    }
}

async fn reply_to<Q, A, F>(request: Bytes, handle: impl FnOnce(Q) -> F) -> Result<Bytes, Status>
where
    Q: Message + Default,
    A: Message,
    F: Future<Output = Result<A, Status>>,
{
    let request = Q::decode(request).map_err(|error| Status::internal(error.to_string()))?;
    Ok(handle(request).await?.encode_to_vec().into())
}

#[cfg(test)]
#[path = "encoded_test.rs"]
mod tests;
