//! Timestamps: one task has one stream and requests timestamps for many callers at once.
//!
//! Callers that arrive while a request is in flight are served by the next one, so there is one message at a time on
//! the stream for any number of transactions. A request that arrived before a caller asked is never used for it: its
//! timestamp could be older than something the caller has seen.

use crate::backoff::Backoff;
use crate::placement::{Placement, describe};
use crate::{Error, Options};
use futures::StreamExt;
use kontiki_proto::pdpb::{TsoRequest, TsoResponse};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tonic::Streaming;

/// Callers served by one message; also the length of their queue.
const BATCH_MAX: usize = 1024;
const LOGICAL_BITS: u32 = 18;

type Waiter = oneshot::Sender<Result<u64, String>>;

/// Hands out timestamps. The task ends when it is dropped.
pub(crate) struct Tso {
    queue: mpsc::Sender<Waiter>,
}

impl Tso {
    pub(crate) fn start(placement: Arc<Placement>, options: Options) -> Tso {
        let (queue, waiters) = mpsc::channel(BATCH_MAX);
        tokio::spawn(serve(placement, options, waiters));
        Tso { queue }
    }

    /// A new timestamp, greater than every one handed out before the call.
    pub(crate) async fn timestamp(&self, backoff: &mut Backoff) -> Result<u64, Error> {
        loop {
            let (waiter, answer) = oneshot::channel();
            let limit = backoff.remaining(std::time::Duration::MAX);
            let asked = async {
                self.queue.send(waiter).await.map_err(|_| "the timestamp task has ended".to_string())?;
                answer.await.map_err(|_| "the timestamp task has ended".to_string())?
            };
            let obstacle = match tokio::time::timeout(limit, asked).await {
                Ok(Ok(ts)) => return Ok(ts),
                Ok(Err(obstacle)) => obstacle,
                Err(_) => "the timestamp oracle does not answer".to_string(),
            };
            backoff.pause(obstacle).await?;
        }
    }
}

struct Stream {
    requests: mpsc::Sender<TsoRequest>,
    answers: Streaming<TsoResponse>,
}

async fn serve(placement: Arc<Placement>, options: Options, mut waiters: mpsc::Receiver<Waiter>) {
    let mut stream = None;
    let mut batch = Vec::new();
    while waiters.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let count = batch.len() as u32;
        let ask = ask(&placement, &mut stream, count);
        let result = match tokio::time::timeout(options.request_timeout, ask).await {
            Ok(result) => result,
            Err(_) => Err("the timestamp oracle does not answer".to_string()),
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
async fn ask(placement: &Placement, stream: &mut Option<Stream>, count: u32) -> Result<u64, String> {
    let open = match stream.take() {
        Some(open) => stream.insert(open),
        None => {
            let (requests, outgoing) = mpsc::channel(1);
            let outgoing = futures::stream::unfold(outgoing, |mut outgoing: mpsc::Receiver<TsoRequest>| async {
                outgoing.recv().await.map(|request| (request, outgoing))
            });
            let answers = placement.pd().tso(outgoing).await.map_err(|status| describe(&status))?.into_inner();
            stream.insert(Stream { requests, answers })
        }
    };
    let request = TsoRequest { count, ..TsoRequest::default() };
    open.requests.send(request).await.map_err(|_| "the timestamp stream is closed".to_string())?;
    let answer = match open.answers.next().await {
        Some(Ok(answer)) => answer,
        Some(Err(status)) => return Err(describe(&status)),
        None => return Err("the timestamp stream ended".to_string()),
    };
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
