//! Open and close.
//!
//! - `open`: lock, manifest, log replay (`log_replay`), jobs (`start_jobs`); `read_only`: open for reading only;
//! - `close`: the jobs end, the log is sealed, the directory is released;
//! - `descriptors`: the layer between the engine and its file system that handles a lack of descriptors.

mod close;
mod descriptors;
mod log_replay;
pub(super) mod open;
mod read_only;
mod start_jobs;
