//! Tables from outside, a compaction of a range, and the directory opened read-only.

use crate::draw;
use crate::model::{Cell, Write, batch_of};
use crate::world::{DIR, World, compare};
use kontiki_engine::{Db, Error, Family, FamilySpec, IngestOptions, IngestWriter, Result};
use kontiki_env::fs::CrashMode;
use kontiki_env::rng::Rng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const OUTSIDE: &str = "/outside";

impl World {
    /// Tables that were built outside, of one family or two, taken in as one write.
    pub fn ingest(&mut self, rng: &mut Rng) -> Result<()> {
        let env = self.machine.env();
        env.fs.create_dir_all(Path::new(OUTSIDE)).map_err(|error| Error::io(OUTSIDE, &error))?;
        let mut contents = BTreeMap::new();
        for _ in 0..rng.range(1..3) {
            let family = draw::family(rng);
            let keys: BTreeMap<_, _> = (0..rng.range(1..25)).map(|_| (draw::key(rng), rng.chance(1, 5))).collect();
            contents.insert(family, keys);
        }
        let (mut files, mut writes): (Vec<PathBuf>, Vec<Write>) = Default::default();
        for (family, keys) in contents {
            self.copies += 1;
            let path = Path::new(OUTSIDE).join(format!("{}", self.copies));
            let mut writer = IngestWriter::create_in(&env, &path, family, self.options.table.clone())?;
            for (key, deleted) in keys {
                let value = draw::value(rng);
                if deleted {
                    writer.delete(&key)?;
                    writes.push(Write::Delete { family, key });
                } else {
                    writer.put(&key, &value)?;
                    writes.push(Write::Put { family, key, cell: Cell { value, expires_at_ms: None } });
                }
            }
            files.push(writer.finish()?.path);
        }
        let move_file = rng.chance(1, 2);
        self.say(|| format!("ingest {files:?} {writes:?}"));
        let answer = self.db().ingest(&files, IngestOptions { move_file });
        files.iter().filter(|file| env.fs.exists(file)).for_each(|file| _ = env.fs.remove(file));
        match answer {
            Ok(report) => {
                self.model.commit(report.sequence, writes, true);
                Ok(())
            }
            Err(error @ Error::NoSpace { .. }) => {
                // It may have got its number before it failed: then that means nothing.
                let sequence = self.db().snapshot().sequence();
                if sequence > self.model.last_sequence() {
                    self.model.commit(sequence, Vec::new(), false);
                }
                Err(error)
            }
            Err(error) => {
                self.model.before_ingest = Some(self.model.rows.clone());
                self.model.unknown = Some(writes);
                Err(error)
            }
        }
    }

    /// An ingest that was cut off may have left its number and nothing else.
    pub fn settle_ingest(&mut self) {
        let Some(before) = self.model.before_ingest.take() else { return };
        let is_before = |world: &World| {
            crate::knobs::FAMILIES.iter().all(|family| {
                let (all, forward) = (kontiki_engine::Range::all(), kontiki_engine::Direction::Forward);
                let expected = crate::model::entries(&before, *family, &all, forward, world.now_ms());
                let scan = world.db().scan(*family, all, forward, kontiki_engine::ReadOptions::default());
                crate::world::all_of(scan.expect("a healthy disk")).expect("a healthy disk") == expected
            })
        };
        if is_before(self) {
            let sequence = self.db().snapshot().sequence();
            self.model.rows = before;
            self.model.reopened(sequence);
        }
    }

    pub fn compact_range(&mut self, rng: &mut Rng) -> Result<()> {
        let (family, range) = (draw::family(rng), draw::range(rng));
        self.say(|| format!("compact {family:?} {range:?}"));
        self.db().compact_range(family, range)?;
        self.model.all_durable();
        Ok(())
    }

    /// What a process has left, killed or closed, read by one that changes nothing.
    pub fn read_only(&mut self, rng: &mut Rng) -> Result<()> {
        let db = self.let_go().expect("it is open");
        if rng.chance(1, 2) {
            db.close()?;
        } else {
            self.machine.fs.crash(CrashMode::Kill);
            drop(db);
        }
        let (ops, machine) = (self.machine.fs.ops(), self.machine.restarted(Rng::new(0)));
        let reader = Db::open_read_only_in(&machine.env(), Path::new(DIR), self.options.clone())?;
        compare(&reader, &self.model.rows, self.now_ms(), "read only")?;
        assert!(matches!(reader.put(b"key", b"value"), Err(Error::ReadOnly)));
        drop(reader);
        assert_eq!(self.machine.fs.ops(), ops, "a reader changes nothing on the disk");
        self.open()?;
        let sequence = self.db().snapshot().sequence();
        self.model.recover(sequence, true).unwrap_or_else(|what| panic!("after a reader: {what}"));
        self.check_all("after a reader")
    }
}

impl World {
    /// A family that is created, written to and read, and dropped again; its number is never used twice.
    pub fn family(&mut self, rng: &mut Rng) -> Result<()> {
        self.copies += 1;
        let family = Family(1000 + self.copies as u32);
        self.say(|| format!("create and drop {family:?}"));
        let mut spec = FamilySpec::new(family, format!("passing {}", family.0));
        spec.options.value_threshold_bytes = if rng.chance(1, 2) { 32 } else { 0 };
        self.db().create_family(spec)?;
        let (key, cell) = (draw::key(rng), Cell { value: draw::value(rng), expires_at_ms: None });
        // Together with one that stays, which must not go with it.
        let stays = Write::Put { family: draw::family(rng), key: draw::key(rng), cell: cell.clone() };
        let writes = vec![Write::Put { family, key: key.clone(), cell: cell.clone() }, stays];
        let durability = draw::durability(rng);
        let answer = self.db().write(batch_of(&writes), durability);
        self.committed(answer, writes, durability)?;
        self.run_jobs(rng.below(6));
        if rng.chance(1, 2) {
            self.flush(rng)?;
        }
        let snapshot = self.db().snapshot();
        assert_eq!(self.db().get_in(family, &key)?.as_ref(), Some(&cell.value));
        self.db().drop_family(family)?;
        let gone = self.db().get_in(family, &key);
        assert!(matches!(gone, Err(Error::FamilyDropped { .. })), "{gone:?}");
        assert_eq!(snapshot.get_in(family, &key)?.as_ref(), Some(&cell.value), "a snapshot reads on");
        Ok(())
    }
}
