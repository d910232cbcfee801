//! Files that nothing refers to any more.

use crate::lock::{Mutex, Rank};
use crate::table::{FileNumber, table_path};
use crate::version::TableCache;
use crate::{Error, Result};
use kontiki_env::Env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Obsolete {
    Table(FileNumber),
    Other(PathBuf),
}

/// The list of obsolete files; shared by all tables, so that dropping one costs a push.
pub(super) struct ObsoleteFiles {
    waiting: Mutex<Vec<Obsolete>>,
    /// Notified of the first file on an empty list.
    on_first: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Default for ObsoleteFiles {
    fn default() -> ObsoleteFiles {
        ObsoleteFiles { waiting: Mutex::new(Rank::ObsoleteFiles, Vec::new()), on_first: OnceLock::new() }
    }
}

impl std::fmt::Debug for ObsoleteFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObsoleteFiles").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl ObsoleteFiles {
    pub(super) fn push_table(&self, number: FileNumber) {
        self.push(Obsolete::Table(number));
    }

    pub(super) fn push_path(&self, path: PathBuf) {
        self.push(Obsolete::Other(path));
    }

    /// Sets the callback for files. Once.
    pub(super) fn set_on_first(&self, callback: Box<dyn Fn() + Send + Sync>) {
        assert!(self.on_first.set(callback).is_ok(), "set once, at open");
    }

    fn push(&self, file: Obsolete) {
        let first = {
            let mut waiting = self.waiting.lock();
            waiting.push(file);
            waiting.len() == 1
        };
        if let (true, Some(callback)) = (first, self.on_first.get()) {
            callback();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Removes what is on the list now. What cannot be removed stays on it; the first error is returned.
    pub(super) fn remove(&self, env: &Env, tables_dir: &Path, cache: &TableCache) -> Result<usize> {
        let mut batch = std::mem::take(&mut *self.waiting.lock());
        // The order of drops depends on threads; the order of removals should not.
        batch.sort_by_key(|file| match file {
            Obsolete::Table(number) => (0, *number, PathBuf::new()),
            Obsolete::Other(path) => (1, 0, path.clone()),
        });
        if !batch.is_empty() {
            cache.sweep();
        }
        let mut removed = 0;
        let mut first_error = None;
        for file in batch {
            let path = match &file {
                Obsolete::Table(number) => table_path(tables_dir, *number),
                Obsolete::Other(path) => path.clone(),
            };
            match env.fs.remove(&path) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.waiting.lock().push(file);
                    first_error.get_or_insert(Error::io(&path, &error));
                }
            }
        }
        debug_assert!(first_error.is_none() || self.len() > 0, "what could not be removed waits");
        match first_error {
            Some(error) => Err(error),
            None => Ok(removed),
        }
    }
}
