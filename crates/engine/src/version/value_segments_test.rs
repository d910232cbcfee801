use super::*;
use crate::Family;
use crate::version::{ManifestOptions, VersionEdit, VersionSet};
use crate::vlog::format::{ValueFileKind, encode_file_header, encode_record};
use kontiki_env::SimMachine;
use kontiki_env::fs::OpenMode;
use std::path::Path;

fn after(
    values: &ValueSegments,
    edit: &ValueEdit,
    removed: &[FileNumber],
) -> std::result::Result<ValueSegments, String> {
    let mut next = values.clone();
    next.apply(edit, &mut removed.iter().copied())?;
    assert_eq!(ValueSegments::default().with(&next.as_edit()).as_edit(), next.as_edit(), "a whole version says it all");
    Ok(next)
}

impl ValueSegments {
    fn with(mut self, edit: &ValueEdit) -> ValueSegments {
        self.apply(edit, &mut std::iter::empty()).expect("a sound edit");
        self
    }
}

fn added(numbers: &[u64]) -> ValueEdit {
    ValueEdit { added: numbers.to_vec(), ..ValueEdit::default() }
}

fn refs(segments: &[(u64, u32)]) -> ValueRefs {
    let mut refs = ValueRefs::new();
    for (segment, length) in segments {
        let mut stored = Vec::new();
        ValuePointer { segment: *segment, offset: 32, length: *length }.encode(&mut stored);
        refs.note(0, crate::types::Kind::Pointer, &stored);
    }
    refs
}

#[test]
fn a_segment_is_where_the_last_relocation_put_it() {
    let values = ValueSegments::default().with(&added(&[1, 2, 3]));
    assert_eq!((values.file_of(1), values.file_of(4)), (Some((1, false)), None));
    let mut edit = added(&[4]);
    edit.relocate(1, 4);
    edit.relocate(2, 4);
    edit.remove_file(1);
    edit.remove_file(2);
    let values = after(&values, &edit, &[]).expect("sound");
    assert_eq!(
        (values.file_of(1), values.file_of(2), values.file_of(3)),
        (Some((4, true)), Some((4, true)), Some((3, false)))
    );
    assert_eq!((values.segments_in(4), values.segments_in(3)), (vec![1, 2], vec![3]));
    // Again: segment 1 has nothing live any more, segment 2 moves on.
    let mut edit = added(&[5]);
    edit.relocate(2, 5);
    edit.remove_file(4);
    let values = after(&values, &edit, &[]).expect("sound");
    assert_eq!((values.file_of(1), values.file_of(2), values.file_of(4)), (None, Some((5, true)), None));
}

#[test]
fn edits_that_cannot_be_are_refused() {
    let values = ValueSegments::default().with(&added(&[1]));
    let sealed = ValueEdit { sealed: vec![(1, Sealed { bytes: 100, record_bytes: 60 })], ..ValueEdit::default() };
    let sealed_one = after(&values, &sealed, &[]).expect("sound");
    assert_eq!(sealed_one.files()[&1].sealed_bytes(), Some(100));
    assert!(after(&sealed_one, &sealed, &[]).is_err(), "sealed twice");
    let wrong = [
        added(&[1]),
        ValueEdit { sealed: vec![(2, Sealed { bytes: 100, record_bytes: 60 })], ..ValueEdit::default() },
        ValueEdit { removed: vec![2], ..ValueEdit::default() },
        ValueEdit { relocated: vec![(1, 2)], ..ValueEdit::default() },
        ValueEdit { relocated: vec![(1, 1)], ..ValueEdit::default() },
        ValueEdit { relocated: vec![(1, 3)], ..added(&[3]) },
    ];
    for edit in wrong {
        assert!(after(&values, &edit, &[]).is_err(), "{edit:?}");
    }
}

#[test]
fn what_tables_refer_to_is_summed_and_goes_with_them() {
    let mut edit = ValueEdit::default();
    edit.add_refs(10, &refs(&[(1, 100), (2, 50)]));
    edit.add_refs(11, &refs(&[(2, 50)]));
    edit.add_refs(12, &ValueRefs::new());
    let values = after(&ValueSegments::default(), &edit, &[]).expect("sound");
    assert_eq!(values.referred(), &refs(&[(1, 100), (2, 50), (2, 50)]));
    assert!(after(&values, &edit, &[]).is_err(), "said twice");
    let values = after(&values, &ValueEdit::default(), &[10, 12]).expect("sound");
    assert_eq!((values.referred(), values.refs_of(10)), (&refs(&[(2, 50)]), None));
    assert_eq!(values.refs_of(11), Some(&refs(&[(2, 50)])));
}

#[test]
fn an_edit_survives_its_encoding() {
    let mut edit = VersionEdit::new();
    let values = edit.values_mut();
    *values = added(&[7, 300]);
    values.seal_file(7, 1 << 33, 1 << 32);
    values.relocate(3, 300);
    values.remove_file(3);
    values.add_refs(9, &refs(&[(7, 4), (300, 5)]));
    assert!(!edit.is_empty());
    let bytes = edit.encode();
    assert_eq!(VersionEdit::decode(&bytes), Ok(edit));
    for end in 1..bytes.len() {
        let _ = VersionEdit::decode(&bytes[..end]);
    }
}

#[test]
fn a_removed_file_stays_until_the_last_version_that_has_it_is_dropped() {
    let machine = SimMachine::from_seed(3);
    let dir = Path::new("/db");
    machine.env().fs.create_dir_all(dir).expect("created");
    let set = VersionSet::open(&machine.env(), dir, ManifestOptions::default()).expect("opens");
    let number = set.new_file_number();
    let store = set.current().values().store().expect("an open database has one").clone();
    let mut bytes = encode_file_header(number, ValueFileKind::Segment);
    encode_record(&mut bytes, number, 32, Family(0), b"k", b"value");
    store.fs().open(&store.path(number), OpenMode::CreateNew).and_then(|file| file.write_at(&bytes, 0)).expect("made");
    let mut edit = VersionEdit::new();
    edit.values_mut().add_file(number);
    let old = set.apply(edit).expect("a healthy disk");
    let mut edit = VersionEdit::new();
    edit.values_mut().remove_file(number);
    set.apply(edit).expect("a healthy disk");
    let pointer = ValuePointer { segment: number, offset: 32, length: 5 };
    assert_eq!(set.obsolete_count(), 0);
    assert_eq!(old.values().read(pointer).expect("pinned"), &b"value"[..]);
    assert!(matches!(set.current().values().read(pointer), Err(Error::Corruption { .. })), "it is not here any more");
    drop(old);
    assert_eq!(set.obsolete_count(), 1);
}

#[test]
fn an_open_removes_orphans_and_names_what_is_missing() {
    let machine = SimMachine::from_seed(4);
    let dir = Path::new("/db");
    let fs = machine.env().fs;
    fs.create_dir_all(dir).expect("created");
    let open = || VersionSet::open(&machine.env(), dir, ManifestOptions::default());
    drop(open().expect("opens"));
    let path = |name: &str| dir.join("vlog").join(name);
    for name in ["000041.vlog", "notes.txt"] {
        fs.open(&path(name), OpenMode::CreateNew).expect("created");
    }
    let set = open().expect("opens");
    assert_eq!(set.obsolete_count(), 1);
    let number = set.new_file_number();
    assert_eq!(number, 42, "a number is never used again");
    let mut edit = VersionEdit::new();
    edit.values_mut().add_file(number);
    set.apply(edit).expect("a healthy disk");
    drop(set);
    let missing = path("000042.vlog");
    let error = open().err().expect("the file was never made");
    assert!(matches!(&error, Error::Corruption { file, .. } if *file == missing), "{error}");
}
