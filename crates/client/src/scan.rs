//! Scans in pages: the rest of a scan, and scans of raw keys.

use crate::backoff::Backoff;
use crate::cluster::Cluster;
use crate::keys::{KeyPair, Mode, after};
use crate::region::Region;
use crate::replicas::ReadFrom;
use crate::reply::{fewer, pairs_of};
use crate::transport::{Grpc, Transport};
use crate::{Result, keys};
use bytes::Bytes;
use kontiki_proto::calls;
use kontiki_proto::kvrpcpb::{self, Context};
use std::sync::Arc;

/// Maximum number of pairs per request: keeps answers with ordinary values below a few MiB.
const PAGE_PAIRS: usize = 1024;

/// The rest of a scan: a range that shrinks from one side, and a number of pairs.
#[derive(Debug)]
pub(crate) struct Remainder {
    start: Bytes,
    /// Empty: unbounded.
    end: Bytes,
    pairs: usize,
    reverse: bool,
    page_pairs: usize,
    finished: bool,
}

/// The part of a scan that one region answers.
#[derive(Debug)]
pub(crate) struct Part {
    lower: Bytes,
    /// Empty: unbounded.
    upper: Bytes,
    /// Pairs to ask for.
    pub(crate) pairs: usize,
}

impl Part {
    /// Start and end of a request: in a reverse scan the start is the upper one.
    pub(crate) fn bounds(&self, reverse: bool) -> (Bytes, Bytes) {
        let (lower, upper) = (self.lower.clone(), self.upper.clone());
        if reverse { (upper, lower) } else { (lower, upper) }
    }
}

impl Remainder {
    pub(crate) fn new(start: Bytes, end: Bytes, pairs: usize, reverse: bool) -> Remainder {
        Remainder { start, end, pairs, reverse, page_pairs: PAGE_PAIRS, finished: false }
    }

    pub(crate) fn is_reverse(&self) -> bool {
        self.reverse
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished || self.pairs == 0 || (!self.end.is_empty() && self.start >= self.end)
    }

    /// The next region, and the request for it.
    pub(crate) async fn next<T: Transport>(
        &self,
        cluster: &Cluster<T>,
        mode: Mode,
        backoff: &mut Backoff<T>,
    ) -> Result<(Arc<Region>, Part)> {
        assert!(!self.is_finished(), "the caller has asked");
        let pairs = self.pairs.min(self.page_pairs);
        if self.reverse {
            let below = if self.end.is_empty() { Bytes::new() } else { mode.position(&self.end) };
            let region = cluster.locate_below(&below, backoff).await?;
            let lower = keys::boundary(mode, &region.meta.start_key)?.max(self.start.clone());
            return Ok((region, Part { lower, upper: self.end.clone(), pairs }));
        }
        let region = cluster.locate(&mode.position(&self.start), backoff).await?;
        let upper = lesser_end(&keys::boundary(mode, &region.meta.end_key)?, &self.end);
        Ok((region, Part { lower: self.start.clone(), upper, pairs }))
    }

    /// The answer to `part` would have been too large: the next request asks for fewer pairs.
    pub(crate) fn ask_for_fewer(&mut self, part: &Part) -> Result<()> {
        self.page_pairs = fewer(part.pairs)?;
        Ok(())
    }

    /// These pairs of `part` were received; `whole`: there are no others in it.
    pub(crate) fn answered(&mut self, part: Part, pairs: &[KeyPair], whole: bool) {
        assert!(pairs.len() <= self.pairs, "a region returns at most the requested number of pairs");
        self.pairs -= pairs.len();
        match (whole, pairs.last()) {
            (true, _) if self.reverse => {
                self.finished = part.lower <= self.start;
                self.end = part.lower;
            }
            (true, _) => {
                self.finished = part.upper == self.end;
                self.start = part.upper;
            }
            (false, Some(last)) if self.reverse => self.end = last.key.clone(),
            (false, Some(last)) => self.start = after(&last.key),
            (false, None) => {}
        }
    }
}

/// The lesser of two exclusive ends, where empty is unbounded.
pub(crate) fn lesser_end(a: &Bytes, b: &Bytes) -> Bytes {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.min(b).clone(),
    }
}

/// A scan of raw keys that is answered in pages ([`RawClient::scan_pages`](crate::RawClient::scan_pages)). Pages are
/// read one after the other: a key that is written meanwhile may be in a later one.
pub struct RawScan<T: Transport = Grpc> {
    cluster: Arc<Cluster<T>>,
    remainder: Remainder,
    key_only: bool,
    read_from: ReadFrom,
}

impl<T: Transport> RawScan<T> {
    pub(crate) fn new(cluster: Arc<Cluster<T>>, remainder: Remainder, read_from: ReadFrom) -> RawScan<T> {
        RawScan { cluster, remainder, key_only: false, read_from }
    }

    /// Values are left out: they are empty.
    pub fn keys_only(mut self) -> RawScan<T> {
        self.key_only = true;
        self
    }

    /// The next pairs, at least one; `None` at the end. It may be called again after an error, and continues where it
    /// was.
    pub async fn next_page(&mut self) -> Result<Option<Vec<KeyPair>>> {
        // A long scan is many operations: each page has the whole timeout.
        let mut backoff = self.cluster.backoff();
        while !self.remainder.is_finished() {
            let (region, part) = self.remainder.next(&self.cluster, Mode::Raw, &mut backoff).await?;
            let (start_key, end_key) = part.bounds(self.remainder.is_reverse());
            let replica_read = self.read_from == ReadFrom::Replica;
            let request = kvrpcpb::RawScanRequest {
                context: Some(Context { replica_read, ..Default::default() }),
                start_key,
                end_key,
                limit: part.pairs as u32,
                key_only: self.key_only,
                reverse: self.remainder.is_reverse(),
                ..Default::default()
            };
            let Some(reply) = self.cluster.call_region::<calls::RawScan>(&region, request, &mut backoff).await? else {
                continue;
            };
            let Some(pairs) = pairs_of(reply.kvs)? else {
                self.remainder.ask_for_fewer(&part)?;
                continue;
            };
            backoff = backoff.fork();
            let pairs: Vec<KeyPair> =
                pairs.into_iter().map(|pair| KeyPair { key: pair.key, value: pair.value }).collect();
            let whole = pairs.len() < part.pairs;
            self.remainder.answered(part, &pairs, whole);
            if !pairs.is_empty() {
                return Ok(Some(pairs));
            }
        }
        Ok(None)
    }

    /// All pairs that are left.
    pub(crate) async fn all(mut self) -> Result<Vec<KeyPair>> {
        let mut pairs = self.next_page().await?.unwrap_or_default();
        while let Some(page) = self.next_page().await? {
            pairs.extend(page);
        }
        Ok(pairs)
    }
}
