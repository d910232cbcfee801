//! The primitives that the block cache is built on. In the model of its tests others stand here.

pub(super) use arc_swap::{ArcSwapOption, Guard};
pub(super) use parking_lot::Mutex;
pub(super) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
