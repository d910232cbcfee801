//! Turns the signal with which the kernel refuses a page of a mapped file into an error.
//!
//! A thread that writes to a mapped page which the kernel cannot give it (the disk cannot be read, the file system has
//! become read-only, the file was cut) gets SIGBUS, which ends the process. While a thread writes through [`guarded`]
//! the signal is handled instead: a page of anonymous memory takes the place of the refused one, so that the write can
//! finish, and [`guarded`] returns an error. What was in the file before is untouched.
//!
//! A signal at any other address is passed to the previously installed handler (the standard library's, which reports
//! stack overflows, or the program's own). A program that installs a handler later and does not call ours turns this
//! protection off.
#![allow(unsafe_code)] // installs a signal handler; see UNSAFE.md

use libc::{c_int, c_void, sigaction, siginfo_t};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::io;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence};

/// What this thread writes to. The handler runs on the same thread, in the middle of the write.
struct Writing {
    start: AtomicUsize,
    end: AtomicUsize,
    refused: AtomicBool,
}

thread_local! {
    static WRITING: Writing = const {
        Writing { start: AtomicUsize::new(0), end: AtomicUsize::new(0), refused: AtomicBool::new(false) }
    };
}

/// The handler that was there before.
static PREVIOUS: OnceLock<sigaction> = OnceLock::new();
static INSTALLED: OnceLock<bool> = OnceLock::new();
/// Read once, so that the handler makes no call for it.
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Installs the handler for [`guarded`]; false if the system does not permit it.
pub(super) fn install() -> bool {
    *INSTALLED.get_or_init(|| {
        // SAFETY: it only reads a number.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        PAGE_BYTES.store(usize::try_from(page_bytes).unwrap_or(0), Relaxed);
        // SAFETY: all zeros is a valid `sigaction`: no flags, an empty mask, the default action.
        let mut ours: sigaction = unsafe { std::mem::zeroed() };
        ours.sa_sigaction = on_bus_error as *const () as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        let mut previous = ours;
        // SAFETY: both point to live values of the right type, and the handler has the signature that SA_SIGINFO
        // requires.
        let installed = unsafe { sigaction(libc::SIGBUS, &raw const ours, &raw mut previous) } == 0;
        installed && page_bytes > 0 && PREVIOUS.set(previous).is_ok()
    })
}

/// Runs `write`, which writes to mapped memory at `range` and nowhere else in it.
pub(super) fn guarded(range: Range<usize>, write: impl FnOnce()) -> io::Result<()> {
    WRITING.with(|writing| {
        writing.refused.store(false, Relaxed);
        writing.start.store(range.start, Relaxed);
        writing.end.store(range.end, Relaxed);
        compiler_fence(Ordering::SeqCst);
        write();
        compiler_fence(Ordering::SeqCst);
        writing.end.store(0, Relaxed);
        match writing.refused.load(Relaxed) {
            false => Ok(()),
            true => Err(io::Error::other("the system refused a page of the mapped file (SIGBUS)")),
        }
    })
}

/// The handler. It must not take a lock or allocate: it reads this thread's own atomics, and makes one
/// system call.
extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid `siginfo_t`, and SIGBUS has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    let is_ours = |writing: &Writing| {
        (writing.start.load(Relaxed)..writing.end.load(Relaxed)).contains(&address) && replace_page(address)
    };
    let handled = WRITING.try_with(|writing| {
        let handled = is_ours(writing);
        writing.refused.fetch_or(handled, Relaxed);
        handled
    });
    if handled != Ok(true) {
        forward(signal, info, context);
    }
}

/// Maps anonymous memory in place of the page at `address`, which is in a mapping of this process.
fn replace_page(address: usize) -> bool {
    let page_bytes = PAGE_BYTES.load(Relaxed);
    let start = (address - address % page_bytes) as *mut c_void;
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the page lies in the mapping that this thread is writing to (guaranteed by the caller of `guarded`),
    // which only it writes and no reference points into; it is unmapped with that mapping.
    unsafe { mmap_anonymous(start, page_bytes, protection, MapFlags::PRIVATE | MapFlags::FIXED) }.is_ok()
}

/// Does what would have happened without our handler.
fn forward(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let previous = PREVIOUS.get().filter(|previous| ![libc::SIG_DFL, libc::SIG_IGN].contains(&previous.sa_sigaction));
    let Some(previous) = previous else {
        // The instruction runs again when we return, and ends the process.
        // SAFETY: the default action is always valid.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    };
    // SAFETY: it was installed as the handler of this signal, so it has the signature that its flags say, and expects
    // the arguments that the kernel has given us.
    unsafe {
        if previous.sa_flags & libc::SA_SIGINFO != 0 {
            let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                std::mem::transmute(previous.sa_sigaction as *const ());
            handler(signal, info, context);
        } else {
            let handler: extern "C" fn(c_int) = std::mem::transmute(previous.sa_sigaction as *const ());
            handler(signal);
        }
    }
}
