use super::{RealFs, RealLock};
use crate::fs::{File, Fs, OpenMode, conformance, read_all};

#[test]
fn it_does_what_every_file_system_must() {
    let directory = tempfile::tempdir().unwrap();
    conformance::check_all(&RealFs, directory.path());
}

#[test]
fn allocation_without_fallocate_extends_with_zeros() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, b"abc").unwrap();
    let file = super::RealFile { file: std::fs::OpenOptions::new().write(true).open(&path).unwrap() };
    file.allocate_by_writing(100_000).unwrap();
    assert_eq!(file.len().unwrap(), 100_000);
    assert!(read_all(&RealFs, &path).unwrap().starts_with(b"abc\0"));
}

#[test]
fn a_relative_directory_can_be_made() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("x/y/z");
    RealFs.create_dir_all(&deep).unwrap();
    assert!(deep.is_dir());
    std::fs::write(directory.path().join("file"), b"").unwrap();
    assert!(RealFs.create_dir_all(&directory.path().join("file/below")).is_err());
    assert!(RealFs.open(&deep.join("file"), OpenMode::CreateNew).is_ok());
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_written_through_a_mapping_is_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mapped");
    let file = RealFs.open(&path, OpenMode::CreateNew).unwrap();
    assert!(file.map(4096).unwrap().is_none(), "nothing is allocated yet");
    file.allocate(10_000).unwrap();
    let Some(mut map) = file.map(10_000).unwrap() else { return }; // a file system that does not write in place
    map.write_at(b"mapped", 4094).unwrap();
    file.write_at(b"written", 4100).unwrap();
    map.write_at(b"", 10_000).unwrap();
    file.sync().unwrap();
    let bytes = read_all(&RealFs, &path).unwrap();
    assert_eq!((&bytes[4094..4107], bytes.len()), (&b"mappedwritten"[..], 10_000));
    let outside = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| map.write_at(b"x", 10_000)));
    assert!(outside.is_err());
    drop(map);
    file.set_len(100).unwrap();
}

/// A cut file is the only way to make the kernel refuse a page without a broken disk.
#[cfg(target_os = "linux")]
#[test]
fn a_page_that_the_system_refuses_is_an_error_and_no_signal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mapped");
    let file = RealFs.open(&path, OpenMode::CreateNew).unwrap();
    file.allocate(64 << 10).unwrap();
    let Some(mut map) = file.map(64 << 10).unwrap() else { return }; // a file system that does not write in place
    map.write_at(b"before", 0).unwrap();
    file.set_len(4096).unwrap();
    let long = vec![7; 20_000];
    let error = map.write_at(&long, 3000).expect_err("most of its pages are cut");
    assert!(error.to_string().contains("SIGBUS"), "{error}");
    map.write_at(b"later", 0).expect_err("nothing is written to what may not be the file");
    let bytes = read_all(&RealFs, &path).unwrap();
    assert!(bytes.starts_with(b"before\0") && bytes.len() == 4096);
    assert!(bytes[3000..].iter().all(|byte| *byte == 7), "the page that is there took its part");
    // Another file's mapping still works.
    let other = RealFs.open(&directory.path().join("other"), OpenMode::CreateNew).unwrap();
    other.allocate(4096).unwrap();
    other.map(4096).unwrap().expect("as above").write_at(b"x", 0).unwrap();
}

/// A process that is just being forked has all descriptors of this one until it executes its program, and shares their
/// locks.
#[test]
fn a_lock_that_is_given_back_is_free_although_a_forked_process_still_has_its_file() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("LOCK");
    for exclusive in [true, false] {
        let file = std::fs::File::create(&path).unwrap();
        let of_the_fork = file.try_clone().unwrap();
        if exclusive {
            file.try_lock().unwrap()
        } else {
            file.try_lock_shared().unwrap()
        }
        drop(RealLock { file });
        assert!(RealFs.lock(&path, "the next").is_ok(), "exclusive: {exclusive}");
        drop(of_the_fork);
    }
}
