//! Keeps the locks of a pessimistic transaction alive, and releases them when it is dropped.
//!
//! One task per transaction, from its first lock on. Every third of the time to live it sends a heartbeat for the
//! primary's lock, and after a failure sooner: the other locks follow the primary. It also releases the locks of a
//! transaction that is dropped, because it runs where it may: a `drop` may happen outside of the runtime.

use crate::Result;
use crate::backoff::Backoff;
use crate::cluster::Cluster;
use crate::keys::Mode;
use crate::reply::error_of;
use crate::transport::Transport;
use bytes::Bytes;
use futures::future::{Either, select};
use kontiki_proto::calls::{KvPessimisticRollback, KvTxnHeartBeat};
use kontiki_proto::kvrpcpb::{PessimisticRollbackRequest, TxnHeartBeatRequest};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A transaction that is neither ended nor dropped by then is forgotten, and its locks expire: others must not wait for
/// it for ever.
const LIFE_MAX: Duration = Duration::from_secs(60 * 60);
/// A release that is not done by then is left to the clients that meet the locks.
const RELEASE_BUDGET: Duration = Duration::from_secs(5);
/// Shortest time between two heartbeats.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The transaction whose locks are kept alive.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) primary: Bytes,
    pub(super) start_ts: u64,
    /// On the transport's clock.
    pub(super) began: Duration,
    pub(super) ttl: Duration,
}

/// The locks to be released.
struct Release {
    keys: Vec<Bytes>,
    for_update_ts: u64,
}

/// The task's end: dropping it ends the heartbeats, and releases nothing.
pub(super) struct Keeper {
    end: oneshot::Sender<Release>,
}

impl Keeper {
    pub(super) fn start<T: Transport>(cluster: &Arc<Cluster<T>>, kept: Kept) -> Keeper {
        let (end, ended) = oneshot::channel();
        cluster.transport.spawn(keep(cluster.clone(), kept, ended));
        Keeper { end }
    }

    /// Ends the heartbeats, and releases locks in the background.
    pub(super) fn release(self, keys: Vec<Bytes>, for_update_ts: u64) {
        // Without a task there is no runtime any more: the locks expire.
        let _ = self.end.send(Release { keys, for_update_ts });
    }
}

async fn keep<T: Transport>(cluster: Arc<Cluster<T>>, kept: Kept, mut ended: oneshot::Receiver<Release>) {
    let interval = (kept.ttl / 3).max(INTERVAL_MIN);
    let interval_after_failure = (kept.ttl / 10).max(INTERVAL_MIN);
    let mut wait = interval;
    while cluster.transport.now().saturating_sub(kept.began) < LIFE_MAX {
        let pause = wait;
        let beat = pin!(async {
            cluster.transport.sleep(pause).await;
            match heartbeat(&cluster, &kept, interval).await {
                Ok(()) => interval,
                Err(error) => {
                    tracing::debug!(start_ts = kept.start_ts, %error, "a heartbeat failed");
                    interval_after_failure
                }
            }
        });
        match select(&mut ended, beat).await {
            Either::Left((Ok(Release { keys, for_update_ts }), _)) => {
                if let Err(error) = release(&cluster, kept.start_ts, for_update_ts, keys).await {
                    tracing::debug!(start_ts = kept.start_ts, %error, "some locks are left until they expire");
                }
                return;
            }
            Either::Left((Err(_), _)) => return,
            Either::Right((next, _)) => wait = next,
        }
    }
}

/// A lock that is not there is no failure: it may not be there yet, or is lost, which the commit finds out.
async fn heartbeat<T: Transport>(cluster: &Cluster<T>, kept: &Kept, budget: Duration) -> Result<()> {
    let age = cluster.transport.now().saturating_sub(kept.began);
    let request = TxnHeartBeatRequest {
        primary_lock: kept.primary.clone(),
        start_version: kept.start_ts,
        advise_lock_ttl: (age + kept.ttl).as_millis() as u64,
        ..Default::default()
    };
    let mut backoff = cluster.backoff_of(budget);
    let reply = cluster.call::<KvTxnHeartBeat>(Mode::Txn, &kept.primary, request, &mut backoff).await?;
    match reply.error {
        None => cluster.counters.heartbeats.count(),
        Some(error) if error.txn_not_found.is_some() => {}
        Some(error) => return Err(error_of(error)),
    }
    Ok(())
}

/// Releases pessimistic locks of a transaction that were taken up to `for_update_ts`. Keys that it has not locked do
/// not matter.
pub(super) async fn release<T: Transport>(
    cluster: &Cluster<T>,
    start_ts: u64,
    for_update_ts: u64,
    keys: Vec<Bytes>,
) -> Result<()> {
    release_within(cluster, start_ts, for_update_ts, keys, &mut cluster.backoff_of(RELEASE_BUDGET)).await
}

/// The same as a part of an operation.
pub(super) async fn release_within<T: Transport>(
    cluster: &Cluster<T>,
    start_ts: u64,
    for_update_ts: u64,
    keys: Vec<Bytes>,
    backoff: &mut Backoff<T>,
) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let request = |keys: &[Bytes]| PessimisticRollbackRequest {
        start_version: start_ts,
        for_update_ts,
        keys: keys.to_vec(),
        ..Default::default()
    };
    let replies = cluster.scatter::<KvPessimisticRollback, _>(Mode::Txn, keys, request, backoff).await?;
    let mut errors = replies.into_iter().flat_map(|(_, reply)| reply.errors);
    errors.next().map_or(Ok(()), |error| Err(error_of(error)))
}
