//! Helpers for tests over real sockets.

use parking_lot::Mutex;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Claims an address: a port on which nothing else listens here.
const CLAIM_PORT: u16 = 65_535;
/// Bits of the address that count the addresses of one process.
const COUNT_BITS: u32 = 10;

/// Held for the life of the process.
static CLAIMS: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());

/// A loopback address (127/8) that no other test of this machine uses: every port of it is free, and stays free while
/// a process that listened there is down. A port of 127.0.0.1 that was free a moment ago is not: another test, or the
/// outgoing end of any connection, may have it by then.
///
/// # Panics
/// If thousands of addresses in a row are taken, which means that this system does not route 127/8 to itself.
pub fn loopback_address() -> Ipv4Addr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1 << (COUNT_BITS + 2) {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        // Processes that run at once have different numbers, so the first try of each practically always succeeds.
        let host = (std::process::id() << COUNT_BITS).wrapping_add(count) & 0x00FF_FFFF;
        let address = Ipv4Addr::from(127 << 24 | host);
        let is_ours = host > 0xFFFF && host & 0xFF != 0xFF && host & 0xFF != 0;
        if let Some(claim) = is_ours.then(|| TcpListener::bind((address, CLAIM_PORT)).ok()).flatten() {
            CLAIMS.lock().push(claim);
            return address;
        }
    }
    panic!("no free address in 127/8; does this system route all of it to itself?")
}

#[cfg(test)]
#[path = "testing_test.rs"]
mod tests;
