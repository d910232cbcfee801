//! Serving one request at a node, through the node's handle as the real services do.

use super::wire::{Answer, Ask, Pair, Request, Told};
use bytes::Bytes;
use kontiki_engine::{Family, View, WriteBatch};
use kontiki_raftstore::RegionError;
use kontiki_server::driver::{NodeError, NodeHandle, RegionContext};
use prost::Message;

/// Serves `request`; the answer's bytes. Malformed requests are a bug of the simulator.
pub async fn serve(handle: NodeHandle, request: Bytes) -> Bytes {
    let ask = Request::decode(request).ok().and_then(|request| request.ask);
    let told = match ask.expect("the simulator's own requests decode") {
        Ask::Get(key) => get(&handle, key).await,
        Ask::Put(Pair { key, value }) => {
            let mut batch = WriteBatch::new();
            batch.put(Family::DEFAULT, &key, &value);
            write(&handle, &key, batch).await
        }
        Ask::Delete(key) => {
            let mut batch = WriteBatch::new();
            batch.delete(Family::DEFAULT, &key);
            write(&handle, &key, batch).await
        }
        Ask::Placement(request) => match handle.placement(request).await {
            Ok(response) => Told::Placement(response),
            Err(error) => Told::Unknown(error.to_string()),
        },
    };
    Answer::encode(told)
}

/// The data region that holds a key, as this node's table says.
fn context(handle: &NodeHandle, key: &[u8]) -> Option<RegionContext> {
    let regions = handle.status().regions;
    let data = regions
        .iter()
        .find(|status| status.region.space == kontiki_raftstore::Space::Data && status.region.contains(key));
    let region = &data?.region;
    Some(RegionContext::new(region.id, region.epoch))
}

async fn get(handle: &NodeHandle, key: Bytes) -> Told {
    let Some(context) = context(handle, &key) else { return Told::Elsewhere(0) };
    match handle.view(&context).await {
        Ok(view) => match view.get(Family::DEFAULT, &key) {
            Ok(Some(value)) => Told::Value(value),
            Ok(None) => Told::Nothing(()),
            Err(error) => Told::Unknown(error.to_string()),
        },
        Err(error) => refused(error),
    }
}

async fn write(handle: &NodeHandle, key: &[u8], batch: WriteBatch) -> Told {
    let Some(context) = context(handle, key) else { return Told::Elsewhere(0) };
    match handle.propose(&context, batch).await {
        Ok(_) => Told::Done(()),
        Err(error) => refused(error),
    }
}

/// What a client does about an error.
fn refused(error: NodeError) -> Told {
    match error {
        NodeError::Region(RegionError::NotLeader { leader, .. }) => {
            Told::Elsewhere(leader.map_or(0, |peer| peer.store.0))
        }
        NodeError::Region(_) | NodeError::Busy(_) | NodeError::DiskFull => Told::Elsewhere(0),
        other => Told::Unknown(other.to_string()),
    }
}
