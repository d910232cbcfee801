//! New files: written under a temporary name, synced, and then renamed. So a file with a whole name is whole.

use super::error::{failed, fatal};
use super::format::{FileId, HEADER_BYTES, TEMPORARY, encode_header, encode_record};
use super::group::Group;
use crate::ops;
use crate::planted::{self, Bug};
use kontiki_engine::Result;
use kontiki_env::fs::{File, Fs, OpenMode};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file that does not have its name yet. It is removed if it does not get it.
pub struct NewFile {
    fs: Arc<dyn Fs>,
    file: Arc<dyn File>,
    temporary: PathBuf,
    path: PathBuf,
    group: Group,
    is_named: bool,
}

impl NewFile {
    pub fn create(fs: &Arc<dyn Fs>, directory: &Path, id: FileId) -> Result<NewFile> {
        let path = directory.join(id.name());
        let temporary = directory.join(format!("{}{TEMPORARY}", id.name()));
        if fs.exists(&temporary) {
            fs.remove(&temporary).map_err(|error| failed(&temporary, &error))?;
        }
        let file = fs.open(&temporary, OpenMode::CreateNew).map_err(|error| failed(&temporary, &error))?;
        Ok(NewFile { fs: fs.clone(), file, temporary, path, group: Group::new(id), is_named: false })
    }

    /// Adds a record.
    pub fn add(&mut self, body: &[u8]) -> Result<()> {
        let (id, at) = (self.group.id, self.group.end);
        // The header says that all of it is durable.
        let record = encode_record(id, at, HEADER_BYTES, body);
        self.file.write_at(&record, at).map_err(|error| failed(&self.temporary, &error))?;
        let items = ops::decode(body).expect("it was encoded here");
        self.group.apply(at, body, items).expect("a log without gaps is written without gaps");
        self.group.end += record.len() as u64;
        Ok(())
    }

    /// Completes and syncs the file. Until it has its name nothing of this has happened.
    pub fn sync(&mut self) -> Result<()> {
        let header = encode_header(self.group.id, self.group.end);
        self.file.write_at(&header, 0).map_err(|error| failed(&self.temporary, &error))?;
        if !planted::is_set(Bug::FilesNotSynced) {
            // The file is given up if it fails, so a full disk may be the reason.
            self.file.sync().map_err(|error| failed(&self.temporary, &error))?;
        }
        Ok(())
    }

    /// Gives the file its name, which is durable when the directory is synced.
    pub fn name(mut self) -> Result<Group> {
        self.fs.rename(&self.temporary, &self.path).map_err(|error| fatal(&self.path, "rename failed", &error))?;
        self.is_named = true;
        let id = self.group.id;
        let mut group = std::mem::replace(&mut self.group, Group::new(id));
        (group.allocated, group.durable) = (group.end, group.end);
        group.handle = Some(self.file.clone());
        Ok(group)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // What is left is removed at the next start.
        if !self.is_named && self.fs.exists(&self.temporary) {
            let _ = self.fs.remove(&self.temporary);
        }
    }
}
