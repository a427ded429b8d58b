//! Waits until a descriptor is ready.

use std::{io, os::fd::AsFd, time::Duration};

pub(crate) use rustix::event::PollFd;
use rustix::event::PollFlags;

/// Waits until `fd` is readable or has ended.
pub(crate) fn readable(fd: &impl AsFd) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::IN)
}

/// Waits until `fd` is writable or has ended.
pub(crate) fn writable(fd: &impl AsFd) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::OUT)
}

/// Waits until `fd` has ended.
pub(crate) fn ended(fd: &impl AsFd) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::empty())
}

/// Whether the descriptor was ready when [`wait`] returned. Errors and hang-ups count: reading or writing returns them.
pub(crate) fn is_ready(fd: &PollFd<'_>) -> bool {
    !fd.revents().is_empty()
}

/// Blocks until one of `fds` is ready or the timeout is over. Returns how many are ready.
///
/// # Errors
///
/// The call was interrupted by a signal, or there is not enough memory.
pub(crate) fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    // A timeout that does not fit is over in 292 billion years.
    let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
    Ok(rustix::event::poll(fds, timeout.as_ref())?)
}
