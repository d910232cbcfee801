//! The files of the value log as versions list them: what a flush adds, what a crash leaves open, and what becomes
//! garbage. The bytes in them are those of `vlog`.
//!
//! - `flushed_values`: the file that a flush writes beside its tables;
//! - `recovery`: the segments that were open when the process ended;
//! - [`collection_plan`] and `relocate`: the collection of garbage; its job is in `db/`.

pub(crate) mod collection_plan;
mod flushed_values;
mod recovery;
mod relocate;

pub(crate) use flushed_values::FlushedValues;
pub(crate) use recovery::ValueRecovery;
pub(crate) use relocate::{Relocation, Relocator};
