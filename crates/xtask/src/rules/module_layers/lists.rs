//! The layers of each crate's modules, and of the parts of some larger folders; the crates as in ARCHITECTURE.md, from
//! the bottom.
//!
//! A module's layer follows from its purpose, not only from its dependencies: what assembles, and what tests and tools
//! use, is on top although nothing forbids a lower place. Not every folder has a list: parts that name each other in
//! cycles have no layers.

/// A crate or a folder of one, and its modules from the lowest layer to the highest. A module may use those of lower
/// layers alone: those of one layer do not use each other.
pub(super) type Layers = (&'static str, &'static [&'static [&'static str]]);

pub(super) const LAYERS: &[Layers] = &[
    ENV,
    ENGINE,
    ENGINE_DB,
    PROTO,
    TLS,
    TXN,
    TXN_ACTION,
    RAFTSTORE,
    RAFTSTORE_PEER,
    RAFTSTORE_STORE,
    PLACEMENT,
    STATE,
    RAFTLOG,
    SERVER,
    SERVER_DRIVER,
    SERVER_KV,
    CLIENT,
    SIM,
    SIM_CLUSTER,
    XTASK,
];

/// The interfaces to the machine, `clock`, `fs` and `tasks`, do not know each other: each can be replaced alone.
const ENV: Layers = (
    "env",
    &[
        &["codec", "error_kind", "key_text", "machine", "memcomparable", "memory", "planted", "rng"],
        &["clock", "fs", "tasks"],
        // For tests of all crates.
        &["testing"],
    ],
);

const ENGINE: Layers = (
    "engine",
    &[
        &["lock", "planted", "prefetch", "types"],
        &["cache", "dead_ranges", "directory", "extent", "hot", "key_locks", "ownership", "range"],
        &["measure", "memtable", "vlog"],
        &["log", "table"],
        &["stream", "version"],
        &["read"],
        &["value_files"],
        &["compaction"],
        &["db"],
        &["copy", "feed", "transaction"],
        &["inspect", "stats"],
    ],
);

/// The files and their errors, the two ends of a connection, and what is in use: it makes the node's end.
const TLS: Layers = ("tls", &[&["error", "explain"], &["files"], &["accept"], &["credentials"], &["connect"]]);

/// The parts of an open database: docs/internals/engine.md.
const ENGINE_DB: Layers = (
    "engine::db",
    &[
        &["options"],
        &["family_numbers", "shared", "snapshot"],
        &["write"],
        &["close_state", "foreground", "jobs", "transactions"],
        &["core"],
        &["begin_transaction", "family_changes", "get", "ingest"],
        &["lifecycle"],
    ],
);

/// Beside these there is only generated code.
const PROTO: Layers = ("proto", &[&["calls", "codec"]]);

/// Only the scheduler knows latches and replication: actions are functions of a command and a view.
const TXN: Layers = (
    "txn",
    &[
        &["assertion", "malformed", "planted", "timestamp"],
        &["lock"],
        &["error", "keys", "record"],
        &["yield_point"],
        &["gc", "read"],
        &["action", "memory_locks"],
        &["deadlock", "latch", "lock_waits", "replicated"],
        &["concurrency"],
        &["scheduler"],
        // For tests of this crate.
        &["testing"],
        &["testing_cluster"],
    ],
);

/// An action uses no other one, except that several roll keys back.
const TXN_ACTION: Layers = (
    "txn::action",
    &[
        &["mutation", "rollback"],
        &[
            "check_secondary",
            "check_status",
            "cleanup",
            "commit",
            "heartbeat",
            "pessimistic_lock",
            "pessimistic_rollback",
            "prewrite",
            "resolve",
        ],
    ],
);

/// A replica (`peer`) knows neither its store nor the store's events: the store calls it, and collects its effects.
const RAFTSTORE: Layers = (
    "raftstore",
    &[
        &["memory", "planted", "region"],
        &["config", "error", "families", "liveness", "recovery"],
        &["consensus", "log_speed", "readers"],
        &["leadership"],
        &["command", "meta"],
        &["checksum", "snapshot"],
        &["effect"],
        &["outbox"],
        &["peer"],
        &["event"],
        &["store"],
        // For tests of this crate.
        &["model"],
    ],
);

/// The parts are methods of a replica, one subject each. They name no types of each other: what they have in common is
/// the replica. The promise behind leases does not know that either.
const RAFTSTORE_PEER: Layers = (
    "raftstore::peer",
    &[
        &["noted", "promise", "reads"],
        &[
            "apply",
            "changes",
            "consistency",
            "entries",
            "flow",
            "gather",
            "hibernate",
            "lag",
            "leader_transfer",
            "lease",
            "members",
            "merge",
            "message",
            "propose",
            "ready",
            "receive",
            "removed",
            "serve",
            "split",
            "truncate",
        ],
        &["replica_reads", "safe_ts"],
    ],
);

/// A recovery leaves replicas that are not complete to `create`.
const RAFTSTORE_STORE: Layers = (
    "raftstore::store",
    &[
        &["found_log", "peers"],
        &["absorb", "create", "destroy", "lag", "log_memory", "safe_ts", "status", "wake"],
        &["recover"],
    ],
);

/// What a request changes (`ids`, `oracle`, `regions`, `stores`) does not know how it becomes durable.
const PLACEMENT: Layers = (
    "placement",
    &[
        &["config", "error", "gc_record", "message", "planted"],
        &["call", "ids", "oracle", "regions", "stores"],
        &["gc", "growing", "keyspaces"],
        &["state"],
        &["records"],
        &["leader"],
        &["machine"],
    ],
);

/// An engine knows the trait, and nothing knows an engine.
const STATE: Layers = ("state", &[&["choice", "planted", "view"], &["built_in"], &["conformance_test"]]);

/// The places of logs do not know each other; what opens them knows all.
const RAFTLOG: Layers = (
    "raftlog",
    &[
        &["choice", "ops", "planted"],
        &["record"],
        &["groups", "memory", "shared"],
        &["open", "stopped"],
        &["conformance_test"],
    ],
);

/// Protocols are above what they serve: `kv` and `pd` know neither gRPC nor HTTP, and the driver knows none of them.
const SERVER: Layers = (
    "server",
    &[
        &["config", "connections", "families", "planted", "stopping"],
        &["driver", "telemetry"],
        &["api"],
        &["kv", "transport"],
        &["pd", "resolver"],
        &["grpc", "http"],
        // Assembles a node; for tools, reads the directory of one that does not run.
        &["node", "stopped"],
    ],
);

/// From what does not know the driver to what it consists of. The handle is the interface for other threads; above it
/// are methods of the driver, one subject each.
const SERVER_DRIVER: Layers = (
    "server::driver",
    &[
        &[
            "convert",
            "counters",
            "error",
            "first_regions",
            "flusher",
            "lag_watch",
            "lane",
            "load_windows",
            "recovery_record",
            "served",
            "size_survey",
            "snapshot_space",
        ],
        &["arrivals", "gc_filter", "inconsistent", "install", "load_boundary", "membership"],
        &["message"],
        &["inbox"],
        &["checksums", "entry_reads", "gc_collector", "oldest_locks", "snapshots"],
        &["surveys"],
        &["handle"],
        &["led_locks"],
        &["calls", "hand_over", "lag", "log_disk"],
        &["deadlocks"],
        &["change_members", "checks", "effects", "gc", "heartbeat", "merge", "safe_ts", "split"],
        &["formation", "region_loads", "region_sizes", "replacement"],
        // For tools: no driver runs on that directory.
        &["lost_stores", "open"],
    ],
);

/// From the form of an answer, and the region of a request, to the requests.
const SERVER_KV: Layers = (
    "server::kv",
    &[
        &["answer", "answer_budget", "api_version", "crc64"],
        &["route", "txn_convert"],
        &["load", "raw_space"],
        &["scan"],
        &["delete_range", "raw", "raw_write", "split", "txn"],
        &["tinykv"],
        // For tests of this crate.
        &["fake"],
    ],
);

/// Raw keys and transactions do not know each other; what they have in common is below them.
const CLIENT: Layers = (
    "client",
    &[
        &["error", "metrics", "options", "region"],
        &["keys", "replicas", "reply", "transport"],
        &["backoff"],
        &["placement"],
        &["tso"],
        &["cluster"],
        &["scan"],
        &["raw", "txn"],
        &["client"],
        &["split"],
    ],
);

/// The world does not know what runs in it, and the checks do not know the world: they get what
/// happened and what is stored.
const SIM: Layers =
    ("sim", &[&["executor", "history", "wire"], &["check", "world"], &["workload"], &["cluster"], &["shrink"]]);

/// From what observes a node, over the node, to a run: what it consists of, and the checks at its end.
const SIM_CLUSTER: Layers = (
    "sim::cluster",
    &[
        &["changes", "commands", "digest", "serve", "watch"],
        &["node", "planted"],
        &["scenario"],
        &["client_mix", "final_checks"],
        &["leaks", "lost_majority"],
    ],
);

const XTASK: Layers = ("xtask", &[&["exceptions", "repo"], &["rules"]]);
