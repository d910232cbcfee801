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
    /// How transactions lock and commit, unless they are begun with options of their own.
    pub transactions: TransactionOptions,
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
            transactions: TransactionOptions::default(),
            tls: None,
        }
    }
}

/// How a transaction locks and commits.
///
/// A commit takes the first of these ways that its keys permit; nothing but the time differs for the caller:
///
/// | way | condition | round trips that the caller waits for |
/// |---|---|---|
/// | one phase | all keys are in one region and fit into one request | 2: a timestamp, the write |
/// | async commit | at most 256 keys, together at most 4 KiB | 2: a timestamp, the locks |
/// | two phases | none | 3: the locks, a timestamp, the primary's record |
///
/// A server that does not know the first two, or declines them, answers so, and the commit continues in two phases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionOptions {
    /// Commit in one request if all keys are in one region. Default true.
    pub one_phase_commit: bool,
    /// Return from a commit once all keys are locked: the transaction is decided then, and its commit records are
    /// written in the background. Default true: after a crash of this client any other client finds the outcome from
    /// the locks. The exception are clients that never ask for the secondary locks (the Rust crate of TiKV, up to 0.4);
    /// where these read what this client writes, choose false.
    pub async_commit: bool,
    /// How long a pessimistic transaction waits for the locks of others, per call, before it fails with
    /// [`crate::Error::LockWaitTimeout`]; zero: not at all. Never longer than [`Options::operation_timeout`]. Default
    /// 10 s.
    pub lock_wait: Duration,
    /// Time to live of a pessimistic transaction's locks: how long those of a client that died keep others waiting. A
    /// live one prolongs it at each third of this time. Default 20 s.
    pub lock_ttl: Duration,
}

impl Default for TransactionOptions {
    fn default() -> TransactionOptions {
        TransactionOptions {
            one_phase_commit: true,
            async_commit: true,
            lock_wait: Duration::from_secs(10),
            lock_ttl: Duration::from_secs(20),
        }
    }
}

impl TransactionOptions {
    /// Commits in two phases only.
    pub fn two_phases() -> TransactionOptions {
        TransactionOptions { one_phase_commit: false, async_commit: false, ..TransactionOptions::default() }
    }
}
