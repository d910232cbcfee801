//! A file system that permits every read and no change.
//!
//! Recovery of the log repairs as it reads (it cuts a torn tail, removes unfinished segments). A check must see what
//! recovery would see, by the same code, and leave the directory as it is. So must a database that is open for reading
//! only.

use kontiki_env::fs::{Access, File, FileLock, Fs, OpenMode, list_if_there};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Passes reads on, and claims that changes succeed without making them.
pub(crate) struct DryFs(pub(crate) Arc<dyn Fs>);

struct DryFile(Arc<dyn File>);

impl Fs for DryFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        match mode {
            OpenMode::Read | OpenMode::ReadWrite => Ok(Arc::new(DryFile(self.0.open(path, OpenMode::Read)?))),
            OpenMode::CreateNew => Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "nothing is created here")),
        }
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        // Its creation was claimed to have succeeded.
        list_if_there(&*self.0, path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.exists(path)
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.absolute(path)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, path: &Path, holder: &str) -> io::Result<Box<dyn FileLock>> {
        self.0.lock(path, holder)
    }

    fn lock_to_read(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        self.0.lock_to_read(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.0.free_bytes(path)
    }

    fn descriptors_max(&self) -> Option<u64> {
        self.0.descriptors_max()
    }
}

impl File for DryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn advise(&self, access: Access) -> io::Result<()> {
        self.0.advise(access)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn links(&self) -> io::Result<u64> {
        self.0.links()
    }
}
