//! The node's end of a connection.
//!
//! The handshake is part of the connection's own task, not of the loop that accepts connections: a client that is slow,
//! or silent, delays no other one. It has [`HANDSHAKE_TIME_MAX`], in which it also occupies one of the node's bounded
//! connections.
//!
//! A connection that is refused is closed in order: what the node has to say is sent, then the node reads to the end.
//! A connection that is closed with unread bytes is reset, and a reset discards what was sent, so the client would not
//! learn why.

use crate::explain::at_node;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{Error, ServerConfig};
use tokio_rustls::server::TlsStream;

/// A client that has not finished its handshake within this time is refused: several round trips on any network.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a refused client may take to read the reason, and how much it may send meanwhile.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(1);
const REFUSAL_BYTES_MAX: u64 = 64 << 10;
/// The first byte of each connection that uses TLS. No request of HTTP begins with it.
pub const TLS_HANDSHAKE_RECORD: u8 = 22;

/// The answer to a client that does not use TLS, in its own protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainAnswer {
    /// SETTINGS, and GOAWAY with the code INADEQUATE_SECURITY and the reason: clients of gRPC show it.
    Http2,
    /// A page with status 400.
    Http1,
}

const REASON: &str =
    "this port requires TLS: give the client the cluster's authorities (--ca-file of the kontiki command)";

/// The same for the node's log.
const NOT_TLS: &str =
    "the client does not use TLS; it needs the cluster's authorities (--ca-file of the kontiki command)";

impl PlainAnswer {
    fn bytes(self) -> Vec<u8> {
        match self {
            PlainAnswer::Http1 => format!(
                "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{REASON}\n",
                REASON.len() + 1
            )
            .into_bytes(),
            PlainAnswer::Http2 => {
                // Frames: length (3 bytes), type, flags, stream (4 bytes); RFC 9113.
                let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
                let length = (8 + REASON.len() as u32).to_be_bytes();
                let mut bytes = settings.to_vec();
                bytes.extend_from_slice(&length[1..]);
                bytes.extend([7, 0, 0, 0, 0, 0]);
                bytes.extend([0, 0, 0, 0]); // no stream was processed
                bytes.extend([0, 0, 0, 0xc]); // INADEQUATE_SECURITY
                bytes.extend_from_slice(REASON.as_bytes());
                bytes
            }
        }
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// The client closed it without a word, as probes of ports do.
    Closed,
    /// The node refused it, for this reason.
    Refused(String),
}

/// How connections that arrive now are accepted.
#[derive(Clone)]
pub struct Acceptor {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) plain: PlainAnswer,
    /// For texts.
    pub(crate) ca: PathBuf,
}

impl Acceptor {
    /// The node's end of a connection.
    pub fn accept(self, stream: TcpStream) -> Accepted {
        Accepted { state: State::Handshake(Box::pin(self.handshake(stream))) }
    }

    async fn handshake(self, stream: TcpStream) -> Result<TlsStream<TcpStream>, HandshakeError> {
        match timeout(HANDSHAKE_TIME_MAX, self.handshake_or_refuse(stream)).await {
            Ok(result) => result,
            Err(_) => {
                let seconds = HANDSHAKE_TIME_MAX.as_secs();
                Err(HandshakeError::Refused(format!("the handshake did not end within {seconds} s")))
            }
        }
    }

    async fn handshake_or_refuse(self, mut stream: TcpStream) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let mut first = [0];
        match stream.peek(&mut first).await {
            Err(_) | Ok(0) => return Err(HandshakeError::Closed),
            Ok(_) if first != [TLS_HANDSHAKE_RECORD] => {
                // An error means that the client does not read the answer.
                let _ = stream.write_all(&self.plain.bytes()).await;
                close(stream).await;
                return Err(HandshakeError::Refused(NOT_TLS.into()));
            }
            Ok(_) => {}
        }
        match TlsAcceptor::from(self.config).accept(stream).into_fallible().await {
            Ok(stream) => Ok(stream),
            Err((error, stream)) => {
                let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
                let why = cause.map_or_else(|| error.to_string(), |cause| at_node(cause, &self.ca));
                close(stream).await;
                Err(HandshakeError::Refused(why))
            }
        }
    }
}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> io::Error {
        match error {
            HandshakeError::Closed => io::ErrorKind::UnexpectedEof.into(),
            HandshakeError::Refused(why) => io::Error::new(io::ErrorKind::ConnectionAborted, why),
        }
    }
}

/// Ends a refused connection; see the module.
async fn close(mut stream: TcpStream) {
    let read_to_end = async {
        stream.shutdown().await?;
        let mut sink = tokio::io::sink();
        tokio::io::copy(&mut (&mut stream).take(REFUSAL_BYTES_MAX), &mut sink).await
    };
    // A client that goes on sending, or is silent, does not get the reason.
    let _ = timeout(REFUSAL_TIME_MAX, read_to_end).await;
}

/// The node's end of a connection: reads and writes wait for the handshake.
pub struct Accepted {
    state: State,
}

enum State {
    Handshake(Pin<Box<dyn Future<Output = Result<TlsStream<TcpStream>, HandshakeError>> + Send>>),
    Open(Box<TlsStream<TcpStream>>),
    Refused,
}

impl Accepted {
    /// Goes on with the handshake. Returns whether it ended just now, and then whether the client has a certificate; an
    /// error is returned once.
    pub fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<bool>, HandshakeError>> {
        let State::Handshake(handshake) = &mut self.state else { return Poll::Ready(Ok(None)) };
        match ready!(handshake.as_mut().poll(cx)) {
            Ok(stream) => {
                let has_certificate = stream.get_ref().1.peer_certificates().is_some_and(|chain| !chain.is_empty());
                self.state = State::Open(Box::new(stream));
                Poll::Ready(Ok(Some(has_certificate)))
            }
            Err(why) => {
                self.state = State::Refused;
                Poll::Ready(Err(why))
            }
        }
    }

    fn open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TlsStream<TcpStream>>>> {
        if let Err(error) = ready!(self.poll_handshake(cx)) {
            return Poll::Ready(Err(error.into()));
        }
        match &mut self.state {
            State::Open(stream) => Poll::Ready(Ok(Pin::new(&mut **stream))),
            _ => Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the handshake failed"))),
        }
    }
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.open(cx))?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.open(cx))?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.open(cx))?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.open(cx))?.poll_flush(cx)
    }

    /// A connection that never was open has nothing to end in order.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Open(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            _ => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
#[path = "accept_test.rs"]
mod tests;
