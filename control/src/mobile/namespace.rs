//! A network namespace of one's own, and a descriptor that comes from the parent.
#![allow(unsafe_code, reason = "unshare and descriptors by number have no safe wrapper")]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::io::FdFlags;
use rustix::stdio;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread, and what it becomes, into a new network namespace.
///
/// # Errors
/// The kernel's: no right.
pub fn enter_new() -> io::Result<()> {
    // SAFETY: only the network namespace is left; descriptors stay shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// A socket that the parent has left open under this number; it is closed when this
/// process becomes another. `None`: there is none.
pub fn inherited(number: RawFd) -> Option<UnixStream> {
    if number <= stdio::raw_stderr() {
        return None;
    }
    // SAFETY: it is only asked whether it is open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC).ok()?;
    // SAFETY: it is open, and nobody else in this process has it: the parent names it once,
    // at the start, when nothing else is open but the standard ones.
    Some(unsafe { UnixStream::from_raw_fd(number) })
}
