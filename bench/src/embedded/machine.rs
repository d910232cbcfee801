//! Figures of the operating system about this process and about a directory, and how to empty the page cache.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn proc_number(file: &str, field: &str) -> u64 {
    let text = std::fs::read_to_string(file).expect("proc is mounted");
    let line = text.lines().find(|line| line.starts_with(field)).expect("a known field");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Bytes that this process has written to the page cache or directly to a disk.
pub fn written_bytes() -> u64 {
    proc_number("/proc/self/io", "write_bytes")
}

/// Most memory that this process ever had.
pub fn peak_memory_bytes() -> u64 {
    proc_number("/proc/self/status", "VmHWM") << 10
}

/// The machine's load average of the last minute.
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").expect("proc is mounted");
    text.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Processor time that this process has used, in microseconds.
pub fn cpu_us() -> u64 {
    // SAFETY: an all-zero rusage is valid, and the call writes no further than its size.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let us = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    us(usage.ru_utime) + us(usage.ru_stime)
}

const QUIET: Duration = Duration::from_millis(300);
const QUIET_CPU_US: u64 = 15_000;
const SETTLE_MAX: Duration = Duration::from_secs(180);

/// Waits until this process has used almost no processor time and written nothing for 0.3 s; returns when that began.
pub fn wait_until_quiet() -> Instant {
    let begin = Instant::now();
    let (mut since, mut cpu, mut written) = (begin, cpu_us(), written_bytes());
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let (cpu_now, written_now) = (cpu_us(), written_bytes());
        if cpu_now > cpu + QUIET_CPU_US || written_now != written {
            (since, cpu, written) = (Instant::now(), cpu_now, written_now);
        }
        if since.elapsed() >= QUIET {
            return since;
        }
        assert!(begin.elapsed() < SETTLE_MAX, "background work does not end");
    }
}

/// All files below a directory. A file that is deleted meanwhile is left out.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Bytes allocated on disk below a directory (so neither holes nor space only reserved by length count).
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    files(dir).iter().filter_map(|path| path.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}

/// Syncs everything below a directory, so that the page cache can drop it.
pub fn sync_all(dir: &Path) {
    files(dir).iter().filter_map(|path| std::fs::File::open(path).ok()).for_each(|file| {
        file.sync_all().expect("sync");
    });
}

/// Drops the files below a directory from the page cache.
pub fn drop_cached(dir: &Path) {
    for file in files(dir).iter().filter_map(|path| std::fs::File::open(path).ok()) {
        // SAFETY: only a hint on a descriptor that is open.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
}
