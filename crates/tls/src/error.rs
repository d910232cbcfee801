//! What is wrong with the files.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why the files of a node or a client cannot be used. Each text names the file, what is wrong with it, and the remedy.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Some of the options were given without the others.
    #[error("{given} is given without {missing}: accepted is {accepted}")]
    Incomplete {
        /// The options that were given.
        given: String,
        /// The ones that are missing.
        missing: String,
        /// Which options go together.
        accepted: &'static str,
    },
    /// A file cannot be read.
    #[error("{option} = {}: it cannot be read: {error}; name a PEM file that this process may read", file.display())]
    Unreadable {
        /// The option that names it.
        option: &'static str,
        /// The file.
        file: PathBuf,
        /// The system's error.
        error: Arc<io::Error>,
    },
    /// A file does not contain what it should.
    #[error("{option} = {}: {what}; accepted is {accepted}", file.display())]
    Malformed {
        /// The option that names it.
        option: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
        /// What should be in it.
        accepted: &'static str,
    },
    /// The private key is that of another certificate.
    #[error(
        "key-file = {}: the key does not match the certificate in cert-file = {}; name the key with which that \
         certificate was requested, or the certificate that was issued for this key",
        key.display(), cert.display()
    )]
    KeyMismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The certificate is one that others will refuse.
    #[error("cert-file = {}: {why}", file.display())]
    Refused {
        /// The file of the certificate.
        file: PathBuf,
        /// Why, and the remedy.
        why: String,
    },
}
