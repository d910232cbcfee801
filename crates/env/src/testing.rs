//! Helpers for tests: addresses for real sockets, and golden files.

use parking_lot::Mutex;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// Claims an address: a port on which nothing else listens here.
const CLAIM_PORT: u16 = 65_535;
/// Bits of the address that count the addresses of one process.
const COUNT_BITS: u32 = 10;
/// Addresses that one process tries at most.
const TRIES_MAX: u32 = 1 << (COUNT_BITS + 2);
/// 127.1.0.0: services of this machine listen below.
const FIRST_HOST: u32 = 0x01_0000;
/// After 127.255.255.255.
const HOSTS_END: u32 = 0x100_0000;

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
    for _ in 0..TRIES_MAX {
        let Some(address) = candidate(std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)) else { continue };
        if let Ok(claim) = TcpListener::bind((address, CLAIM_PORT)) {
            CLAIMS.lock().push(claim);
            return address;
        }
    }
    panic!("no free address in 127/8; does this system route all of it to itself?")
}

/// The address that a process tries at a count, if a host can have it. Processes that run at once have different
/// numbers, so the first try of each practically always succeeds.
fn candidate(process: u32, count: u32) -> Option<Ipv4Addr> {
    let number = (u64::from(process) << COUNT_BITS) + u64::from(count);
    let host = FIRST_HOST + (number % u64::from(HOSTS_END - FIRST_HOST)) as u32;
    (host & 0xFF != 0xFF && host & 0xFF != 0).then(|| Ipv4Addr::from(127 << 24 | host))
}

/// Set, it makes [`check_golden`] write the files that it would compare with.
const UPDATE: &str = "UPDATE_GOLDENFILES";
/// Bytes in a line of a golden file.
const GOLDEN_LINE_BYTES: usize = 32;

/// Compares what an encoder wrote with the committed file of its format, which is hexadecimal text: the number of bytes
/// in the first line, then 32 bytes a line; zeros at the end are left out.
///
/// # Panics
/// If they differ: a format on disk or between nodes has changed. Older bytes must stay readable, so raise the version
/// of the format, keep this file for a test that reads it, and add one for the new version. For a new file, or a change
/// that is intended, run the test with `UPDATE_GOLDENFILES=1` and read the difference.
pub fn check_golden(path: &Path, bytes: &[u8]) {
    if std::env::var_os(UPDATE).is_some() {
        let folder = path.parent().expect("a file has a folder");
        std::fs::create_dir_all(folder).expect("the folder of golden files can be made");
        std::fs::write(path, golden_text(bytes)).expect("a golden file can be written");
    }
    let committed = read_golden(path);
    assert!(committed == bytes, "{} is not what is written today, which is:\n{}", path.display(), golden_text(bytes));
}

/// The bytes of a committed golden file; see [`check_golden`].
///
/// # Panics
/// If it is absent or is not one.
pub fn read_golden(path: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut lines = text.lines();
    let length = lines.next().and_then(|line| line.strip_suffix(" bytes")?.parse::<usize>().ok());
    let length = length.unwrap_or_else(|| panic!("{}: the first line is a number of bytes", path.display()));
    let digits: Vec<u8> = lines.flat_map(str::bytes).filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let mut bytes: Vec<u8> = digits.chunks(2).map(|pair| byte(pair).expect("two digits")).collect();
    assert!(bytes.len() <= length, "{}: more bytes than it says", path.display());
    bytes.resize(length, 0);
    bytes
}

fn golden_text(bytes: &[u8]) -> String {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut text = format!("{} bytes\n", bytes.len());
    for line in bytes[..used].chunks(GOLDEN_LINE_BYTES) {
        text.extend(line.iter().map(|byte| format!("{byte:02x}")));
        text.push('\n');
    }
    text
}

#[cfg(test)]
#[path = "testing_test.rs"]
mod tests;
