//! Exceptions from the rules, each with its reason. A rule reports an exception that is not needed any more.

/// An exception for one place.
pub struct Exception {
    /// A file, or the beginning of a path that ends in `/`.
    pub path: &'static str,
    /// What is allowed there: a call, the name of a function or of a module.
    pub what: &'static str,
    /// Why.
    pub reason: &'static str,
}

const fn excuse(path: &'static str, what: &'static str, reason: &'static str) -> Exception {
    Exception { path, what, reason }
}

/// Functions of more than 70 lines.
pub const LONG_FUNCTIONS: &[Exception] = &[];

/// Calls to the machine outside crates/env.
pub const CALLS: &[Exception] = &[
    excuse("tests/support/mod.rs", "thread::sleep", "polls other processes, with a deadline"),
    excuse("crates/client/src/transport/grpc.rs", "Instant::now", "the clock of deadlines of calls over the network"),
    excuse("crates/proto/build.rs", "std::fs", "a build script writes what it generates"),
    excuse("src/cli/node.rs", "std::fs", "a child process writes its log to a file of the operating system"),
    excuse("src/cli/data.rs", "std::fs", "values come from and go to files of the user, which may be pipes"),
    excuse("src/cli/serve.rs", "thread::spawn", "reading the standard input blocks; the thread ends with the process"),
    excuse("crates/xtask/", "std::fs", "a tool that reads the source tree, not part of the store"),
];

/// Files with unsafe code; each has an entry in UNSAFE.md.
pub const UNSAFE_FILES: &[Exception] = &[
    excuse(
        "crates/env/src/fs/bus_error.rs",
        "unsafe",
        "a page of a mapping that cannot be written becomes an error and does not end the process",
    ),
    excuse("crates/env/src/fs/map.rs", "unsafe", "appends to the log without a system call"),
    excuse("crates/env/src/memory.rs", "unsafe", "a call of the C library: unused memory goes back to the system"),
    excuse("bench/src/embedded/clock.rs", "unsafe", "reads the time stamp counter at every operation"),
    excuse("bench/src/embedded/machine.rs", "unsafe", "two system calls that the standard library lacks"),
    excuse("bench/src/engines/lmdb.rs", "unsafe", "LMDB's memory map can only be opened by an unsafe function"),
    excuse("crates/engine/src/prefetch.rs", "unsafe", "the prefetch instruction has no safe API"),
    excuse(
        "crates/engine/src/memtable/tree/",
        "unsafe",
        "records and nodes in an arena that is freed as a whole; see UNSAFE.md",
    ),
];

/// Uses of a module that is not in a lower layer: the file, and the module that it uses.
pub const UPWARD_DEPENDENCIES: &[Exception] = &[
    excuse("crates/server/src/driver/inbox.rs", "snapshots", "an input holds what the snapshot job answers"),
    excuse("crates/server/src/driver/inbox.rs", "surveys", "an input holds what the survey job answers"),
    excuse("crates/server/src/kv/answer.rs", "txn_convert", "answers contain errors of keys, which it converts"),
];

/// Finds the exception for `what` at `path`.
pub fn find(list: &'static [Exception], path: &str, what: &str) -> Option<usize> {
    let covers = |e: &Exception| e.path == path || (e.path.ends_with('/') && path.starts_with(e.path));
    list.iter().position(|e| covers(e) && e.what == what)
}
