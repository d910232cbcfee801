//! Memory that the allocator keeps.

#![allow(unsafe_code)] // one call of the C library; see UNSAFE.md

/// Gives the memory that is allocated to nothing back to the system, as far as the allocator can. It takes some
/// milliseconds for each hundred megabytes, while which other threads may wait for memory, so it is for idle times.
///
/// glibc by itself keeps the pages between those that are in use: a store that had a thousand regions made kept 50 MiB
/// beside the 18 that it used (docs/internals/hibernation.md). Other C libraries have no such call, and it does nothing
/// there.
pub fn return_unused() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call takes a number and has no precondition; it takes the locks of the allocator itself.
    unsafe {
        libc::malloc_trim(0);
    }
}
