//! The files, and what can be checked of them before any connection exists: an operator learns of a wrong file at the
//! start of a node, not from a node that cannot reach the others.

use crate::TlsError;
use crate::explain::{certificate_problem, utc};
use kontiki_env::clock::Clock;
use kontiki_env::fs::{Fs, read_all};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};

/// A PEM file with certificates is some kilobytes; a longer file is something else.
const FILE_BYTES_MAX: usize = 1 << 20;
/// The last second of the year 9999, the latest end of validity that certificates can state.
const END_OF_TIME: Duration = Duration::from_secs(253_402_300_799);

const CERTIFICATES: &str =
    "a PEM file with one or more blocks -----BEGIN CERTIFICATE-----, a node's own certificate before its issuers";
const KEY: &str = "a PEM file with a block -----BEGIN PRIVATE KEY-----, without a passphrase";

/// Whether clients must present a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// A connection without a certificate of the cluster's authorities is refused.
    #[default]
    Required,
    /// Clients may connect without one; other nodes may not.
    Optional,
}

/// The names of the files. All are PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates of the authorities whose signature is accepted.
    pub ca: PathBuf,
    /// The own certificate, and after it those of its issuers up to one of the authorities; and the private key. A
    /// client without them connects only to nodes where [`ClientCertificates::Optional`] holds.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl TlsFiles {
    /// From the options of a client: none of them, the authorities alone, or all three.
    pub fn of_client(
        ca: Option<PathBuf>,
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> Result<Option<TlsFiles>, TlsError> {
        let accepted = "ca-file alone, or ca-file, cert-file and key-file together";
        match (ca, cert, key) {
            (None, None, None) => Ok(None),
            (Some(ca), None, None) => Ok(Some(TlsFiles { ca, own: None })),
            (Some(ca), Some(cert), Some(key)) => Ok(Some(TlsFiles { ca, own: Some((cert, key)) })),
            (ca, cert, key) => Err(incomplete([ca, cert, key], accepted)),
        }
    }

    /// From the options of a node: none of them, or all three.
    pub fn of_node(
        ca: Option<PathBuf>,
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> Result<Option<TlsFiles>, TlsError> {
        match (ca, cert, key) {
            (None, None, None) => Ok(None),
            (Some(ca), Some(cert), Some(key)) => Ok(Some(TlsFiles { ca, own: Some((cert, key)) })),
            (ca, cert, key) => Err(incomplete([ca, cert, key], "ca-file, cert-file and key-file together, or none")),
        }
    }

    /// The file of the own certificate, for texts.
    pub(crate) fn cert(&self) -> PathBuf {
        self.own.as_ref().map(|(cert, _)| cert.clone()).unwrap_or_default()
    }
}

fn incomplete(files: [Option<PathBuf>; 3], accepted: &'static str) -> TlsError {
    let names = ["ca-file", "cert-file", "key-file"];
    let listed = |given: bool| {
        let named = names.iter().zip(&files).filter(|(_, file)| file.is_some() == given);
        named.map(|(name, _)| format!("--{name}")).collect::<Vec<_>>().join(" and ")
    };
    TlsError::Incomplete { given: listed(true), missing: listed(false), accepted }
}

/// The bytes of the files: what is compared to find out whether they have changed.
#[derive(PartialEq, Eq)]
pub(crate) struct Contents {
    ca: Vec<u8>,
    own: Option<(Vec<u8>, Vec<u8>)>,
}

impl Contents {
    pub(crate) fn read(fs: &dyn Fs, files: &TlsFiles) -> Result<Contents, TlsError> {
        let ca = read(fs, "ca-file", &files.ca)?;
        let own = match &files.own {
            Some((cert, key)) => Some((read(fs, "cert-file", cert)?, read(fs, "key-file", key)?)),
            None => None,
        };
        Ok(Contents { ca, own })
    }
}

fn read(fs: &dyn Fs, option: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    let fail = |error| TlsError::Unreadable { option, file: file.to_path_buf(), error: Arc::new(error) };
    let bytes = read_all(fs, file).map_err(fail)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB")));
    }
    Ok(bytes)
}

/// What the files contain, parsed and checked.
pub(crate) struct Parsed {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) own: Option<Arc<CertifiedKey>>,
    /// When the own certificate ends, in seconds of the Unix epoch.
    pub(crate) expires_at: Option<u64>,
}

/// The host name, or IP address, of a `host:port`.
pub(crate) fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Parses and checks. `node`: the advertised address of a node; its certificate must be one that others accept from it,
/// as a server of that name and, when it dials them, as a client.
pub(crate) fn parse(
    files: &TlsFiles,
    contents: &Contents,
    node: Option<&str>,
    clock: &dyn Clock,
) -> Result<Parsed, TlsError> {
    let roots = Arc::new(roots(files, contents)?);
    let (Some((cert, key)), Some((cert_file, key_file))) = (&contents.own, &files.own) else {
        return Ok(Parsed { roots, own: None, expires_at: None });
    };
    let chain = certificates("cert-file", cert_file, cert)?;
    let malformed = |what: String| malformed("key-file", key_file, what, KEY);
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|error| malformed(format!("it has no private key ({error})")))?;
    let own = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::KeyMismatch { cert: cert_file.to_path_buf(), key: key_file.to_path_buf() }
        }
        error @ Error::InvalidCertificate(_) => {
            self::malformed("cert-file", cert_file, format!("the certificate is invalid ({error})"), CERTIFICATES)
        }
        error => malformed(format!("the key cannot be used ({error})")),
    })?;
    let checks = Checks {
        files,
        roots: &roots,
        own: &own,
        now: UnixTime::since_unix_epoch(Duration::from_millis(clock.wall_ms())),
    };
    checks.validity()?;
    if let Some(address) = node {
        checks.of_node(address)?;
    }
    let expires_at = checks.expires_at();
    Ok(Parsed { roots, own: Some(Arc::new(own)), expires_at })
}

fn roots(files: &TlsFiles, contents: &Contents) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates("ca-file", &files.ca, &contents.ca)? {
        let added = roots.add(authority);
        added.map_err(|error| {
            malformed("ca-file", &files.ca, format!("a certificate is invalid ({error})"), CERTIFICATES)
        })?;
    }
    Ok(roots)
}

/// At least one.
fn certificates(option: &'static str, file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates =
        parsed.map_err(|error| malformed(option, file, format!("it is not valid PEM ({error})"), CERTIFICATES))?;
    match certificates.is_empty() {
        true => Err(malformed(option, file, "it has no certificate".into(), CERTIFICATES)),
        false => Ok(certificates),
    }
}

fn malformed(option: &'static str, file: &Path, what: String, accepted: &'static str) -> TlsError {
    TlsError::Malformed { option, file: file.to_path_buf(), what, accepted }
}

/// The checks that another node or client will make of the own certificate.
struct Checks<'a> {
    files: &'a TlsFiles,
    roots: &'a Arc<RootCertStore>,
    own: &'a CertifiedKey,
    now: UnixTime,
}

impl Checks<'_> {
    fn refused(&self, why: impl Into<String>) -> TlsError {
        TlsError::Refused { file: self.files.cert(), why: why.into() }
    }

    fn problem(&self, error: &Error) -> TlsError {
        self.refused(certificate_problem(error, &self.files.ca))
    }

    fn leaf(&self) -> Result<ParsedCertificate<'_>, Error> {
        // `CertifiedKey` has parsed the first certificate to compare the keys, so there is one.
        let first = self.own.end_entity_cert()?;
        ParsedCertificate::try_from(first)
    }

    fn signed(&self, at: UnixTime) -> Result<(), Error> {
        let intermediates = self.own.cert.get(1..).unwrap_or_default();
        let algorithms = ring::default_provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&self.leaf()?, self.roots, intermediates, at, algorithms)
    }

    /// Of a client only the dates are checked here: nodes may accept other authorities than the client does, and its
    /// certificate need not be one for servers.
    fn validity(&self) -> Result<(), TlsError> {
        use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
        match self.signed(self.now) {
            Err(
                error @ Error::InvalidCertificate(
                    Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
                ),
            ) => Err(self.problem(&error)),
            _ => Ok(()),
        }
    }

    fn of_node(&self, address: &str) -> Result<(), TlsError> {
        self.signed(self.now).map_err(|error| self.problem(&error))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider()).build();
        let verifier = verifier.map_err(|error| self.refused(error.to_string()))?;
        let intermediates = self.own.cert.get(1..).unwrap_or_default();
        let leaf = self.own.end_entity_cert().map_err(|error| self.problem(&error))?;
        verifier.verify_client_cert(leaf, intermediates, self.now).map_err(|error| self.problem(&error))?;
        let host = host_of(address);
        let name = ServerName::try_from(host)
            .map_err(|_| self.refused(format!("the address {address} has no host name that certificates can have")))?;
        let checked = self.leaf().and_then(|leaf| verify_server_name(&leaf, &name));
        checked.map_err(|error| self.problem(&error))
    }

    /// The library has no call for it, but its error about a certificate that has expired names the date.
    fn expires_at(&self) -> Option<u64> {
        match self.signed(UnixTime::since_unix_epoch(END_OF_TIME)) {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
                Some(not_after.as_secs())
            }
            _ => None,
        }
    }
}

impl Parsed {
    /// The end of the own certificate, for texts.
    pub(crate) fn expires_text(&self) -> String {
        self.expires_at.map_or_else(|| "at an unknown time".into(), utc)
    }
}

#[cfg(test)]
#[path = "files_test.rs"]
mod tests;
