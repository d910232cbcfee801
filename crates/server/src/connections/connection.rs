//! One incoming connection.

use super::{Connections, Place, State, Stream};
use kontiki_tls::HandshakeError;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// A connection that has a slot.
pub struct Connection {
    pub(super) stream: Stream,
    pub(super) place: Place,
    pub(super) from: SocketAddr,
}

impl Connection {
    /// Goes on with the handshake, where there is one, and records its result.
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(self.stream.poll_handshake(cx));
        let Place { state, connections, .. } = &self.place;
        match result {
            Ok(None) => {}
            Ok(Some(has_certificate)) => {
                state.is_identified.store(has_certificate, Ordering::Release);
                connections.metrics.handshakes.inc();
                self.place.moved();
            }
            Err(error) => {
                if let HandshakeError::Refused(why) = &error {
                    connections.refused_handshake(self.from, why);
                }
                return Poll::Ready(Err(error.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What requests know of their connection.
#[derive(Clone)]
pub struct ConnectionInfo {
    state: Arc<State>,
    connections: Arc<Connections>,
}

impl ConnectionInfo {
    /// Another node uses the connection: from now on it does not count among those of clients.
    pub fn mark_peer(&self) {
        self.state.client.store(false, Ordering::Release);
        self.connections.fewer_clients.notify_waiters();
    }

    /// Whether the other end proved by a certificate that it belongs to the cluster. Always true without TLS, where no
    /// end can.
    pub fn is_identified(&self) -> bool {
        self.state.is_identified.load(Ordering::Acquire)
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        ConnectionInfo { state: self.place.state.clone(), connections: self.place.connections.clone() }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Registered before the check: a displacement in between wakes the reader.
        self.place.state.reader.register(cx.waker());
        self.place.check()?;
        ready!(self.poll_handshake(cx))?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let received = buffer.filled().get(before..).unwrap_or_default();
        if !received.is_empty() {
            self.place.moved();
            if self.stream.is_tls_at_plain_port(received) {
                let why = "the client uses TLS and this port does not; leave out the client's options for TLS, or start \
                           the node with --ca-file, --cert-file and --key-file";
                self.place.connections.refused_handshake(self.from, why);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_handshake(cx))?;
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if matches!(polled, Poll::Ready(Ok(count)) if count > 0) {
            self.place.moved();
        }
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_handshake(cx))?;
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        if matches!(polled, Poll::Ready(Ok(count)) if count > 0) {
            self.place.moved();
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_handshake(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
