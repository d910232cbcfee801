//! The deterministic simulator: a whole cluster in one thread from one seed, and the checkers that check what it did.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod check;
pub mod cluster;
pub mod executor;
pub mod history;
pub mod shrink;
pub mod wire;
pub mod workload;
pub mod world;
