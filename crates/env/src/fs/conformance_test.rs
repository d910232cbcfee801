//! Behaviour that is the same for every file system; each implementation's tests call these.

use super::{Fs, OpenMode, read_all, replace_file};
use std::io::ErrorKind;
use std::path::Path;

/// Runs every check under `root`, an existing empty directory.
pub(super) fn check_all(fs: &dyn Fs, root: &Path) {
    reads_and_writes(fs, root);
    sizes(fs, root);
    open_modes(fs, root);
    names(fs, root);
    replacing(fs, root);
    locks(fs, root);
}

fn reads_and_writes(fs: &dyn Fs, root: &Path) {
    let path = root.join("data");
    let file = fs.open(&path, OpenMode::CreateNew).unwrap();
    file.write_at(b"hello", 3).unwrap();
    file.write_at(b"J", 3).unwrap();
    assert_eq!(file.len().unwrap(), 8);
    assert_eq!(read_all(fs, &path).unwrap(), b"\0\0\0Jello");
    let mut buffer = [9; 6];
    assert_eq!(file.read_at(&mut buffer, 5).unwrap(), 3, "short only at the end");
    assert_eq!(&buffer[..3], b"llo");
    assert_eq!(file.read_at(&mut buffer, 8).unwrap(), 0);
    assert_eq!(file.read_at(&mut buffer, 800).unwrap(), 0);
    file.write_at(b"", 100).unwrap();
    assert_eq!(file.len().unwrap(), 8, "an empty write does not extend");
    file.sync().unwrap();
    fs.sync_dir(root).unwrap();
}

fn sizes(fs: &dyn Fs, root: &Path) {
    let path = root.join("sizes");
    let file = fs.open(&path, OpenMode::CreateNew).unwrap();
    file.write_at(b"abc", 0).unwrap();
    file.allocate(0).unwrap();
    file.allocate(2).unwrap();
    assert_eq!(file.len().unwrap(), 3, "allocate does not cut");
    file.allocate(10_000).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
    let bytes = read_all(fs, &path).unwrap();
    assert!(bytes.starts_with(b"abc") && bytes[3..].iter().all(|b| *b == 0));
    file.set_len(2).unwrap();
    file.set_len(4).unwrap();
    assert_eq!(read_all(fs, &path).unwrap(), b"ab\0\0", "cut bytes read as zero");
    assert!(fs.free_bytes(root).unwrap() > 0);
}

fn open_modes(fs: &dyn Fs, root: &Path) {
    let path = root.join("modes");
    let kind = |mode| fs.open(&path, mode).map(|_| ()).unwrap_err().kind();
    assert_eq!(kind(OpenMode::Read), ErrorKind::NotFound);
    assert_eq!(kind(OpenMode::ReadWrite), ErrorKind::NotFound);
    fs.open(&path, OpenMode::CreateNew).unwrap().write_at(b"x", 0).unwrap();
    assert_eq!(kind(OpenMode::CreateNew), ErrorKind::AlreadyExists);
    let reader = fs.open(&path, OpenMode::Read).unwrap();
    assert!(reader.write_at(b"y", 0).is_err(), "a reader cannot write");
    fs.open(&path, OpenMode::ReadWrite).unwrap().write_at(b"y", 0).unwrap();
    assert_eq!(read_all(fs, &path).unwrap(), b"y");
    assert!(fs.open(&root.join("nowhere/file"), OpenMode::CreateNew).is_err());
}

fn names(fs: &dyn Fs, root: &Path) {
    let dir = root.join("a/b");
    fs.create_dir_all(&dir).unwrap();
    fs.create_dir_all(&dir).unwrap();
    assert_eq!(fs.list(&root.join("a")).unwrap(), ["b"]);
    for name in ["two", "one", "three"] {
        let file = fs.open(&dir.join(name), OpenMode::CreateNew).unwrap();
        file.write_at(name.as_bytes(), 0).unwrap();
    }
    assert_eq!(fs.list(&dir).unwrap(), ["one", "three", "two"]);
    let open = fs.open(&dir.join("one"), OpenMode::Read).unwrap();
    fs.rename(&dir.join("two"), &dir.join("one")).unwrap();
    assert_eq!(read_all(fs, &dir.join("one")).unwrap(), b"two", "rename replaces");
    let mut buffer = [0; 3];
    assert_eq!(open.read_at(&mut buffer, 0).unwrap(), 3);
    assert_eq!(&buffer, b"one", "an open handle follows the file, not the name");
    let linked = fs.open(&dir.join("one"), OpenMode::Read).unwrap();
    assert_eq!(linked.links().unwrap(), 1);
    fs.link(&dir.join("one"), &dir.join("linked")).unwrap();
    assert_eq!(linked.links().unwrap(), 2);
    assert_eq!(fs.link(&dir.join("one"), &dir.join("linked")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    fs.remove(&dir.join("one")).unwrap();
    assert_eq!(read_all(fs, &dir.join("linked")).unwrap(), b"two", "the link keeps the content");
    assert_eq!((linked.links().unwrap(), open.links().unwrap()), (1, 0));
    assert!(!fs.exists(&dir.join("one")) && fs.exists(&dir.join("linked")) && fs.exists(&dir));
    assert_eq!(fs.remove(&dir.join("one")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs.rename(&dir.join("one"), &dir.join("x")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs.list(&root.join("nowhere")).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(fs.sync_dir(&root.join("nowhere")).is_err());
    fs.sync_dir(&dir).unwrap();
}

fn replacing(fs: &dyn Fs, root: &Path) {
    for content in [&b"first"[..], b"2"] {
        let path = replace_file(fs, root, "CURRENT", content).unwrap();
        assert_eq!(read_all(fs, &path).unwrap(), content);
    }
    assert!(!fs.exists(&root.join("CURRENT.tmp")));
}

fn locks(fs: &dyn Fs, root: &Path) {
    let path = root.join("LOCK");
    let lock = fs.lock(&path, "process 123").unwrap();
    let error = fs.lock(&path, "process 456").map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(error.to_string().contains("process 123"), "{error}");
    assert!(lock.is_at(&path));
    drop(lock);
    let again = fs.lock(&path, "p 4").unwrap();
    let error = fs.lock_to_read(&path).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(error.to_string().contains("p 4"), "{error}");
    drop(again);
    assert!(fs.lock_to_read(&root.join("no such file")).unwrap().is_none());
    let (one, two) = (fs.lock_to_read(&path).unwrap(), fs.lock_to_read(&path).unwrap());
    assert!(one.is_some() && two.is_some(), "readers share it");
    drop(one);
    assert_eq!(fs.lock(&path, "p 5").map(|_| ()).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(two);
    fs.lock(&path, "p 6").unwrap();
    assert_eq!(read_all(fs, &path).unwrap(), b"p 6", "the former holder's longer text is replaced");
}
