//! Checkpoints and backups in parallel with everything else.

use crate::world::{Worker, check_snapshot};
use kontiki_engine::copy::BackupStore;
use kontiki_engine::{Db, Options};
use std::path::Path;

fn remove(dir: &Path) {
    if dir.exists() {
        std::fs::remove_dir_all(dir).expect("ours");
    }
}

/// A copy is a database of one moment.
fn check_copy(dir: &Path, what: &str) {
    let copy = Db::open(dir, Options::default()).expect("a copy opens");
    check_snapshot(&copy.snapshot(), what).expect("a copy is readable");
    copy.close().expect("healthy");
}

pub fn checkpoint(worker: &Worker) {
    worker.repeat(|world, turn| {
        let dir = world.dir.join(format!("checkpoint-{turn}"));
        remove(&dir);
        let outcome = world.db.checkpoint(&dir);
        if outcome.is_ok() {
            check_copy(&dir, "a checkpoint");
        }
        remove(&dir);
        outcome.map(drop)
    });
}

pub fn backup(worker: &Worker) {
    worker.repeat(|world, turn| {
        let (dir, restored) = (world.dir.join("backups"), world.dir.join("restored"));
        let store = BackupStore::open(&dir)?;
        let made = store.create(&world.db, &mut |_| {})?;
        store.verify(made.number, &mut |_| {})?;
        if turn % 4 == 0 {
            remove(&restored);
            store.restore(made.number, &restored, &mut |_| {})?;
            check_copy(&restored, "a restored backup");
            remove(&restored);
        }
        for old in store.list()? {
            if old.number + 3 < made.number {
                store.delete(old.number)?;
            }
        }
        Ok(())
    });
}
