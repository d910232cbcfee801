//! The configuration of TLS that is in use at the moment. It is made again when the files change, so a certificate is
//! renewed without a restart: new connections use it, those that exist go on.
//!
//! 1. What is in use was checked as a whole: a file that cannot be used, or two that do not belong together (a renewal
//!    replaces one after the other), change nothing until all of them are good.
//! 2. The files are compared by content every [`RELOAD_INTERVAL`]. *Rejected:* notifications of the file system: they
//!    are not delivered for mounted volumes, on which orchestrators replace certificates. *Rejected:* times of
//!    modification: some tools preserve them, and the files have few kilobytes.

use crate::accept::{Acceptor, PlainAnswer};
use crate::files::{Contents, Parsed, parse, provider};
use crate::{ClientCertificates, TlsError, TlsFiles};
use arc_swap::ArcSwap;
use kontiki_env::Env;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::server::{NoClientAuth, ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{ClientConfig, Error, ServerConfig};

/// How often the files are compared with what is in use.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// The protocols of the two kinds of ports, as they are negotiated in handshakes.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What a look at the files has found.
#[derive(Debug)]
pub enum Reload {
    /// They are those in use.
    Unchanged,
    /// They have changed, and are in use from now on.
    Renewed,
    /// They cannot be used; the ones from before stay in use.
    Failed(TlsError),
}

/// The certificates of a node or a client.
pub struct Credentials {
    env: Env,
    files: TlsFiles,
    /// Of a node: its advertised address, and what it asks of clients.
    node: Option<(String, ClientCertificates)>,
    current: ArcSwap<Current>,
}

struct Current {
    contents: Contents,
    expires_at: Option<u64>,
    client: Arc<ClientConfig>,
    /// Of a node: for the gRPC port and for the status port.
    server: Option<[Arc<ServerConfig>; 2]>,
}

/// The names of the files only.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("files", &self.files).field("node", &self.node).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Those of a node that others reach at `address`. Every check that another node will make is made here.
    pub fn of_node(
        env: Env,
        files: TlsFiles,
        address: &str,
        clients: ClientCertificates,
    ) -> Result<Arc<Credentials>, TlsError> {
        Credentials::new(env, files, Some((address.to_owned(), clients)))
    }

    /// Those of a client.
    pub fn of_client(env: Env, files: TlsFiles) -> Result<Arc<Credentials>, TlsError> {
        Credentials::new(env, files, None)
    }

    fn new(
        env: Env,
        files: TlsFiles,
        node: Option<(String, ClientCertificates)>,
    ) -> Result<Arc<Credentials>, TlsError> {
        let contents = Contents::read(&*env.fs, &files)?;
        let current = ArcSwap::from_pointee(make(&env, &files, node.as_ref(), contents)?);
        Ok(Arc::new(Credentials { env, files, node, current }))
    }

    /// The files.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// When the own certificate ends, in seconds of the Unix epoch; `None` without one.
    pub fn expires_at(&self) -> Option<u64> {
        self.current.load().expires_at
    }

    /// For connections that arrive at the gRPC port now; `None` if these are a client's credentials.
    pub fn grpc_acceptor(self: &Arc<Credentials>) -> Option<Acceptor> {
        self.acceptor(0, PlainAnswer::Http2)
    }

    /// For connections that arrive at the status port now: no certificate is asked of them.
    pub fn status_acceptor(self: &Arc<Credentials>) -> Option<Acceptor> {
        self.acceptor(1, PlainAnswer::Http1)
    }

    fn acceptor(self: &Arc<Credentials>, port: usize, plain: PlainAnswer) -> Option<Acceptor> {
        let config = self.current.load().server.as_ref()?.get(port)?.clone();
        Some(Acceptor { config, plain, ca: self.files.ca.clone() })
    }

    pub(crate) fn client_config(&self) -> Arc<ClientConfig> {
        self.current.load().client.clone()
    }

    /// Reads the files, and uses them if they have changed. Blocks.
    pub fn reload(&self) -> Reload {
        let renewed = Contents::read(&*self.env.fs, &self.files).and_then(|contents| {
            if contents == self.current.load().contents {
                return Ok(None);
            }
            make(&self.env, &self.files, self.node.as_ref(), contents).map(Some)
        });
        match renewed {
            Ok(None) => Reload::Unchanged,
            Ok(Some(renewed)) => {
                self.current.store(Arc::new(renewed));
                Reload::Renewed
            }
            Err(error) => Reload::Failed(error),
        }
    }

    /// Reloads from time to time, until the last owner of the credentials drops them; reports each result. Runs in
    /// tokio.
    pub fn watch<F>(self: &Arc<Credentials>, report: F) -> impl Future<Output = ()> + Send + use<F>
    where
        F: Fn(&Reload, Option<u64>) + Send,
    {
        let weak = Arc::downgrade(self);
        async move {
            let mut failing = None;
            loop {
                tokio::time::sleep(RELOAD_INTERVAL).await;
                let Some(credentials) = weak.upgrade() else { return };
                let look = tokio::task::spawn_blocking(move || {
                    let reload = credentials.reload();
                    (reload, credentials.expires_at())
                });
                // An error means that the runtime is ending.
                let Ok((reload, expires_at)) = look.await else { return };
                log(&reload, &mut failing);
                report(&reload, expires_at);
            }
        }
    }
}

/// A failure is logged once, not at every look.
fn log(reload: &Reload, failing: &mut Option<String>) {
    match reload {
        Reload::Unchanged => *failing = None,
        Reload::Renewed => {
            *failing = None;
            tracing::info!("the certificates were renewed: new connections use them");
        }
        Reload::Failed(error) => {
            let text = error.to_string();
            if failing.as_ref() != Some(&text) {
                tracing::warn!(error = text, "changed certificates cannot be used; those from before stay in use");
                *failing = Some(text);
            }
        }
    }
}

fn make(
    env: &Env,
    files: &TlsFiles,
    node: Option<&(String, ClientCertificates)>,
    contents: Contents,
) -> Result<Current, TlsError> {
    let parsed = parse(files, &contents, node.map(|(address, _)| address.as_str()), &*env.clock)?;
    let unusable = |error: Error| TlsError::Refused { file: files.cert(), why: error.to_string() };
    let server = match (node, &parsed.own) {
        (Some((_, clients)), Some(own)) => Some(servers(files, &parsed, own, *clients).map_err(unusable)?),
        _ => None,
    };
    let client = client(&parsed).map_err(unusable)?;
    tracing::debug!(expires = parsed.expires_text(), "certificates were read");
    Ok(Current { contents, expires_at: parsed.expires_at, client: Arc::new(client), server })
}

fn client(parsed: &Parsed) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(parsed.roots.clone());
    let mut config = match &parsed.own {
        Some(own) => {
            let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(CertifiedKey::clone(own)));
            builder.with_client_cert_resolver(resolver)
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(config)
}

/// For the gRPC port and the status port.
fn servers(
    files: &TlsFiles,
    parsed: &Parsed,
    own: &Arc<CertifiedKey>,
    clients: ClientCertificates,
) -> Result<[Arc<ServerConfig>; 2], Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(parsed.roots.clone(), provider());
    let verifier = match clients {
        ClientCertificates::Required => verifier,
        ClientCertificates::Optional => verifier.allow_unauthenticated(),
    };
    let verifier = verifier.build().map_err(|error| Error::General(format!("{}: {error}", files.ca.display())))?;
    let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(CertifiedKey::clone(own)));
    let grpc = builder()?.with_client_cert_verifier(verifier).with_cert_resolver(resolver.clone());
    let status = builder()?.with_client_cert_verifier(Arc::new(NoClientAuth)).with_cert_resolver(resolver);
    // The gRPC port has some pages, which can be read by either.
    Ok([(grpc, &[HTTP2, HTTP1][..]), (status, &[HTTP1][..])].map(|(mut config, protocols)| {
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }))
}

fn builder() -> Result<tokio_rustls::rustls::ConfigBuilder<ServerConfig, tokio_rustls::rustls::WantsVerifier>, Error> {
    ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()
}

#[cfg(test)]
#[path = "credentials_test.rs"]
mod tests;
