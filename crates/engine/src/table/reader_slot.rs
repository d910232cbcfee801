//! The place where a table of a version has its open reader. What is in it is decided by the table cache of `version`.

use super::TableReader;
use arc_swap::{ArcSwapOption, Guard};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A table's open reader, if it is open.
#[derive(Default)]
pub struct ReaderSlot {
    pub(crate) reader: ArcSwapOption<TableReader>,
    /// Used since the clock's hand last passed.
    pub(crate) used: AtomicBool,
}

impl std::fmt::Debug for ReaderSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReaderSlot(open: {})", self.reader.load().is_some())
    }
}

/// A reader for a short while: no reference count is touched, in the common case.
pub struct HeldReader(pub(crate) Guard<Option<Arc<TableReader>>>);

impl Deref for HeldReader {
    type Target = TableReader;

    fn deref(&self) -> &TableReader {
        self.0.as_ref().expect("made of a reader only")
    }
}

impl HeldReader {
    /// The same, counted: for a caller that keeps many readers, or keeps one for long.
    pub fn into_counted(self) -> HeldReader {
        HeldReader::from(Guard::into_inner(self.0).expect("made of a reader only"))
    }
}

impl From<Arc<TableReader>> for HeldReader {
    fn from(reader: Arc<TableReader>) -> HeldReader {
        HeldReader(Guard::from_inner(Some(reader)))
    }
}
