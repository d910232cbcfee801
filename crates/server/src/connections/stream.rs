//! The bytes of one incoming connection, in plain text or by TLS, and the ends of those that use the other one.

use kontiki_tls::{Accepted, HandshakeError, TLS_HANDSHAKE_RECORD};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The answer to a client with TLS at a port without: text, from which clients conclude that the port does not use TLS.
const NO_TLS_HERE: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Either kind of connection.
pub(super) enum Stream {
    /// In plain text.
    Plain {
        /// The connection.
        stream: TcpStream,
        /// Nothing has been received yet.
        is_new: bool,
    },
    /// By TLS, from its handshake on.
    Tls(Box<Accepted>),
}

impl Stream {
    pub(super) fn plain(stream: TcpStream) -> Stream {
        Stream::Plain { stream, is_new: true }
    }

    /// Goes on with the handshake, where there is one. Returns whether it ended just now, and then whether the client
    /// has a certificate; an error is returned once.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<bool>, HandshakeError>> {
        match self {
            Stream::Plain { .. } => Poll::Ready(Ok(None)),
            Stream::Tls(accepted) => accepted.poll_handshake(cx),
        }
    }

    /// Whether the first bytes received in plain text, if these are they, begin a handshake of TLS: then the client is
    /// answered, and the connection has to end.
    pub(super) fn is_tls_at_plain_port(&mut self, received: &[u8]) -> bool {
        let Stream::Plain { stream, is_new } = self else { return false };
        let (Some(first), true) = (received.first(), *is_new) else { return false };
        *is_new = false;
        if *first != TLS_HANDSHAKE_RECORD {
            return false;
        }
        // Nothing else was sent, so it fits; an error means that the client is gone.
        let _ = stream.try_write(NO_TLS_HERE);
        true
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain { stream, .. } => Pin::new(stream).poll_read(cx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Stream::Plain { stream, .. } => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Stream::Plain { stream, .. } => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Stream::Plain { stream, .. } => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain { stream, .. } => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain { stream, .. } => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
