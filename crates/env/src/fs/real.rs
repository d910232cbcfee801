//! The machine's file system.

use super::{Access, File, FileLock, Fs, MappedFile, OpenMode};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

struct RealFile {
    file: fs::File,
}

/// Zeros are written in pieces of this size where the file system cannot reserve blocks; any page multiple would do.
const ZEROS_BYTES: usize = 64 << 10;

impl RealFile {
    /// For file systems without fallocate: zeros are written over the part beyond the end.
    fn allocate_by_writing(&self, length: u64) -> io::Result<()> {
        let zeros = vec![0; ZEROS_BYTES];
        let mut at = self.file.metadata()?.len();
        while at < length {
            let count = (length - at).min(ZEROS_BYTES as u64);
            self.file.write_all_at(&zeros[..count as usize], at)?;
            at += count;
        }
        Ok(())
    }
}

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(()); // fallocate refuses an empty range.
        }
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, length) {
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.allocate_by_writing(length),
                result => return result.map_err(io::Error::from),
            }
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn advise(&self, access: Access) -> io::Result<()> {
        let advice = match access {
            Access::Normal => rustix::fs::Advice::Normal,
            Access::Random => rustix::fs::Advice::Random,
            Access::Sequential => rustix::fs::Advice::Sequential,
        };
        match rustix::fs::fadvise(&self.file, 0, None, advice) {
            // A file system that ignores hints, and a pipe in place of a file.
            Err(Errno::INVAL | Errno::SPIPE | Errno::OPNOTSUPP) => Ok(()),
            result => result.map_err(io::Error::from),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.nlink())
    }

    #[cfg(target_os = "linux")]
    fn writes_in_place(&self) -> bool {
        super::map::is_in_place(&self.file).unwrap_or(false)
    }

    #[cfg(target_os = "linux")]
    fn map(&self, length: u64) -> io::Result<Option<Box<dyn MappedFile>>> {
        let map = super::map::Map::new(&self.file, length)?;
        Ok(map.map(|map| Box::new(map) as Box<dyn MappedFile>))
    }
}

/// The lock of an open file description (flock): the system releases it when the file is closed, however the
/// process ends. Two opens in one process exclude each other too.
struct RealLock {
    file: fs::File,
}

impl FileLock for RealLock {
    fn is_at(&self, path: &Path) -> bool {
        match (fs::metadata(path), self.file.metadata()) {
            (Err(error), _) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
            (Ok(there), Ok(locked)) => (there.dev(), there.ino()) == (locked.dev(), locked.ino()),
            (Ok(_), Err(_)) => true,
        }
    }
}

/// Released here and not by the end of the file: another thread may be starting a process, which has the file too
/// until it executes its program.
impl Drop for RealLock {
    fn drop(&mut self) {
        let _ = self.file.unlock(); // the end of the file does the same, a little later
    }
}

impl Fs for RealFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        match mode {
            OpenMode::Read => options.read(true),
            OpenMode::ReadWrite => options.read(true).write(true),
            OpenMode::CreateNew => options.read(true).write(true).create_new(true),
        };
        Ok(Arc::new(RealFile { file: options.open(path)? }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        self.create_dir_all(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            result => result?,
        }
        self.sync_dir(parent)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            // Names of the database are all ASCII: one that is not UTF-8 is foreign, and is shown as well as possible.
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        std::path::absolute(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        fs::File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn FileLock>> {
        let mut file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                let mut recorded = String::new();
                file.read_to_string(&mut recorded)?;
                return Err(super::held_by(&recorded));
            }
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        let mut lock = RealLock { file };
        // The recorded text is for people; a full disk is no reason to refuse the lock.
        match lock.file.set_len(0).and_then(|()| lock.file.write_all(holder.as_bytes())) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(error),
            _ => Ok(Box::new(lock)),
        }
    }

    fn lock_to_read(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        let mut file = match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Box::new(RealLock { file }))),
            Err(fs::TryLockError::WouldBlock) => {
                let mut recorded = String::new();
                file.read_to_string(&mut recorded)?;
                Err(super::held_by(&recorded))
            }
            // Some read-only file systems have no locks; no process writes there.
            Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let volume = rustix::fs::statvfs(path)?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }

    fn descriptors_max(&self) -> Option<u64> {
        crate::machine::descriptors_max()
    }
}

#[cfg(test)]
#[path = "real_test.rs"]
mod tests;
