//! The options of a client.

use kontiki_tls::TlsFiles;
use std::time::Duration;

/// Options of a [`crate::Client`]. The defaults suit interactive use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Timeout of a whole operation, including retries and waits for locks. Default 20 s.
    pub operation_timeout: Duration,
    /// Timeout of one request to one node; then another node or another try follows. Default 3 s.
    pub request_timeout: Duration,
    /// Timeout of connecting to one node. Default 1 s.
    pub connect_timeout: Duration,
    /// Longest wait before the next try. Default 400 ms.
    pub backoff_max: Duration,
    /// Return from a commit once the primary key is committed (the transaction is decided then), and commit the
    /// other keys in the background. Processes that end right after a commit choose false. Default true.
    pub background_secondaries: bool,
    /// Send a raw write again when its answer was lost, instead of failing with [`crate::Error::Undetermined`]. The
    /// repetition can undo another client's write of the same key that came in between, so raw keys with several
    /// writers are no longer linearizable. Default false.
    pub repeat_uncertain_writes: bool,
    /// Labels of this client as stores have them, such as its zone: reads that any replica may serve go to stores with
    /// most of the same ([`crate::ReadFrom`]). Default none.
    pub labels: Vec<(String, String)>,
    /// Use TLS, with the certificates in these files, which are read again when they change; a scheme in an endpoint
    /// has no effect. Default none: plain text.
    pub tls: Option<TlsFiles>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            operation_timeout: Duration::from_secs(20),
            request_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(1),
            backoff_max: Duration::from_millis(400),
            background_secondaries: true,
            repeat_uncertain_writes: false,
            labels: Vec::new(),
            tls: None,
        }
    }
}
