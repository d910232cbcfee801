//! Callers that change files on their own threads, beside the jobs: ingests, copies, compactions and collections on
//! request, families that come and go.

use super::shared::health::Health;
use crate::lock::{Mutex, Rank, RwLock, RwLockReadGuard};
use crate::{Family, Result};
use std::collections::BTreeMap;

/// See the head of this file.
pub(crate) struct Foreground {
    /// Held for reading by each of them; for writing by the thread that closes.
    callers: RwLock<()>,
    /// Held by a thread that ingests tables, and by one that chooses the version to copy.
    pub(crate) ingest: Mutex<()>,
    /// Held while a family is created or dropped: the names that are taken, once one was created.
    pub(super) family_change: Mutex<Option<BTreeMap<String, Family>>>,
}

impl Default for Foreground {
    fn default() -> Foreground {
        Foreground {
            callers: RwLock::new(Rank::Foreground, ()),
            ingest: Mutex::new(Rank::Ingest, ()),
            family_change: Mutex::new(Rank::FamilyChange, None),
        }
    }
}

impl Foreground {
    /// Kept by such a caller: the directory is not released before it is dropped.
    pub(super) fn enter(&self, health: &Health) -> Result<RwLockReadGuard<'_, ()>> {
        let here = self.callers.read();
        health.check_writable()?;
        Ok(here)
    }

    /// Waits for these callers. After the database was closed, so that none starts later, and none waits for long.
    pub(super) fn wait_for_all(&self) {
        drop(self.callers.write());
    }
}
