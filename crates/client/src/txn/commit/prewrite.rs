//! Prewrites: requests, and the locks of others that they meet.

use super::protocol::Protocol;
use super::{Committer, Prewritten};
use crate::backoff::Backoff;
use crate::keys::{Item, Mode};
use crate::reply::locks_of;
use crate::transport::Transport;
use crate::{Error, Result};
use bytes::Bytes;
use kontiki_proto::calls::KvPrewrite;
use kontiki_proto::kvrpcpb::prewrite_request::PessimisticAction;
use kontiki_proto::kvrpcpb::{LockInfo, Mutation, Op, PrewriteRequest};
use std::time::Duration;

/// Time to live of locks, as other clients of the protocol choose it: 3 s, and 6 s times the square root of the size in
/// MiB for larger transactions, at most 20 s.
const TTL_MS_BASE: u64 = 3_000;
const TTL_MS_PER_SQRT_MIB: f64 = 6_000.0;
const TTL_MS_MAX: u64 = 20_000;
/// How long a transaction waits for a lock whose owner may wait for one of its own: for that of an older transaction,
/// in case that one fails, and for a pessimistic one, whose owner locks more keys. It is short, because the
/// transaction's own locks block others meanwhile.
const SHORT_WAIT: Duration = Duration::from_millis(20);

impl<T: Transport> Committer<T> {
    /// Locks all keys.
    pub(super) async fn prewrite(&self, protocol: &Protocol, backoff: &mut Backoff<T>) -> Result<Prewritten> {
        let mut protocol = *protocol;
        let (mut pending, mut waiting, mut commit_ts) = (self.mutations.clone(), None, 0);
        while !pending.is_empty() {
            let request = |mutations: &[Mutation]| self.prewrite_request(mutations, &protocol);
            let cluster = &self.snapshot.cluster;
            let replies =
                cluster.scatter::<KvPrewrite, _>(Mode::Txn, std::mem::take(&mut pending), request, backoff).await?;
            let (mut locks, mut declined) = (Vec::new(), false);
            for (mutations, reply) in replies {
                if !reply.errors.is_empty() {
                    locks.extend(locks_of(reply.errors)?);
                    pending.extend(mutations);
                    continue;
                }
                declined |= reply.min_commit_ts == 0 && mutations.iter().any(locks_key);
                commit_ts = commit_ts.max(reply.min_commit_ts);
            }
            if declined && protocol.async_commit {
                // One ordinary lock, and the primary alone decides.
                protocol.async_commit = false;
                self.snapshot.cluster.counters.commits_declined.count();
            }
            if !locks.is_empty() {
                self.clear(&locks, &mut waiting, backoff).await?;
            }
        }
        if !protocol.async_commit {
            // Of regions that have not declined.
            return Ok(Prewritten::Locked { least: commit_ts });
        }
        if commit_ts <= self.start_ts() {
            let start_ts = self.start_ts();
            return Err(Error::Server(format!("an async commit of transaction {start_ts} got timestamp {commit_ts}")));
        }
        Ok(Prewritten::Decided(commit_ts))
    }

    pub(super) fn prewrite_request(&self, mutations: &[Mutation], protocol: &Protocol) -> PrewriteRequest {
        let has_primary = mutations.iter().any(|mutation| mutation.key == self.primary);
        let secondaries = || self.keys.iter().filter(|key| **key != self.primary).cloned().collect();
        let use_async_commit = protocol.async_commit && !protocol.one_phase;
        let held = PessimisticAction::DoPessimisticCheck as i32;
        let for_update_ts = self.pessimistic.as_ref().map(|(for_update_ts, _)| *for_update_ts);
        PrewriteRequest {
            mutations: mutations.to_vec(),
            primary_lock: self.primary.clone(),
            start_version: self.start_ts(),
            lock_ttl: self.ttl_ms(),
            pessimistic_actions: for_update_ts.map_or(Vec::new(), |_| vec![held; mutations.len()]),
            txn_size: self.keys.len() as u64,
            for_update_ts: for_update_ts.unwrap_or(0),
            min_commit_ts: protocol.min_commit_ts,
            use_async_commit,
            secondaries: if use_async_commit && has_primary { secondaries() } else { Vec::<Bytes>::new() },
            try_one_pc: protocol.one_phase,
            max_commit_ts: protocol.max_commit_ts,
            ..Default::default()
        }
    }

    /// Resolves locks of others, or waits for them; `waiting` is since when.
    pub(super) async fn clear(
        &self,
        locks: &[LockInfo],
        waiting: &mut Option<Duration>,
        backoff: &mut Backoff<T>,
    ) -> Result<()> {
        // 0: pushing a lock does not help a writer, it has to wait for it.
        let resolved = self.snapshot.resolver.resolve_all(locks, 0, &mut backoff.aside()).await?;
        if let Some(lock) = resolved.alive() {
            self.may_wait(lock, *waiting.get_or_insert(self.now()))?;
        }
        resolved.wait(backoff).await.map(drop)
    }

    /// Two transactions that each hold a key that the other one needs must not wait for each other: the younger one
    /// soon gives up. It loses little: if the other one commits, its commit timestamp is above this transaction's
    /// start, which is a conflict.
    fn may_wait(&self, lock: &LockInfo, since: Duration) -> Result<()> {
        let may_wait_for_this = lock.lock_version < self.start_ts() || lock.lock_type == Op::PessimisticLock as i32;
        if may_wait_for_this && self.now().saturating_sub(since) >= SHORT_WAIT {
            return Err(Error::Conflict { key: lock.key.clone(), conflict_commit_ts: 0 });
        }
        Ok(())
    }

    /// It counts from the start timestamp, so the time since then is added.
    fn ttl_ms(&self) -> u64 {
        let bytes: usize = self.mutations.iter().map(Item::bytes).sum();
        let by_size = (TTL_MS_PER_SQRT_MIB * (bytes as f64 / f64::from(1 << 20)).sqrt()) as u64;
        let ttl_ms = match self.pessimistic {
            None => by_size.clamp(TTL_MS_BASE, TTL_MS_MAX),
            Some(_) => self.options.lock_ttl.as_millis() as u64,
        };
        ttl_ms + self.now().saturating_sub(self.began).as_millis() as u64
    }

    fn now(&self) -> Duration {
        self.snapshot.cluster.transport.now()
    }
}

fn locks_key(mutation: &Mutation) -> bool {
    mutation.op != Op::CheckNotExists as i32
}
