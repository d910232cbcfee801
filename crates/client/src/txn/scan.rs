//! Scans at a timestamp, in pages.

use super::Snapshot;
use crate::keys::{KeyPair, Mode};
use crate::reply::{locks_of, too_large};
use crate::scan::Remainder;
use crate::transport::{Grpc, Transport};
use crate::{Error, Result};
use kontiki_proto::calls::KvScan;
use kontiki_proto::kvrpcpb::{self, KvPair, LockInfo};
use tokio::sync::oneshot;

/// A page; `None` at the end.
type Page = Result<Option<Vec<KeyPair>>>;

/// A scan of transactional keys that is answered in pages ([`Snapshot::scan_pages`]): all pages show the snapshot's
/// state.
pub struct SnapshotScan<T: Transport = Grpc> {
    is_prefetching: bool,
    next: Next<T>,
}

/// Where the next page comes from.
enum Next<T: Transport> {
    Here(Pages<T>),
    /// From a task that reads it ahead, and gives the rest of the scan back.
    Ahead(oneshot::Receiver<(Pages<T>, Page)>),
    /// That task was dropped with its runtime.
    Lost,
}

impl<T: Transport> SnapshotScan<T> {
    pub(super) fn new(snapshot: Snapshot<T>, remainder: Remainder) -> SnapshotScan<T> {
        SnapshotScan { is_prefetching: false, next: Next::Here(Pages { snapshot, remainder }) }
    }

    /// From the first page on, the next one is requested while the caller works on the present one: at most one page is
    /// read in vain, and kept in memory.
    pub fn prefetch(mut self) -> SnapshotScan<T> {
        self.is_prefetching = true;
        self
    }

    /// The next pairs, at least one; `None` at the end. It may be called again after an error, and continues where it
    /// was.
    pub async fn next_page(&mut self) -> Page {
        let page = match &mut self.next {
            Next::Here(pages) => pages.next().await,
            Next::Ahead(page) => match page.await {
                Ok((pages, page)) => {
                    self.next = Next::Here(pages);
                    page
                }
                Err(_) => {
                    self.next = Next::Lost;
                    return self.lost();
                }
            },
            Next::Lost => return self.lost(),
        };
        if self.is_prefetching && matches!(page, Ok(Some(_))) {
            self.read_ahead();
        }
        page
    }

    fn read_ahead(&mut self) {
        match std::mem::replace(&mut self.next, Next::Lost) {
            Next::Here(mut pages) if !pages.remainder.is_finished() => {
                let (sender, receiver) = oneshot::channel();
                let transport = pages.snapshot.cluster.transport.clone();
                transport.spawn(async move {
                    let page = pages.next().await;
                    // The caller may have stopped.
                    let _ = sender.send((pages, page));
                });
                self.next = Next::Ahead(receiver);
            }
            next => self.next = next,
        }
    }

    fn lost(&self) -> Page {
        Err(Error::Server("the task that reads the scan ahead has ended; scan again".to_string()))
    }

    /// All pairs that are left.
    pub(super) async fn all(mut self) -> Result<Vec<KeyPair>> {
        let mut pairs = self.next_page().await?.unwrap_or_default();
        while let Some(page) = self.next_page().await? {
            pairs.extend(page);
        }
        Ok(pairs)
    }
}

/// The rest of a scan.
struct Pages<T: Transport> {
    snapshot: Snapshot<T>,
    remainder: Remainder,
}

impl<T: Transport> Pages<T> {
    async fn next(&mut self) -> Page {
        let cluster = self.snapshot.cluster.clone();
        // A long scan is many operations: each page has the whole timeout.
        let mut backoff = cluster.backoff();
        while !self.remainder.is_finished() {
            let (region, part) = self.remainder.next(&cluster, Mode::Txn, &mut backoff).await?;
            let (start_key, end_key) = part.bounds(self.remainder.is_reverse());
            let request = kvrpcpb::ScanRequest {
                context: Some(self.snapshot.context()),
                start_key,
                end_key,
                limit: part.pairs as u32,
                version: self.snapshot.timestamp(),
                reverse: self.remainder.is_reverse(),
                ..Default::default()
            };
            let Some(reply) = cluster.call_region::<KvScan>(&region, request, &mut backoff).await? else { continue };
            if reply.error.as_ref().is_some_and(too_large) {
                self.remainder.ask_for_fewer(&part)?;
                continue;
            }
            let answered = reply.pairs.len();
            let (pairs, locks) = split_at_lock(reply.pairs, reply.error)?;
            let whole = locks.is_empty() && answered < part.pairs;
            self.remainder.answered(part, &pairs, whole);
            // Not with a wait in between, which may fail, or be dropped: these pairs are not asked for again. The next
            // call meets the lock first.
            if !pairs.is_empty() {
                return Ok(Some(pairs));
            }
            if !locks.is_empty() {
                self.snapshot.clear(&locks, &mut backoff).await?;
            }
        }
        Ok(None)
    }
}

/// The pairs before the first locked key, and all locks.
fn split_at_lock(answered: Vec<KvPair>, error: Option<kvrpcpb::KeyError>) -> Result<(Vec<KeyPair>, Vec<LockInfo>)> {
    let mut errors: Vec<kvrpcpb::KeyError> = error.into_iter().collect();
    let mut pairs = Vec::new();
    for pair in answered {
        match pair.error {
            Some(error) => errors.push(*error),
            None if errors.is_empty() => pairs.push(KeyPair { key: pair.key, value: pair.value }),
            None => {}
        }
    }
    Ok((pairs, locks_of(errors)?))
}
