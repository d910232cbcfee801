//! A table as versions share it.

use super::files::ObsoleteFiles;
use crate::Family;
use crate::table::TableMeta;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A live table. When an edit has removed it and the last version, iterator or snapshot that refers to it is gone,
/// its file is put on the list of obsolete files; a job removes it from there.
#[derive(Debug)]
pub struct Table {
    family: Family,
    meta: TableMeta,
    removed: AtomicBool,
    obsolete: Arc<ObsoleteFiles>,
}

impl Table {
    pub(super) fn new(family: Family, meta: TableMeta, obsolete: Arc<ObsoleteFiles>) -> Table {
        Table { family, meta, removed: AtomicBool::new(false), obsolete }
    }

    /// Its family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// What the manifest records of it.
    pub fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// Called once a durable edit has removed it.
    pub(super) fn mark_removed(&self) {
        let before = self.removed.swap(true, Ordering::AcqRel);
        assert!(!before, "table {} is removed twice", self.meta.number);
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        if self.removed.load(Ordering::Acquire) {
            self.obsolete.push_table(self.meta.number);
        }
    }
}
