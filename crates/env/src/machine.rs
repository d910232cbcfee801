//! The size of the machine, as far as this process may use it.

use std::path::Path;

/// The resources of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineSize {
    /// Bytes of memory: the machine's, or the control group's limit if that is smaller. `None` where neither is known.
    pub memory_bytes: Option<u64>,
    /// Threads that run at once; at least 1.
    pub cores: usize,
}

/// Reads them from the system. Containers are recognised by their control group (version 2, and 1 at its usual place).
pub fn machine_size() -> MachineSize {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().find_map(|path| read(path)).and_then(|text| parse_limit(&text));
    let total = read("/proc/meminfo").and_then(|text| parse_total(&text));
    let memory_bytes = match (total, limit) {
        (Some(total), Some(limit)) => Some(total.min(limit)),
        (total, limit) => total.or(limit),
    };
    MachineSize { memory_bytes, cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()) }
}

/// How many files and connections this process may have open at once; `None` where there is no bound.
pub fn descriptors_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// Raises that number as far as the system lets this process (its hard limit), and returns it. For a program's start:
/// the limit that most systems begin with, 1,024, exists for programs that use `select`, and a library should not
/// change it.
pub fn raise_descriptors_max() -> std::io::Result<Option<u64>> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}

/// The number in a control group's limit; "max" is none.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// `MemTotal` of /proc/meminfo, which counts in units of 1,024 bytes.
fn parse_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
#[path = "machine_test.rs"]
mod tests;
