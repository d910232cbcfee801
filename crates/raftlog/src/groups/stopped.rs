//! Files of a directory that no process writes to.

use super::error::failed;
use super::format::FileId;
use super::read::Located;
use super::scan::scan;
use kontiki_engine::{Error, Result, StreamContents, StreamId};
use kontiki_env::fs::{Fs, OpenMode, list_if_there};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A file that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFileProblem {
    /// Which.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What was found.
    pub what: String,
}

/// What a check of files has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesChecked {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is damaged.
    pub problems: Vec<LogFileProblem>,
}

/// The newest file of each region.
pub struct StoppedFiles {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
    files: BTreeMap<StreamId, FileId>,
}

impl StoppedFiles {
    pub fn find(fs: Arc<dyn Fs>, directory: PathBuf) -> Result<StoppedFiles> {
        let names = list_if_there(&*fs, &directory).map_err(|error| failed(&directory, &error))?;
        // Names are sorted, and so are the numbers of a region.
        let files = names.iter().filter_map(|name| FileId::parse(name)).map(|id| (id.region, id)).collect();
        Ok(StoppedFiles { fs, directory, files })
    }

    pub fn ids(&self) -> impl Iterator<Item = StreamId> {
        self.files.keys().copied()
    }

    fn path(&self, id: FileId) -> PathBuf {
        self.directory.join(id.name())
    }

    pub fn last_index(&self, id: StreamId) -> Result<u64> {
        let Some(file) = self.files.get(&id) else { return Ok(0) };
        Ok(scan(&*self.fs, &self.path(*file), *file)?.group.bounds().last_index)
    }

    pub fn read(&self, id: StreamId) -> Result<StreamContents> {
        let Some(file_id) = self.files.get(&id) else { return Ok(StreamContents::default()) };
        let path = self.path(*file_id);
        let group = scan(&*self.fs, &path, *file_id)?.group;
        let file = self.fs.open(&path, OpenMode::Read).map_err(|error| failed(&path, &error))?;
        let positions = group.entries.iter().copied().collect();
        let entries = Located { file: Some((file, path, *file_id)), positions }.read()?;
        Ok(StreamContents { truncated_through: group.truncated_through, state: group.state, entries })
    }

    pub fn check(&self) -> Result<FilesChecked> {
        let mut checked = FilesChecked::default();
        for id in self.files.values() {
            checked.files += 1;
            match scan(&*self.fs, &self.path(*id), *id) {
                Ok(found) => checked.bytes += found.group.end,
                Err(Error::Corruption { file, offset, what }) => {
                    checked.problems.push(LogFileProblem { file, offset, what });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(checked)
    }
}
