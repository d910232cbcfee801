//! Splitting regions at keys.

use crate::cluster::Cluster;
use crate::transport::Transport;
use crate::{Client, Error, RawClient, Result};
use bytes::Bytes;
use kontiki_env::memcomparable::{boundary_behind, encode};
use kontiki_proto::calls::SplitRegion;
use kontiki_proto::kvrpcpb::SplitRegionRequest;
use std::collections::BTreeMap;

/// Longest boundary of a region, encoded.
const BOUNDARY_BYTES_MAX: usize = 4 << 10;
/// Most keys of one request.
const KEYS_MAX: usize = 64;

impl<T: Transport> Client<T> {
    /// Makes a region begin at each of these keys of transactions: the regions that hold them are split there. A key at
    /// which a region begins already changes nothing. Up to 64 keys of one region are one atomic split; an error may
    /// leave some of the splits made.
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
    let mut boundaries = BTreeMap::new();
    for key in keys {
        let boundary = boundary(&key);
        if key.is_empty() || boundary.len() > BOUNDARY_BYTES_MAX {
            let bytes = key.len();
            let what = format!("a split key of {bytes} bytes: accepted are 1 byte to {BOUNDARY_BYTES_MAX} encoded");
            return Err(Error::Invalid(what));
        }
        boundaries.insert(boundary, key);
    }
    let mut backoff = cluster.backoff();
    while let Some((first, _)) = boundaries.first_key_value() {
        // Raw keys themselves may lie in the region before.
        let region = cluster.locate(first, &mut backoff).await?;
        let here = boundaries.iter().take_while(|(boundary, _)| region.contains(boundary)).take(KEYS_MAX);
        let (done, split_keys): (Vec<_>, Vec<_>) = here.map(|(boundary, key)| (boundary.clone(), key.clone())).unzip();
        let request = SplitRegionRequest { split_keys, is_raw_kv, ..Default::default() };
        if cluster.call_region::<SplitRegion>(&region, request, &mut backoff).await?.is_some() {
            done.iter().for_each(|boundary| _ = boundaries.remove(boundary));
        }
    }
    Ok(())
}
