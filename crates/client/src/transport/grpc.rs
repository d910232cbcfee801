//! gRPC on tokio.

use super::{Failure, Timestamps, Transport};
use crate::{Error, Result};
use futures::{Stream, StreamExt};
use kontiki_env::Env;
use kontiki_proto::calls::Call;
use kontiki_proto::codec::Codec;
use kontiki_proto::pdpb::pd_client::PdClient;
use kontiki_proto::pdpb::{TsoRequest, TsoResponse};
use kontiki_tls::{Credentials, TlsFiles};
use std::error::Error as Cause;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// The largest answer that is decoded: servers limit their answers to slightly more than 65 MiB.
const MESSAGE_BYTES_MAX: usize = 96 << 20;
/// Maximum bytes of an answer's headers: servers send some hundreds.
const HEADER_LIST_BYTES_MAX: u32 = 16 << 10;

/// gRPC on tokio, whose runtime must be entered.
#[derive(Clone, Debug)]
pub struct Grpc {
    connect_timeout: Duration,
    began: Instant,
    credentials: Option<Arc<Credentials>>,
}

impl Grpc {
    pub(crate) fn new(connect_timeout: Duration) -> Grpc {
        Grpc { connect_timeout, began: Instant::now(), credentials: None }
    }

    /// The same with certificates, if there are any: they are read now, and again when their files change.
    pub(crate) fn with_tls(self, tls: Option<TlsFiles>) -> Result<Grpc> {
        let credentials = tls.map(|files| Credentials::of_client(Env::real(), files)).transpose();
        let credentials = credentials.map_err(|error| Error::Invalid(error.to_string()))?;
        if let Some(credentials) = &credentials {
            tokio::spawn(credentials.watch(|_, _| ()));
        }
        Ok(Grpc { credentials, ..self })
    }
}

impl Transport for Grpc {
    type Channel = Channel;
    type Timestamps = TimestampStream;

    fn channel(&self, address: &str) -> Result<Channel> {
        let channel = kontiki_tls::connect_lazy(address, self.credentials.as_ref(), |endpoint| {
            let endpoint = endpoint.connect_timeout(self.connect_timeout).tcp_nodelay(true);
            endpoint.http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
        });
        channel.map_err(|error| Error::Invalid(format!("endpoint {address:?}: {error}; host:port is expected")))
    }

    async fn call<C: Call>(&self, channel: &Channel, request: C::Request) -> std::result::Result<C::Reply, Failure> {
        let mut client = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        // Otherwise the channel's buffer would panic.
        let unsent = |error| Failure { is_unsent: true, ..failure(&Status::from_error(Box::new(error))) };
        client.ready().await.map_err(unsent)?;
        let codec = Codec::<C::Request, C::Reply>::default();
        let answer = client.unary(Request::new(request), PathAndQuery::from_static(C::PATH), codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| failure(&status))
    }

    async fn timestamps(&self, channel: &Channel) -> std::result::Result<TimestampStream, Failure> {
        let (requests, outgoing) = mpsc::channel(1);
        let answers = PdClient::new(channel.clone()).tso(stream(outgoing)).await;
        Ok(TimestampStream { requests, answers: answers.map_err(|status| failure(&status))?.into_inner() })
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(duration)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    /// The seeds of hash maps are random enough to spread retries; nothing else depends on it.
    fn random(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

/// `Pd.Tso`.
pub struct TimestampStream {
    requests: mpsc::Sender<TsoRequest>,
    answers: Streaming<TsoResponse>,
}

impl Timestamps for TimestampStream {
    async fn ask(&mut self, request: TsoRequest) -> std::result::Result<TsoResponse, Failure> {
        self.requests.send(request).await.map_err(|_| Failure::closed("the timestamp stream is closed"))?;
        match self.answers.next().await {
            Some(answer) => answer.map_err(|status| failure(&status)),
            None => Err(Failure::closed("the timestamp stream ended")),
        }
    }
}

fn stream(outgoing: mpsc::Receiver<TsoRequest>) -> impl Stream<Item = TsoRequest> + Send + 'static {
    futures::stream::unfold(outgoing, |mut outgoing| async { outgoing.recv().await.map(|request| (request, outgoing)) })
}

/// A status with its causes, which contain the details of a failed connection.
fn failure(status: &Status) -> Failure {
    let mut text = format!("{}: {}", status.code(), status.message());
    let refusal = kontiki_tls::refusal(status);
    let mut is_unsent = refusal.is_some();
    let mut cause = status.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        is_unsent |= proves_unsent(error);
        cause = error.source();
    }
    Failure { code: status.code(), message: status.message().to_string(), text, is_unsent, refusal }
}

/// Whether the cause of a failed call proves that no node has executed it.
///
/// A node that stops ends its connections in an orderly way: a last frame (GOAWAY) names the last request that it
/// answers, so that a request that crossed it on the way, and one that was still queued here, are known not to have
/// been executed. Both are asked of another node, like a request whose connection was refused.
fn proves_unsent(cause: &(dyn Cause + 'static)) -> bool {
    let io = cause.downcast_ref::<std::io::Error>();
    let was_refused = io.is_some_and(|io| io.kind() == ErrorKind::ConnectionRefused);
    // Of a request that was queued when its connection ended; of one that was sent, the error is another.
    let was_queued = cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
    let http2 = cause.downcast_ref::<h2::Error>();
    let was_unprocessed = http2.is_some_and(|error| {
        let is_refused_stream = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (error.is_go_away() || is_refused_stream)
    });
    was_refused || was_queued || was_unprocessed
}

#[cfg(test)]
#[path = "grpc_test.rs"]
mod tests;
