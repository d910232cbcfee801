//! `BatchCommands`: a stream whose messages hold many requests and many answers. Some clients send nothing otherwise.
//!
//! Each request of a message runs as if it had come alone. Answers are sent as they become ready, in any order, so that
//! a request that waits delays no other; those that are ready at one moment share a message.

use super::RequestMetrics;
use super::tikv::Running;
use crate::api::Node;
use crate::kv::Kv;
use futures::stream::{FuturesUnordered, unfold};
use futures::{FutureExt, Stream, StreamExt};
use kontiki_proto::tikvpb::batch_commands_request::request::Cmd as Command;
use kontiki_proto::tikvpb::batch_commands_response::response::Cmd as Answer;
use kontiki_proto::tikvpb::{BatchCommandsRequest, BatchCommandsResponse, batch_commands_response};
use std::future::Future;
use std::pin::Pin;
use tokio::runtime::Handle;
use tonic::Status;

/// Requests of one stream in flight above which its next message is not read: as many as one connection may have in
/// flight otherwise.
const IN_FLIGHT_MAX: usize = super::STREAMS_MAX as usize;
/// Answers per message, as many as clients put requests into one.
const ANSWERS_MAX: usize = 128;

/// What serves the commands.
pub(super) struct Commands<N: Node> {
    pub(super) kv: Kv<N>,
    pub(super) metrics: RequestMetrics,
    pub(super) requests: Handle,
}

type Serving = Pin<Box<dyn Future<Output = Result<(u64, Answer), Status>> + Send>>;

macro_rules! serve {
    ($($command:ident, $function:ident, $handler:ident;)+) => {
        impl<N: Node> Commands<N> {
            /// Begins to serve a command; it is aborted when the future is dropped.
            fn serve(&self, id: u64, command: Command) -> Serving {
                let (kv, metrics) = (self.kv.clone(), self.metrics.clone());
                match command {
                    $(Command::$command(request) => {
                        let running = Running::new(self.requests.spawn(async move { kv.$handler(request).await }));
                        Box::pin(async move {
                            let answer = metrics.time(stringify!($function), running.answer()).await?;
                            Ok((id, Answer::$command(answer)))
                        })
                    })+
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
    is_open: bool,
    serving: FuturesUnordered<Serving>,
}

/// The answers to the commands in `messages`. The first error ends the stream: its other requests have no answer.
pub(super) fn answers<N: Node>(
    commands: Commands<N>,
    messages: impl Stream<Item = Result<BatchCommandsRequest, Status>> + Send + Unpin + 'static,
) -> impl Stream<Item = Result<BatchCommandsResponse, Status>> + Send + 'static {
    let batches = Batches { commands, messages, is_open: true, serving: FuturesUnordered::new() };
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
            tokio::select! {
                message = self.messages.next(), if self.is_open && self.serving.len() < IN_FLIGHT_MAX => {
                    match message {
                        Some(message) => match message.and_then(|message| self.begin(message)) {
                            Ok(()) => {}
                            Err(status) => return Some(Err(status)),
                        },
                        None => self.is_open = false,
                    }
                }
                Some(answer) = self.serving.next(), if !self.serving.is_empty() => {
                    return Some(answer.and_then(|answer| self.collect(answer)));
                }
                else => return None,
            }
        }
    }

    fn begin(&self, message: BatchCommandsRequest) -> Result<(), Status> {
        let BatchCommandsRequest { requests, request_ids } = message;
        if requests.len() != request_ids.len() {
            let text = format!("a batch of {} requests has {} ids", requests.len(), request_ids.len());
            return Err(Status::invalid_argument(text));
        }
        for (request, id) in requests.into_iter().zip(request_ids) {
            // Clients repeat a command without an answer for 40 s, but a broken stream for a second.
            let unknown = || Status::unavailable("a batch holds a command that this server does not implement");
            self.serving.push(self.commands.serve(id, request.cmd.ok_or_else(unknown)?));
        }
        Ok(())
    }

    /// A message with `first` and the other answers that are ready.
    fn collect(&mut self, first: (u64, Answer)) -> Result<BatchCommandsResponse, Status> {
        let mut message = BatchCommandsResponse::default();
        let mut next = Some(first);
        while let Some((id, answer)) = next.take() {
            message.request_ids.push(id);
            message.responses.push(batch_commands_response::Response { cmd: Some(answer) });
            if message.responses.len() < ANSWERS_MAX {
                next = self.serving.next().now_or_never().flatten().transpose()?;
            }
        }
        Ok(message)
    }
}

#[cfg(test)]
#[path = "batch_test.rs"]
mod tests;
