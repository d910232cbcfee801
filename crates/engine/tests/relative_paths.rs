//! Paths that are given as relative ones lead to the same place after the process has changed its working directory.
//!
//! One test: the working directory belongs to the whole process.

use kontiki_engine::copy::BackupStore;
use kontiki_engine::{Db, Durability, Family, IngestOptions, IngestWriter, Options, WriteBatch};
use std::path::Path;

fn small() -> Options {
    Options { memtable_bytes: 64 << 10, log_segment_bytes: 64 << 10, log_bytes_max: 1 << 20, ..Options::default() }
}

/// Enough for new log segments, tables and value files.
fn fill(db: &Db, name: &str) {
    for number in 0..300_u32 {
        let mut batch = WriteBatch::new();
        let value = format!("{name} {number}").repeat(if number % 10 == 0 { 1000 } else { 100 });
        batch.put(Family::DEFAULT, format!("{name}-{number:03}").as_bytes(), value.as_bytes());
        db.write(batch, Durability::Buffered).expect("written");
    }
    db.flush().expect("flushed");
}

fn has_all(db: &Db, name: &str) -> bool {
    (0..300_u32).all(|number| db.get(format!("{name}-{number:03}").as_bytes()).expect("readable").is_some())
}

#[test]
fn a_relative_path_is_resolved_once() {
    let home = tempfile::tempdir().expect("a directory");
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    let enter = |to: &Path| std::env::set_current_dir(to).expect("it is there");
    // In the second place there is another database under the same name, which must not be touched.
    for place in [&first, &second] {
        kontiki_env::fs::Fs::create_dir_all(&kontiki_env::fs::RealFs, place).expect("created");
    }
    enter(&second);
    let other = Db::open("data", small()).expect("a new database");
    fill(&other, "other");
    other.close().expect("closed");

    enter(&first);
    let db = Db::open("data", small()).expect("a new database");
    let backups = BackupStore::open(Path::new("backups")).expect("a new directory of backups");
    let mut writer = IngestWriter::create("rafts.sst", Family::DEFAULT, small().table).expect("a new table");
    enter(&second);
    fill(&db, "mine");
    db.compact().expect("compacted");
    db.collect_value_garbage().expect("collected");
    backups.create(&db, &mut |_| ()).expect("backed up");
    writer.put(b"mine-raft", b"balsa").expect("added");
    let file = writer.finish().expect("finished");
    assert_eq!(file.path, first.join("rafts.sst"));
    db.ingest(&[&file.path], IngestOptions { move_file: true }).expect("taken in");
    db.checkpoint(Path::new("copy")).expect("copied");
    db.close().expect("closed");

    enter(home.path());
    let open = |path: &Path| Db::open(path, small()).expect("opens");
    let mine = open(&first.join("data"));
    assert!(has_all(&mine, "mine") && mine.get(b"mine-raft").expect("readable").is_some());
    assert!(has_all(&open(&second.join("copy")), "mine"));
    let other = open(&second.join("data"));
    assert!(has_all(&other, "other") && other.get(b"mine-000").expect("readable").is_none());
    let restored = home.path().join("restored");
    backups.restore(1, Path::new("restored"), &mut |_| ()).expect("restored");
    assert!(has_all(&open(&restored), "mine"));
}
