use super::*;
use crate::Family;
use crate::vlog::format::{encode_file_header, encode_record, record_stride};
use crate::vlog::index::{Moved, encode_index};
use kontiki_env::SimMachine;

/// A store with a segment (number 1) and a relocated file (number 2) that has the value that was in segment 1.
fn sample() -> (SimMachine, ValueStore, ValuePointer) {
    let machine = SimMachine::from_seed(1);
    let fs = machine.env().fs;
    let directory = PathBuf::from("/vlog");
    fs.create_dir_all(&directory).expect("created");
    let write = |number, kind, at: u64| {
        let mut bytes = encode_file_header(number, kind);
        bytes.resize(at as usize, 0);
        encode_record(&mut bytes, number, at, Family(0), b"key", b"the value");
        if kind == ValueFileKind::Relocated {
            let mut moved = [Moved { segment: 1, old_offset: 32, new_offset: at }];
            let index = encode_index(number, bytes.len() as u64, &mut moved);
            bytes.extend_from_slice(&index);
        }
        let file = fs.open(&value_file_path(&directory, number), OpenMode::CreateNew).expect("created");
        file.write_at(&bytes, 0).expect("written");
    };
    write(1, ValueFileKind::Segment, 32);
    write(2, ValueFileKind::Relocated, 32 + record_stride(3, 9));
    (machine, ValueStore::new(fs, directory), ValuePointer { segment: 1, offset: 32, length: 9 })
}

fn read(store: &ValueStore, number: u64, pointer: ValuePointer, moved: bool) -> Result<Bytes> {
    store.reader(number)?.read_value(pointer, moved)
}

#[test]
fn a_pointer_leads_to_its_value_where_it_was_and_where_it_went() {
    let (_machine, store, pointer) = sample();
    assert_eq!(read(&store, 1, pointer, false).expect("sound"), &b"the value"[..]);
    assert_eq!(read(&store, 2, pointer, true).expect("sound"), &b"the value"[..]);
}

#[test]
fn a_pointer_that_leads_nowhere_is_corruption_with_file_and_offset() {
    let (_machine, store, pointer) = sample();
    let wrong = [
        ValuePointer { length: 8, ..pointer },
        ValuePointer { length: u32::MAX, ..pointer },
        ValuePointer { offset: 40, ..pointer },
        ValuePointer { offset: 33, ..pointer },
        ValuePointer { offset: 0, ..pointer },
        ValuePointer { offset: u64::MAX, ..pointer },
        ValuePointer { offset: 1 << 40, ..pointer },
    ];
    for pointer in wrong {
        for (number, moved) in [(1, false), (2, true)] {
            let error = read(&store, number, pointer, moved).expect_err("nothing is there");
            let expected = store.path(number);
            assert!(matches!(&error, Error::Corruption { file, .. } if *file == expected), "{pointer:?}: {error}");
        }
    }
    assert!(read(&store, 2, ValuePointer { segment: 9, ..pointer }, true).is_err());
    assert!(read(&store, 1, pointer, true).is_err(), "the manifest and the file disagree");
    assert!(matches!(store.reader(3).err(), Some(Error::Corruption { .. })), "a missing file");
}

#[test]
fn every_flipped_bit_gives_the_right_value_or_an_error_that_names_the_file() {
    let (machine, store, pointer) = sample();
    for (number, moved) in [(1, false), (2, true)] {
        let path = store.path(number);
        let bytes = kontiki_env::fs::read_all(store.fs(), &path).expect("readable").len() as u64;
        let mut unnoticed = 0;
        for offset in 0..bytes {
            machine.fs.flip_bit(&path, offset, 3).expect("within the file");
            store.note_removed();
            store.forget(number);
            match read(&store, number, pointer, moved) {
                Ok(value) => {
                    assert_eq!(value, &b"the value"[..], "byte {offset}");
                    unnoticed += 1;
                }
                Err(Error::Corruption { file, offset: place, .. }) => assert!(file == path && place <= bytes),
                Err(other) => panic!("byte {offset}: {other}"),
            }
            machine.fs.flip_bit(&path, offset, 3).expect("within the file");
        }
        assert!(unnoticed < bytes / 2, "only keys, gaps and zeros between records do not matter: {unnoticed}");
    }
}

#[test]
fn a_file_that_ends_early_is_named() {
    let (machine, store, pointer) = sample();
    for (number, moved) in [(1, false), (2, true)] {
        let path = store.path(number);
        for length in [0, 10, 31, 32, 50] {
            let file = machine.env().fs.open(&path, OpenMode::ReadWrite).expect("opened");
            file.set_len(length).expect("cut");
            store.note_removed();
            store.forget(number);
            let error = read(&store, number, pointer, moved).expect_err("cut");
            assert!(matches!(&error, Error::Corruption { file, .. } if *file == path), "{length}: {error}");
        }
    }
}
