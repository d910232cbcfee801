//! The raft logs of a directory whose node does not run, for tools. Nothing is changed.
//!
//! A crash may have left a commit half done in files ([`crate::groups`]); the next start completes it. Here the logs
//! that it removes are left out, and the rest of it, which was never acknowledged, may be missing.

use crate::groups::{FilesChecked, StoppedFiles};
use crate::record::Place;
use crate::{DIRECTORY, LogChoice};
use kontiki_engine::{Db, Options, Result, StreamContents, StreamId, StreamOp};
use kontiki_env::Env;
use kontiki_state::BuiltIn;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// See the module.
pub struct StoppedLogs<'a> {
    db: &'a Db,
    choice: LogChoice,
    files: StoppedFiles,
    removed: BTreeSet<StreamId>,
}

impl<'a> StoppedLogs<'a> {
    /// The logs of the data directory of `db`.
    pub fn open(env: &Env, data_dir: &Path, db: &'a Db, place: Place) -> Result<StoppedLogs<'a>> {
        let state = BuiltIn::new(db.clone(), env, Options::default().table);
        let choice = place.choice(&state, data_dir)?.unwrap_or_default();
        let is_removal = |op| if let StreamOp::Remove { stream } = op { Some(stream) } else { None };
        let removed = place.intent(&state, data_dir)?.into_iter().filter_map(is_removal).collect();
        let files = StoppedFiles::find(env.fs.clone(), data_dir.join(DIRECTORY))?;
        Ok(StoppedLogs { db, choice, files, removed })
    }

    /// Where they are.
    pub fn choice(&self) -> LogChoice {
        self.choice
    }

    /// Reads a log and its state; an unknown one is empty.
    pub fn read(&self, id: StreamId) -> Result<StreamContents> {
        match self.choice {
            LogChoice::PerGroup if self.removed.contains(&id) => Ok(StreamContents::default()),
            LogChoice::PerGroup => self.files.read(id),
            LogChoice::Shared | LogChoice::Memory => self.db.stream(id),
        }
    }

    /// The last index of each log.
    pub fn last_indices(&self) -> Result<BTreeMap<StreamId, u64>> {
        if self.choice != LogChoice::PerGroup {
            return Ok(self.db.streams().into_iter().map(|id| (id, self.db.stream_last_index(id))).collect());
        }
        let ids = self.files.ids().filter(|id| !self.removed.contains(id));
        ids.map(|id| Ok((id, self.files.last_index(id)?))).collect()
    }
}

/// Reads every file with raft logs in a data directory, and reports what is damaged. A file is whole as soon as it has
/// its name, so this holds also for files that an interrupted move has left.
pub fn check_files(env: &Env, data_dir: &Path) -> Result<FilesChecked> {
    StoppedFiles::find(env.fs.clone(), data_dir.join(DIRECTORY))?.check()
}
