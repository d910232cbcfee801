//! Timestamps: one task has one stream and requests timestamps for many callers at once.
//!
//! Callers that arrive while a request is in flight are served by the next one, so there is one message at a time on
//! the stream for any number of transactions. A request that arrived before a caller asked is never used for it: its
//! timestamp could be older than something the caller has seen.

use crate::backoff::Backoff;
use crate::placement::Placement;
use crate::transport::{Timestamps, Transport, within};
use crate::{Error, Options};
use kontiki_proto::pdpb::TsoRequest;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Callers served by one message; also the length of their queue.
const BATCH_MAX: usize = 1024;
/// Bits of a timestamp below its milliseconds.
pub(crate) const LOGICAL_BITS: u32 = 18;

type Waiter = oneshot::Sender<Result<u64, String>>;

/// Hands out timestamps. The task ends when it is dropped.
pub(crate) struct Tso<T> {
    transport: T,
    queue: mpsc::Sender<Waiter>,
}

impl<T: Transport> Tso<T> {
    pub(crate) fn start(transport: T, placement: Arc<Placement<T>>, options: Options) -> Tso<T> {
        let (queue, waiters) = mpsc::channel(BATCH_MAX);
        transport.spawn(serve(transport.clone(), placement, options, waiters));
        Tso { transport, queue }
    }

    /// A new timestamp, greater than every one handed out before the call.
    pub(crate) async fn timestamp(&self, backoff: &mut Backoff<T>) -> Result<u64, Error> {
        loop {
            let (waiter, answer) = oneshot::channel();
            let limit = backoff.remaining(Duration::MAX);
            let asked = async {
                self.queue.send(waiter).await.map_err(|_| "the timestamp task has ended".to_string())?;
                answer.await.map_err(|_| "the timestamp task has ended".to_string())?
            };
            let obstacle = match within(&self.transport, limit, asked).await {
                Some(Ok(ts)) => return Ok(ts),
                Some(Err(obstacle)) => obstacle,
                None => backoff.unanswered("the timestamp oracle does not answer".to_string()),
            };
            backoff.pause(obstacle).await?;
        }
    }
}

async fn serve<T: Transport>(
    transport: T,
    placement: Arc<Placement<T>>,
    options: Options,
    mut waiters: mpsc::Receiver<Waiter>,
) {
    let mut stream = None;
    let mut batch = Vec::new();
    while waiters.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let count = batch.len() as u32;
        let ask = ask(&transport, &placement, &mut stream, count);
        let result = match within(&transport, options.request_timeout, ask).await {
            Some(result) => result,
            None => Err("the timestamp oracle does not answer".to_string()),
        };
        if result.is_err() {
            stream = None;
            placement.next();
        }
        for (index, waiter) in batch.drain(..).enumerate() {
            // The answer is the last timestamp of the batch. A caller may have timed out: its channel is then closed.
            let mine = result.clone().map(|last| last - u64::from(count - 1) + index as u64);
            let _ = waiter.send(mine);
        }
    }
}

/// The last of `count` new timestamps.
async fn ask<T: Transport>(
    transport: &T,
    placement: &Placement<T>,
    stream: &mut Option<T::Timestamps>,
    count: u32,
) -> Result<u64, String> {
    let open = match stream.take() {
        Some(open) => stream.insert(open),
        None => {
            let opened = transport.timestamps(&placement.channel()).await.map_err(|failure| failure.text)?;
            stream.insert(opened)
        }
    };
    let request = TsoRequest { count, ..TsoRequest::default() };
    let answer = open.ask(request).await.map_err(|failure| failure.text)?;
    if let Some(error) = answer.header.and_then(|header| header.error) {
        return Err(error.message);
    }
    let ts = answer.timestamp.filter(|_| answer.count == count).ok_or("a malformed timestamp answer")?;
    let (physical, logical) = (ts.physical as u64, ts.logical as u64);
    if logical >> LOGICAL_BITS != 0 || logical + 1 < u64::from(count) || physical >> (64 - LOGICAL_BITS) != 0 {
        return Err(format!("the oracle returned an impossible timestamp: {physical} ms, {logical}"));
    }
    Ok((physical << LOGICAL_BITS) | logical)
}
