//! A pipe that one thread polls and others write to.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::io::Errno;

/// A non-blocking pipe. Its content has no meaning.
pub(crate) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = pipe()?;
        Ok(Self { reader, writer })
    }

    /// Makes the pipe readable.
    pub(crate) fn fill(&self) {
        // A full pipe is readable as well.
        while let Err(Errno::INTR) = rustix::io::write(&self.writer, &[1]) {}
    }

    /// Makes the pipe not readable.
    pub(crate) fn drain(&self) {
        let mut sink = [0; 16];
        while let Ok(1..) | Err(Errno::INTR) = rustix::io::read(&self.reader, &mut sink) {}
    }
}

/// Readable from `fill` to `drain`.
impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

#[cfg(not(target_vendor = "apple"))]
fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::pipe::{PipeFlags, pipe_with};

    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
}

/// Apple systems cannot create a pipe with flags. A program that another thread starts in between inherits the pipe.
#[cfg(target_vendor = "apple")]
fn pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    use rustix::io::{FdFlags, fcntl_setfd, ioctl_fionbio};

    let (reader, writer) = rustix::pipe::pipe()?;
    for end in [&reader, &writer] {
        fcntl_setfd(end, FdFlags::CLOEXEC)?;
        ioctl_fionbio(end, true)?;
    }
    Ok((reader, writer))
}
