//! Finds the region of a key, sends requests to its leader, and retries when regions or leaders have changed.

use crate::backoff::Backoff;
use crate::keys::{Item, Mode};
use crate::metrics::Counters;
use crate::placement::Placement;
use crate::region::{Region, RegionCache};
use crate::replicas::Replicas;
use crate::transport::{Failure, Transport, within};
use crate::tso::Tso;
use crate::{Error, Options};
use bytes::Bytes;
use futures::StreamExt;
use kontiki_proto::calls::{self, Effect, KvCall, PlacementCall};
use kontiki_proto::{Code, errorpb, kvrpcpb, metapb, pdpb};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Maximum number of concurrent requests to regions of one operation.
const CONCURRENCY_MAX: usize = 16;
/// Maximum number of keys of one request.
pub(crate) const GROUP_KEYS_MAX: usize = 512;
/// Maximum bytes of keys and values of one request (a single larger pair is sent alone): a fraction of the limit of a
/// log entry.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// Beyond every key that a region boundary is made of: only the last region holds it.
const BEYOND_ALL: [u8; 256] = [0xff; 256];

/// The state that a client has of its cluster.
pub(crate) struct Cluster<T: Transport> {
    pub(crate) transport: T,
    pub(crate) options: Options,
    pub(crate) counters: Counters,
    placement: Arc<Placement<T>>,
    tso: Tso<T>,
    regions: RegionCache,
    replicas: Replicas,
    stores: Mutex<BTreeMap<u64, T::Channel>>,
}

/// Why a region did not answer a request.
enum CallError {
    /// The cache has been corrected: look the region up again.
    Moved(RetryDelay, String),
    /// A retry does not help.
    Fatal(Error),
}

/// How long to wait before the next try.
enum RetryDelay {
    /// Not at all: the error named the leader or the region.
    Hinted,
    Usual,
    AtLeast(Duration),
}

impl<T: Transport> Cluster<T> {
    pub(crate) async fn connect(transport: T, endpoints: &[String], options: Options) -> Result<Cluster<T>, Error> {
        let placement = Arc::new(Placement::new(transport.clone(), endpoints, &options)?);
        let mut backoff = Backoff::new(transport.clone(), options.operation_timeout, options.backoff_max);
        placement.discover(&mut backoff).await?;
        let tso = Tso::start(transport.clone(), placement.clone(), options.clone());
        let (counters, regions, replicas, stores) = Default::default();
        Ok(Cluster { transport, options, counters, placement, tso, regions, replicas, stores })
    }

    /// A budget for one operation.
    pub(crate) fn backoff(&self) -> Backoff<T> {
        self.backoff_of(self.options.operation_timeout)
    }

    /// A budget for one operation that has its own limit.
    pub(crate) fn backoff_of(&self, budget: Duration) -> Backoff<T> {
        Backoff::new(self.transport.clone(), budget, self.options.backoff_max)
    }

    pub(crate) async fn timestamp(&self, backoff: &mut Backoff<T>) -> Result<u64, Error> {
        self.counters.timestamps.count();
        self.tso.timestamp(backoff).await
    }

    /// The region that holds a position.
    pub(crate) async fn locate(&self, position: &[u8], backoff: &mut Backoff<T>) -> Result<Arc<Region>, Error> {
        loop {
            if let Some(region) = self.regions.locate(position) {
                return Ok(region);
            }
            let region = self.ask_region(position, false, backoff).await?;
            region.into_iter().for_each(|region| self.regions.insert(region));
            // The answer may be older than what is known of the region: then that one does not have the key any more.
            if self.regions.locate(position).is_none() {
                backoff.pause("the placement driver knows no region for the key").await?;
            }
        }
    }

    /// The region that holds the positions just below an exclusive bound (empty: unbounded).
    pub(crate) async fn locate_below(&self, bound: &[u8], backoff: &mut Backoff<T>) -> Result<Arc<Region>, Error> {
        let position = if bound.is_empty() { &BEYOND_ALL[..] } else { bound };
        loop {
            for previous in [false, true] {
                if let Some(region) = self.regions.locate_below(bound) {
                    return Ok(region);
                }
                let region = self.ask_region(position, previous, backoff).await?;
                region.into_iter().for_each(|region| self.regions.insert(region));
            }
            if let Some(region) = self.regions.locate_below(bound) {
                return Ok(region);
            }
            backoff.pause("the placement driver knows no region below the key").await?;
        }
    }

    async fn ask_region(
        &self,
        position: &[u8],
        previous: bool,
        backoff: &mut Backoff<T>,
    ) -> Result<Option<Region>, Error> {
        self.counters.region_cache_misses.count();
        let request = pdpb::GetRegionRequest { region_key: Bytes::copy_from_slice(position), ..Default::default() };
        let reply = match previous {
            false => self.place::<calls::GetRegion>(request, backoff).await?,
            true => self.place::<calls::GetPrevRegion>(request, backoff).await?,
        };
        Ok(reply.region.and_then(|meta| Region::new(meta, reply.leader)))
    }

    /// Asks the placement driver until a node answers without an error.
    pub(crate) async fn place<C: PlacementCall>(
        &self,
        request: C::Request,
        backoff: &mut Backoff<T>,
    ) -> Result<C::Reply, Error> {
        self.placement.call::<C>(request, backoff).await
    }

    async fn store(&self, id: u64, backoff: &mut Backoff<T>) -> Result<T::Channel, Error> {
        let known = self.stores.lock().get(&id).cloned();
        if let Some(channel) = known {
            return Ok(channel);
        }
        let request = pdpb::GetStoreRequest { store_id: id, ..Default::default() };
        let reply = self.place::<calls::GetStore>(request, backoff).await?;
        let found = reply.store.unwrap_or_default();
        let channel = self.transport.channel(&found.address)?;
        self.replicas.know(id, found.labels);
        self.stores.lock().insert(id, channel.clone());
        Ok(channel)
    }

    /// Sends a request to the region that holds a user key, until it answers.
    pub(crate) async fn call<C: KvCall>(
        &self,
        mode: Mode,
        key: &[u8],
        request: C::Request,
        backoff: &mut Backoff<T>,
    ) -> Result<C::Reply, Error> {
        let position = mode.position(key);
        loop {
            let region = self.locate(&position, backoff).await?;
            match self.try_call::<C>(&region, request.clone(), backoff).await {
                Ok(reply) => return Ok(reply),
                Err(error) => wait_before_retry(error, backoff).await?,
            }
        }
    }

    /// Sends a request to a region; `None` means that the region has to be looked up again.
    pub(crate) async fn call_region<C: KvCall>(
        &self,
        region: &Region,
        request: C::Request,
        backoff: &mut Backoff<T>,
    ) -> Result<Option<C::Reply>, Error> {
        match self.try_call::<C>(region, request, backoff).await {
            Ok(reply) => Ok(Some(reply)),
            Err(error) => wait_before_retry(error, backoff).await.map(|()| None),
        }
    }

    /// Splits items by region, into groups of the size of a request.
    async fn by_region<I: Item>(
        &self,
        mode: Mode,
        items: Vec<I>,
        backoff: &mut Backoff<T>,
    ) -> Result<Vec<(Arc<Region>, Vec<I>)>, Error> {
        let mut groups: Vec<(Arc<Region>, Vec<I>)> = Vec::new();
        let mut open: BTreeMap<u64, (usize, usize)> = BTreeMap::new(); // region -> its last group, and its bytes
        for item in items {
            let region = self.locate(&mode.position(item.key()), backoff).await?;
            let size = item.bytes();
            let fits = open
                .get_mut(&region.id())
                .filter(|(at, bytes)| groups[*at].1.len() < GROUP_KEYS_MAX && *bytes + size <= GROUP_BYTES_MAX);
            match fits {
                Some((at, bytes)) => {
                    groups[*at].1.push(item);
                    *bytes += size;
                }
                None => {
                    open.insert(region.id(), (groups.len(), size));
                    groups.push((region, vec![item]));
                }
            }
        }
        Ok(groups)
    }

    /// The region that holds all of the items, if there is one and they fit into one request.
    pub(crate) async fn one_region<I: Item>(
        &self,
        mode: Mode,
        items: &[I],
        backoff: &mut Backoff<T>,
    ) -> Result<Option<Arc<Region>>, Error> {
        let Some(first) = items.first() else { return Ok(None) };
        if items.len() > GROUP_KEYS_MAX || items.iter().map(Item::bytes).sum::<usize>() > GROUP_BYTES_MAX {
            return Ok(None);
        }
        let region = self.locate(&mode.position(first.key()), backoff).await?;
        let holds_all = items.iter().all(|item| region.contains(&mode.position(item.key())));
        Ok(holds_all.then_some(region))
    }

    /// Sends items to their regions, in as many requests as needed, until each is answered.
    pub(crate) async fn scatter<C: KvCall, I: Item>(
        &self,
        mode: Mode,
        mut items: Vec<I>,
        request: impl Fn(&[I]) -> C::Request,
        backoff: &mut Backoff<T>,
    ) -> Result<Vec<(Vec<I>, C::Reply)>, Error> {
        let mut answers = Vec::new();
        loop {
            let groups = self.by_region(mode, std::mem::take(&mut items), backoff).await?;
            let calls = groups.into_iter().map(|(region, group)| {
                let (request, mut part) = (request(&group), backoff.fork());
                async move {
                    let result = self.try_call::<C>(&region, request, &mut part).await;
                    (group, result, part.is_uncertain())
                }
            });
            let results: Vec<_> = futures::stream::iter(calls).buffer_unordered(CONCURRENCY_MAX).collect().await;
            // Known before the first error is returned: what any part may have written is the operation's.
            let is_whole = results.iter().all(|(_, result, _)| result.is_ok());
            let writes = C::EFFECT == Effect::IdempotencyUnknown;
            let has_written = writes && (!answers.is_empty() || results.iter().any(|(_, result, _)| result.is_ok()));
            if !is_whole && has_written || results.iter().any(|(_, _, uncertain)| *uncertain) {
                backoff.mark_uncertain();
            }
            let mut moved = None;
            for (group, result, _) in results {
                match result {
                    Ok(reply) => answers.push((group, reply)),
                    Err(CallError::Fatal(error @ Error::Undetermined { .. })) => return Err(error),
                    Err(CallError::Fatal(error)) if backoff.is_uncertain() => return Err(backoff.give_up(error)),
                    Err(CallError::Fatal(error)) => return Err(error),
                    Err(error) => {
                        items.extend(group);
                        moved = Some(error);
                    }
                }
            }
            match moved {
                None => return Ok(answers),
                Some(error) => wait_before_retry(error, backoff).await?,
            }
        }
    }

    /// One try. It is the last one if the outcome of a write that must not be repeated is unknown.
    async fn try_call<C: KvCall>(
        &self,
        region: &Region,
        mut request: C::Request,
        backoff: &mut Backoff<T>,
    ) -> Result<C::Reply, CallError> {
        let context = C::context(&mut request);
        if context.replica_read || context.stale_read {
            assert!(C::EFFECT == Effect::NoSideEffects, "only reads are served by replicas that do not lead");
            if let Some(reply) = self.ask_replica::<C>(region, request.clone(), backoff).await? {
                return Ok(reply);
            }
            let context = C::context(&mut request);
            (context.replica_read, context.stale_read) = (false, false);
        }
        let stops = C::EFFECT == Effect::IdempotencyUnknown && !self.options.repeat_uncertain_writes;
        match self.send::<C>(region, request, backoff).await {
            Err(CallError::Moved(_, text)) if stops && backoff.is_uncertain() => {
                Err(CallError::Fatal(backoff.give_up(text)))
            }
            other => other,
        }
    }

    /// A read at one of the region's replicas; `None` if it does not serve it. What it says of itself is no news of the
    /// leader.
    async fn ask_replica<C: KvCall>(
        &self,
        region: &Region,
        request: C::Request,
        backoff: &mut Backoff<T>,
    ) -> Result<Option<C::Reply>, CallError> {
        for store in self.replicas.unknown(region, &self.options) {
            self.store(store, backoff).await.map_err(CallError::Fatal)?;
        }
        let Some(peer) = self.replicas.choose(region, &self.options, self.transport.now()) else { return Ok(None) };
        match self.ask::<C>(region, peer, request, backoff).await? {
            Some(Ok(mut reply)) => match C::take_region_error(&mut reply) {
                None => Ok(Some(reply)),
                Some(error) => match &error.epoch_not_match {
                    Some(mismatch) => {
                        let text = format!("region {}: {}", region.id(), error.message);
                        Err(self.epoch_not_match(region, mismatch, text))
                    }
                    None => Ok(None),
                },
            },
            Some(Err(_)) | None => {
                self.stores.lock().remove(&peer.store_id);
                self.replicas.avoid(peer.store_id, self.transport.now());
                Ok(None)
            }
        }
    }

    /// The answer of a replica; `None` if none comes in time.
    async fn ask<C: KvCall>(
        &self,
        region: &Region,
        peer: metapb::Peer,
        mut request: C::Request,
        backoff: &mut Backoff<T>,
    ) -> Result<Option<Result<C::Reply, Failure>>, CallError> {
        let channel = self.store(peer.store_id, backoff).await.map_err(CallError::Fatal)?;
        let limit = backoff.remaining(self.options.request_timeout);
        let context = C::context(&mut request);
        context.region_id = region.id();
        context.region_epoch = region.meta.region_epoch;
        context.peer = Some(peer);
        context.max_execution_duration_ms = limit.as_millis() as u64;
        context.api_version = kvrpcpb::ApiVersion::V1 as i32;
        context.is_retry_request = backoff.has_failed();
        self.counters.requests.count();
        Ok(within(&self.transport, limit, self.transport.call::<C>(&channel, request)).await)
    }

    async fn send<C: KvCall>(
        &self,
        region: &Region,
        request: C::Request,
        backoff: &mut Backoff<T>,
    ) -> Result<C::Reply, CallError> {
        match self.ask::<C>(region, region.leader, request, backoff).await? {
            Some(Ok(mut reply)) => match C::take_region_error(&mut reply) {
                None => Ok(reply),
                Some(error) => Err(self.region_error(region, &error, C::EFFECT, backoff)),
            },
            Some(Err(failure)) => Err(self.failed(region, failure, C::EFFECT, backoff)),
            None => {
                self.counters.retries_unanswered.count();
                let obstacle = backoff.unanswered(format!("store {} does not answer", region.leader.store_id));
                backoff.answer_lost(C::EFFECT);
                self.unreachable(region);
                Err(CallError::Moved(RetryDelay::Usual, obstacle))
            }
        }
    }

    fn unreachable(&self, region: &Region) {
        self.stores.lock().remove(&region.leader.store_id);
        self.regions.try_next_peer(region);
    }

    fn failed(&self, region: &Region, failure: Failure, effect: Effect, backoff: &mut Backoff<T>) -> CallError {
        let text = format!("store {}: {}", region.leader.store_id, failure.text);
        match failure.code {
            Code::InvalidArgument => CallError::Fatal(Error::Invalid(failure.message)),
            // Of a request that is too large to be decoded.
            Code::OutOfRange => {
                CallError::Fatal(Error::Invalid(format!("the request is refused: {}", failure.message)))
            }
            Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated | Code::DataLoss => {
                CallError::Fatal(Error::Server(text))
            }
            _ => {
                if !failure.is_unsent {
                    backoff.answer_lost(effect);
                }
                self.counters.retries_unreachable.count();
                self.unreachable(region);
                CallError::Moved(RetryDelay::Usual, text)
            }
        }
    }

    fn region_error(
        &self,
        region: &Region,
        error: &errorpb::Error,
        effect: Effect,
        backoff: &mut Backoff<T>,
    ) -> CallError {
        let text = format!("region {}: {}", region.id(), error.message);
        self.count_refusal(error);
        if let Some(not_leader) = &error.not_leader {
            if let Some(leader) = not_leader.leader.as_ref().filter(|leader| leader.store_id != 0) {
                self.regions.set_leader(region.id(), leader);
                return CallError::Moved(RetryDelay::Hinted, text);
            }
            self.regions.try_next_peer(region);
            return CallError::Moved(RetryDelay::Usual, text);
        }
        if let Some(mismatch) = &error.epoch_not_match {
            return self.epoch_not_match(region, mismatch, text);
        }
        if let Some(busy) = &error.server_is_busy {
            return CallError::Moved(RetryDelay::AtLeast(Duration::from_millis(busy.backoff_ms)), text);
        }
        if let Some(large) = &error.raft_entry_too_large {
            // The message names the limit.
            let text = format!("one request holds {} bytes: {}", large.entry_size, error.message);
            return CallError::Fatal(Error::Invalid(text));
        }
        if error.store_not_match.is_some() {
            self.stores.lock().remove(&region.leader.store_id);
        }
        let known_harmless = error.region_not_found.is_some()
            || error.key_not_in_region.is_some()
            || error.store_not_match.is_some()
            || error.disk_full.is_some()
            || error.data_is_not_ready.is_some()
            || error.read_index_not_ready.is_some();
        if !known_harmless {
            // A stale command, or an error this client does not know: the proposal may still be applied.
            backoff.answer_lost(effect);
        }
        if error.disk_full.is_none() && error.read_index_not_ready.is_none() {
            self.regions.remove(region.id());
        }
        CallError::Moved(RetryDelay::Usual, text)
    }

    fn count_refusal(&self, error: &errorpb::Error) {
        let counters = &self.counters;
        let counter = if error.not_leader.is_some() {
            &counters.retries_not_leader
        } else if error.epoch_not_match.is_some() || error.region_not_found.is_some() {
            &counters.retries_region_changed
        } else if error.server_is_busy.is_some() {
            &counters.retries_busy
        } else {
            &counters.retries_other
        };
        counter.count();
    }

    /// Installs the regions that the store named, with the answering store as their leader where it has a peer.
    fn epoch_not_match(&self, region: &Region, mismatch: &errorpb::EpochNotMatch, text: String) -> CallError {
        self.regions.remove(region.id());
        let mut known = false;
        for meta in &mismatch.current_regions {
            let here = meta.peers.iter().find(|peer| peer.store_id == region.leader.store_id).cloned();
            if let Some(current) = Region::new(meta.clone(), here) {
                self.regions.insert(current);
                known = true;
            }
        }
        CallError::Moved(if known { RetryDelay::Hinted } else { RetryDelay::Usual }, text)
    }
}

/// Waits as the error suggests, or returns an error that a retry cannot resolve.
async fn wait_before_retry<T: Transport>(error: CallError, backoff: &mut Backoff<T>) -> Result<(), Error> {
    match error {
        CallError::Fatal(error) => Err(error),
        CallError::Moved(RetryDelay::Hinted, text) => backoff.hinted(text).await,
        CallError::Moved(RetryDelay::Usual, text) => backoff.pause(text).await,
        CallError::Moved(RetryDelay::AtLeast(least), text) => backoff.pause_at_least(least, text).await,
    }
}
