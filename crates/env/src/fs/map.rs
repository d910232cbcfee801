//! A memory mapping of a file: a write is a copy into memory, without a system call.
#![allow(unsafe_code)] // one call to map, one to unmap, one copy; see UNSAFE.md

use super::{MappedFile, bus_error};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr::NonNull;

/// File systems whose allocated blocks stay where they are when they are written, so that such a write never finds a
/// full disk: ext4 and tmpfs. Not XFS or Btrfs: there a copy of a file may share its blocks (`cp --reflink`), at any
/// time and without a notification, and the next write of such a block needs a new one.
const IN_PLACE: [i64; 2] = [0xEF53, 0x0102_1994];

/// Whether the file is on one of these.
pub(super) fn is_in_place(file: &File) -> io::Result<bool> {
    Ok(IN_PLACE.contains(&rustix::fs::fstatfs(file)?.f_type))
}

/// See the head of this file. Nothing else in this process points into the mapping.
pub(super) struct Map {
    start: NonNull<c_void>,
    length: usize,
    /// A write has failed: a part of the mapping may not be the file's any more.
    failed: bool,
}

// SAFETY: the mapping belongs to this value alone, and may be written and unmapped by any one thread.
unsafe impl Send for Map {}

impl Map {
    /// Maps the first `length` bytes of the file, which must be allocated. `None` where a write might fail.
    pub(super) fn new(file: &File, length: u64) -> io::Result<Option<Map>> {
        let in_place = is_in_place(file)?;
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        if !in_place || length == 0 || file.metadata()?.len() < length as u64 || !bus_error::install() {
            return Ok(None);
        }
        // SAFETY: a new mapping at an address of the system's choice overlaps nothing. No reference into it is ever
        // made; it is only copied to, so changes of the file by others do not matter.
        let start = unsafe {
            mmap(std::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0)?
        };
        Ok(NonNull::new(start).map(|start| Map { start, length, failed: false }))
    }
}

impl MappedFile for Map {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(bytes.len()));
        assert!(end.is_some_and(|end| end <= self.length), "a write within the mapping");
        if self.failed {
            return Err(io::Error::other("an earlier write to the mapped file failed"));
        }
        // SAFETY: the offset lies inside the mapping (checked above).
        let target = unsafe { self.start.as_ptr().cast::<u8>().add(offset as usize) };
        let range = target as usize..target as usize + bytes.len();
        // SAFETY: the target lies inside the mapping (checked above), which is writable and lives as long as `self`;
        // `&mut self` excludes other writes; `bytes` cannot overlap it, since no reference into it exists. A page
        // that the kernel refuses is replaced by one of anonymous memory.
        let written = bus_error::guarded(range, || unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        });
        self.failed = written.is_err();
        written
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this is the range that was mapped, once, and nothing points into it any more.
        let unmapped = unsafe { munmap(self.start.as_ptr(), self.length) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}
