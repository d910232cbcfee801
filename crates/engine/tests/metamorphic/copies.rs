//! Copies of the database, opened and compared; and a look at its directory from outside.

use crate::world::{DIR, World, compare};
use kontiki_engine::copy::BackupStore;
use kontiki_engine::inspect::{check, repair};
use kontiki_engine::{Db, Result};
use kontiki_env::rng::Rng;
use std::path::{Path, PathBuf};

const BACKUPS: &str = "/backups";

impl World {
    fn next_copy(&mut self) -> PathBuf {
        self.copies += 1;
        PathBuf::from(format!("/copy{}", self.copies))
    }

    /// A directory that is not in use, opened, compared and closed. It has its own jobs.
    fn check_copy(&self, dir: &Path, rows: &crate::model::Rows, what: &str) -> Result<()> {
        let machine = self.machine.restarted(Rng::new(self.copies));
        let db = Db::open_in(&machine.env(), dir, self.options.clone())?;
        compare(&db, rows, self.now_ms(), what)?;
        db.put(b"copy", b"a write to it shows in no other")?;
        db.compact()?;
        db.close()
    }

    pub fn checkpoint(&mut self, _: &mut Rng) -> Result<()> {
        let target = self.next_copy();
        self.say(|| format!("checkpoint {}", target.display()));
        let report = self.db().checkpoint(&target)?;
        assert_eq!(report.sequence, self.model.last_sequence());
        self.model.all_durable();
        self.check_copy(&target, &self.model.rows, "a checkpoint")
    }

    pub fn back_up(&mut self, rng: &mut Rng) -> Result<()> {
        let store = BackupStore::open_in(&self.machine.env(), Path::new(BACKUPS))?;
        if self.backups.is_empty() || rng.chance(1, 2) {
            self.say(|| "back up".into());
            let info = store.create(self.db(), &mut |_| ())?;
            assert_eq!(info.sequence, self.model.last_sequence());
            self.model.all_durable();
            self.backups.insert(info.number, self.model.rows.clone());
        }
        let chosen = rng.below(self.backups.len() as u64) as usize;
        let (&number, rows) = self.backups.iter().nth(chosen).expect("it was counted");
        let rows = rows.clone();
        if self.backups.len() > 3 {
            self.say(|| format!("delete backup {number}"));
            // Half deleted is not there any more.
            self.backups.remove(&number);
            return store.delete(number);
        }
        self.say(|| format!("restore {number}"));
        let listed: Vec<u64> = store.list()?.iter().map(|info| info.number).collect();
        assert!(self.backups.keys().all(|number| listed.contains(number)), "{listed:?}: one is missing");
        store.verify(number, &mut |_| ())?;
        let target = self.next_copy();
        store.restore(number, &target, &mut |_| ())?;
        self.check_copy(&target, &rows, "a restored backup")
    }

    /// The directory is sound, and what a repair saves of a sound one is all of it.
    pub fn inspect(&mut self, rng: &mut Rng) -> Result<()> {
        self.say(|| "inspect".into());
        let db = self.let_go().expect("it is open");
        if rng.chance(1, 2) {
            db.close()?;
        } else {
            self.machine.fs.crash(kontiki_env::fs::CrashMode::Kill);
            drop(db);
        }
        let env = self.machine.env();
        let report = check(&env, Path::new(DIR))?;
        assert!(report.is_sound(), "{:?}", report.problems);
        if rng.chance(1, 2) {
            let target = self.next_copy();
            let report = repair(&env, Path::new(DIR), &target)?;
            assert!(report.checked.is_sound() && report.versions_dropped == 0, "{:?}", report.problems);
            self.check_copy(&target, &self.model.rows, "a repaired directory")?;
        }
        self.open()?;
        let sequence = self.db().snapshot().sequence();
        self.model.recover(sequence, true).unwrap_or_else(|what| panic!("inspected: {what}"));
        self.check_all("inspected")
    }
}
