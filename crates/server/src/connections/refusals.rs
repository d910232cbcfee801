//! Reports refused handshakes: a misconfigured client is visible in the log, and one that tries again and again, or a
//! port scanner, does not fill it.

use super::Connections;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::time::Duration;

/// Of the refusals within this time the first is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What was logged, and what was not.
#[derive(Default)]
pub(super) struct RefusalLog {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    logged_at_ms: Option<u64>,
    unlogged: u64,
}

impl Connections {
    /// A connection from `from` was refused before its first request.
    pub(super) fn refused_handshake(&self, from: SocketAddr, why: &str) {
        self.metrics.handshakes_failed.inc();
        let now_ms = self.now_ms();
        let mut state = self.refusals.state.lock();
        let since_ms = state.logged_at_ms.map(|at| now_ms.saturating_sub(at));
        if since_ms.is_some_and(|ms| u128::from(ms) < LOG_INTERVAL.as_millis()) {
            state.unlogged += 1;
            return;
        }
        let unlogged = std::mem::take(&mut state.unlogged);
        state.logged_at_ms = Some(now_ms);
        drop(state);
        tracing::warn!(%from, why, unlogged, "a connection was refused; tls_handshakes_failed counts these");
    }
}
