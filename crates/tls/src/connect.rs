//! The end of a connection that dials.

use crate::Credentials;
use crate::explain::at_client;
use crate::files::host_of;
use hyper_util::rt::TokioIo;
use std::error::Error as Cause;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::Error;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

/// The kind of every error that certificates cause, at the handshake or later (in TLS 1.3 a client learns only with its
/// first read that its certificate is not accepted). Reading and writing TCP causes no error of this kind, so
/// [`refusal`] recognizes it also where a library has kept the kind and the text of an error only.
const REFUSAL: io::ErrorKind = io::ErrorKind::PermissionDenied;

/// Whether a failed call or connection, or one of its causes, says that the two ends do not agree on TLS or on
/// certificates; and how. Then no request was executed, and the same attempt fails again until files or options change.
pub fn refusal(error: &(dyn Cause + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let http2 = error.downcast_ref::<h2::Error>();
        // How a node answers a client in plain text.
        if http2.is_some_and(|error| error.reason() == Some(h2::Reason::INADEQUATE_SECURITY)) {
            return Some("the node requires TLS; give the file of the cluster's authorities with --ca-file".into());
        }
        let io = error.downcast_ref::<io::Error>().or_else(|| http2?.get_io());
        if let Some(refusal) = io.filter(|error| error.kind() == REFUSAL) {
            return Some(refusal.to_string());
        }
        cause = error.source();
    }
    None
}

/// An error with its causes: tonic's own text is only "transport error".
pub fn describe(error: &(dyn Cause + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Connects to `address` (`host:port`), with TLS if there are credentials. `configure` sets the options of the
/// connection.
pub async fn connect(
    address: &str,
    credentials: Option<&Arc<Credentials>>,
    configure: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = configure(endpoint(address, credentials)?);
    match credentials {
        None => endpoint.connect().await,
        Some(credentials) => endpoint.connect_with_connector(Connector::new(address, credentials)).await,
    }
}

/// The same; connects at the first request, and again after failures.
pub fn connect_lazy(
    address: &str,
    credentials: Option<&Arc<Credentials>>,
    configure: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = configure(endpoint(address, credentials)?);
    Ok(match credentials {
        None => endpoint.connect_lazy(),
        Some(credentials) => endpoint.connect_with_connector_lazy(Connector::new(address, credentials)),
    })
}

/// A scheme in the address is ignored: the credentials decide, as with other clients of the protocol.
fn endpoint(address: &str, credentials: Option<&Arc<Credentials>>) -> Result<Endpoint, tonic::transport::Error> {
    let bare = bare(address);
    let endpoint = Endpoint::from_shared(format!("http://{bare}"))?;
    // What requests state as their scheme; the connector is the same for both.
    match (credentials.is_some(), format!("https://{bare}").parse()) {
        (true, Ok(origin)) => Ok(endpoint.origin(origin)),
        _ => Ok(endpoint),
    }
}

fn bare(address: &str) -> &str {
    address.split_once("://").map_or(address, |(_, bare)| bare).trim_end_matches('/')
}

/// Makes connections to one address.
struct Connector {
    address: String,
    credentials: Arc<Credentials>,
}

impl Connector {
    fn new(address: &str, credentials: &Arc<Credentials>) -> Connector {
        Connector { address: bare(address).to_owned(), credentials: credentials.clone() }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Dialled>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Dialled>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (address, credentials) = (self.address.clone(), self.credentials.clone());
        Box::pin(async move { dial(address, &credentials).await.map(TokioIo::new) })
    }
}

async fn dial(address: String, credentials: &Credentials) -> io::Result<Dialled> {
    let files = credentials.files();
    let end = OtherEnd { address, ca: files.ca.clone(), has_certificate: files.own.is_some() };
    let name = ServerName::try_from(host_of(&end.address).to_owned())
        .map_err(|_| io::Error::new(REFUSAL, format!("{} has no host name that certificates can have", end.address)))?;
    let stream = TcpStream::connect(&end.address).await?;
    // Requests are small, and wait for nothing.
    stream.set_nodelay(true)?;
    let handshake = TlsConnector::from(credentials.client_config()).connect(name, stream).await;
    match handshake {
        Ok(stream) => Ok(Dialled { stream, end }),
        Err(error) => Err(end.explain(error)),
    }
}

/// The other end of a connection, for texts.
struct OtherEnd {
    address: String,
    ca: PathBuf,
    has_certificate: bool,
}

impl OtherEnd {
    fn explain(&self, error: io::Error) -> io::Error {
        match error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) {
            Some(cause) => io::Error::new(REFUSAL, at_client(cause, &self.address, &self.ca, self.has_certificate)),
            None => error,
        }
    }
}

/// A connection that was dialled.
struct Dialled {
    stream: TlsStream<TcpStream>,
    end: OtherEnd,
}

impl Dialled {
    fn explained<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        polled.map_err(|error| self.end.explain(error))
    }
}

impl AsyncRead for Dialled {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.explained(polled)
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.explained(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.explained(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.explained(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.explained(polled)
    }
}
