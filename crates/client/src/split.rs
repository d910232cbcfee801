//! Splitting regions at keys.

use crate::backoff::Backoff;
use crate::cluster::Cluster;
use crate::keys::{boundary_behind, encode};
use crate::transport::Transport;
use crate::{Client, Error, RawClient, Result};
use bytes::Bytes;
use kontiki_proto::calls::SplitRegion;
use kontiki_proto::kvrpcpb::SplitRegionRequest;

/// Longest boundary of a region, encoded.
const BOUNDARY_BYTES_MAX: usize = 4 << 10;

impl<T: Transport> Client<T> {
    /// Makes a region begin at each of these keys of transactions: the regions that hold them are split there. A key at
    /// which a region begins already changes nothing. Each key's split is atomic; an error may leave some of them made.
    pub async fn split<K: Into<Bytes>>(&self, keys: impl IntoIterator<Item = K>) -> Result<()> {
        split(&self.cluster, keys.into_iter().map(Into::into), encode, false).await
    }
}

impl<T: Transport> RawClient<T> {
    /// Makes a region begin behind the raw keys that begin with the first eight bytes of each of these keys, as
    /// [`Client::split`] does. (A boundary is always the encoding of a key, and raw keys are not encoded.)
    pub async fn split<K: Into<Bytes>>(&self, keys: impl IntoIterator<Item = K>) -> Result<()> {
        split(&self.cluster, keys.into_iter().map(Into::into), boundary_behind, true).await
    }
}

async fn split<T: Transport>(
    cluster: &Cluster<T>,
    keys: impl Iterator<Item = Bytes>,
    boundary: fn(&[u8]) -> Vec<u8>,
    is_raw_kv: bool,
) -> Result<()> {
    let mut backoff = cluster.backoff();
    for key in keys {
        split_at(cluster, boundary(&key), key, is_raw_kv, &mut backoff).await?;
    }
    Ok(())
}

/// The region is found by the boundary: a raw key itself may lie in the one before.
async fn split_at<T: Transport>(
    cluster: &Cluster<T>,
    boundary: Vec<u8>,
    key: Bytes,
    is_raw_kv: bool,
    backoff: &mut Backoff<T>,
) -> Result<()> {
    if key.is_empty() || boundary.len() > BOUNDARY_BYTES_MAX {
        let what = format!("a split key of {} bytes: accepted are 1 byte to {BOUNDARY_BYTES_MAX} encoded", key.len());
        return Err(Error::Invalid(what));
    }
    loop {
        let region = cluster.locate(&boundary, backoff).await?;
        let request = SplitRegionRequest { split_keys: vec![key.clone()], is_raw_kv, ..Default::default() };
        if cluster.call_region::<SplitRegion>(&region, request, backoff).await?.is_some() {
            return Ok(());
        }
    }
}
