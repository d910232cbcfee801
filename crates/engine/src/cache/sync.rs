//! The primitives that the block cache is built on. The model of its tests replaces them.

pub(super) use crate::lock::{Mutex, Rank};
pub(super) use arc_swap::{ArcSwapOption, Guard};
pub(super) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
