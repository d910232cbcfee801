//! The primitives that `order.rs` is built on. In the model of its tests others stand here.

pub(super) use crate::log::SYNCS_MAX;
pub(super) use std::sync::atomic::{AtomicU64, Ordering};
pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
pub(super) use std::thread::yield_now;
