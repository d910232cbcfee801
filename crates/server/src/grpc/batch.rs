//! `BatchCommands`: a stream whose messages hold many requests and many answers. Some clients send nothing otherwise.
//!
//! Each request of a message runs as if it had come alone. Answers are sent as they become ready, in any order, so that
//! a request that waits delays no other; those that are ready at one moment share a message.
//!
//! What ends the stream (a command that is not implemented, a malformed message) ends it after the answers to the
//! requests that came before: they may have written, and their client would not know.

use super::RequestMetrics;
use super::tikv::Running;
use crate::api::Node;
use crate::kv::{Kv, Refusal};
use futures::stream::{FuturesUnordered, unfold};
use futures::{FutureExt, Stream, StreamExt};
use kontiki_proto::tikvpb::batch_commands_request::request::Cmd as Command;
use kontiki_proto::tikvpb::batch_commands_response::Response;
use kontiki_proto::tikvpb::batch_commands_response::response::Cmd as Answer;
use kontiki_proto::tikvpb::{BatchCommandsEmptyResponse, BatchCommandsRequest, BatchCommandsResponse};
use prost::Message;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tokio::runtime::Handle;
use tonic::Status;

/// Requests of one stream in flight, as many as one connection may have otherwise. The others of a message wait, and
/// the next message is not read before they have begun.
const IN_FLIGHT_MAX: usize = super::STREAMS_MAX as usize;
/// Requests of one message; clients put 128 into one.
const REQUESTS_MAX: usize = 4_096;
/// Answers per message, as many as clients put requests into one.
const ANSWERS_MAX: usize = 128;
/// A message with so many bytes of answers gets no more: a small answer does not wait until large ones are encoded.
const ANSWER_BYTES_FULL: usize = 1 << 20;

/// The longest that the command which does nothing delays its answer; it is one of the stream's in flight.
const EMPTY_DELAY_MAX: Duration = Duration::from_secs(10);

/// What serves the commands.
pub(super) struct Commands<N: Node> {
    pub(super) kv: Kv<N>,
    pub(super) metrics: RequestMetrics,
    pub(super) requests: Handle,
}

type Serving = Pin<Box<dyn Future<Output = (u64, Answer)> + Send>>;

macro_rules! serve {
    ($($command:ident, $function:ident, $handler:ident;)+) => {
        impl<N: Node> Commands<N> {
            /// Begins to serve a command; it is aborted when the future is dropped.
            fn serve(&self, id: u64, command: Command) -> Serving {
                let (kv, metrics) = (self.kv.clone(), self.metrics.clone());
                match command {
                    $(Command::$command(request) => {
                        let request = async move { metrics.time(stringify!($function), kv.$handler(request)).await };
                        let running = Running::new(self.requests.spawn(request));
                        Box::pin(async move {
                            // It may have written before it failed.
                            let failed = |status: Status| Refusal::Unknown(status.message().to_owned()).into();
                            (id, Answer::$command(running.answer().await.unwrap_or_else(failed)))
                        })
                    })+
                    Command::Empty(request) => Box::pin(async move {
                        let delay = Duration::from_millis(request.delay_time);
                        tokio::time::sleep(delay.min(EMPTY_DELAY_MAX)).await;
                        (id, Answer::Empty(BatchCommandsEmptyResponse { test_id: request.test_id }))
                    }),
                }
            }
        }
    };
}

kontiki_proto::for_each_batch_command!(serve);

/// One stream in progress.
struct Batches<N: Node, S> {
    commands: Commands<N>,
    messages: S,
    /// Commands of the last message that have not begun.
    queued: VecDeque<(u64, Command)>,
    serving: FuturesUnordered<Serving>,
    /// No further message is read; with the error that ends the stream after the last answer.
    ending: Option<Result<(), Status>>,
}

/// The answers to the commands in `messages`.
pub(super) fn answers<N: Node>(
    commands: Commands<N>,
    messages: impl Stream<Item = Result<BatchCommandsRequest, Status>> + Send + Unpin + 'static,
) -> impl Stream<Item = Result<BatchCommandsResponse, Status>> + Send + 'static {
    let (queued, serving) = (VecDeque::new(), FuturesUnordered::new());
    let batches = Batches { commands, messages, queued, serving, ending: None };
    unfold(Some(batches), |batches| async move {
        let mut batches = batches?;
        match batches.next().await? {
            Ok(message) => Some((Ok(message), Some(batches))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

impl<N: Node, S: Stream<Item = Result<BatchCommandsRequest, Status>> + Unpin> Batches<N, S> {
    async fn next(&mut self) -> Option<Result<BatchCommandsResponse, Status>> {
        loop {
            self.begin_queued();
            let may_read = self.ending.is_none() && self.queued.is_empty() && self.serving.len() < IN_FLIGHT_MAX;
            tokio::select! {
                message = self.messages.next(), if may_read => {
                    match message {
                        Some(Ok(message)) => self.take(message),
                        Some(Err(status)) => self.ending = Some(Err(status)),
                        None => self.ending = Some(Ok(())),
                    }
                }
                Some(answer) = self.serving.next(), if !self.serving.is_empty() => {
                    return Some(Ok(self.collect(answer)));
                }
                else => return self.ending.take().and_then(Result::err).map(Err),
            }
        }
    }

    fn begin_queued(&mut self) {
        while self.serving.len() < IN_FLIGHT_MAX
            && let Some((id, command)) = self.queued.pop_front()
        {
            self.serving.push(self.commands.serve(id, command));
        }
    }

    fn take(&mut self, message: BatchCommandsRequest) {
        let BatchCommandsRequest { requests, request_ids } = message;
        if requests.len() != request_ids.len() || requests.len() > REQUESTS_MAX {
            let (requests, ids) = (requests.len(), request_ids.len());
            let text =
                format!("a batch of {requests} requests with {ids} ids; at most {REQUESTS_MAX}, each with an id");
            self.ending = Some(Err(Status::invalid_argument(text)));
            return;
        }
        for (request, id) in requests.into_iter().zip(request_ids) {
            match request.cmd {
                Some(command) => self.queued.push_back((id, command)),
                // Clients repeat a command without an answer for 40 s, but a broken stream for a second.
                None => {
                    let text = "a batch holds a command that this server does not implement";
                    self.ending = Some(Err(Status::unavailable(text)));
                }
            }
        }
    }

    /// A message with `first` and others that are ready.
    fn collect(&mut self, first: (u64, Answer)) -> BatchCommandsResponse {
        let mut message = BatchCommandsResponse::default();
        let (mut next, mut bytes) = (Some(first), 0);
        while let Some((id, answer)) = next.take() {
            let response = Response { cmd: Some(answer) };
            bytes += response.encoded_len();
            message.request_ids.push(id);
            message.responses.push(response);
            if message.responses.len() < ANSWERS_MAX && bytes < ANSWER_BYTES_FULL {
                next = self.serving.next().now_or_never().flatten();
            }
        }
        message
    }
}

#[cfg(test)]
#[path = "batch_test.rs"]
mod tests;
