use super::RealFs;
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
