use super::*;
use crate::{Db, Durability, Options, WriteBatch};
use kontiki_env::SimMachine;

#[test]
fn a_summary_reports_the_contents_and_changes_nothing() {
    let machine = SimMachine::from_seed(1);
    let (env, dir) = (machine.env(), Path::new("/db"));
    assert!(matches!(summarize(&env, dir), Err(Error::InvalidArgument(_)) | Err(Error::Io { .. })));
    let db = Db::open_in(&env, dir, Options::default()).expect("opens");
    let write = |key: &[u8]| {
        let mut batch = WriteBatch::new();
        batch.put(Family::DEFAULT, key, b"value");
        db.write(batch, Durability::Sync).expect("written")
    };
    write(b"a");
    let last = write(b"b");
    db.flush().expect("written");
    write(b"c");
    machine.fs.start_trace();
    let before = machine.fs.ops();

    // A writer is at work: nothing is locked, nothing is changed.
    let summary = summarize(&env, dir).expect("whole");
    assert_eq!((summary.flushed_sequence, summary.torn), (last, false));
    let [family] = &summary.families[..] else { panic!("one family") };
    assert_eq!((family.family, family.name.as_str()), (0, "default"));
    assert_eq!((summary.log.segments > 0, summary.log.free), (true, 0));
    assert!(summary.log.segment_bytes > 0 && family.range_tombstones == 0);
    let tables: Vec<&TableMeta> = family.levels.iter().flatten().collect();
    assert_eq!((tables.len(), tables[0].entries), (1, 2));
    let properties = table_properties(&env, dir, tables[0].number).expect("whole");
    assert_eq!((properties.entries, properties.smallest_key.as_ref()), (2, &b"a"[..]));
    let error = table_properties(&env, dir, 999).expect_err("unknown").to_string();
    assert!(error.contains("no table 999"), "{error}");

    let segments = log_segments(&env, dir).expect("whole");
    assert_eq!(segments.iter().map(|segment| segment.summary.commits).sum::<u64>(), 3);
    assert_eq!(machine.fs.ops(), before, "only reads");
}
