//! Owns how a thread that sleeps in `poll` is woken: a pipe, and a flag that keeps it to one byte. Never says what it is woken for.

use std::{io, os::fd::AsFd, os::fd::BorrowedFd, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};

use crate::sync::{AtomicBool, Ordering};

/// Wakes one thread. Signals that come before the thread has acknowledged one are one signal.
pub(crate) struct Waker {
    signalled: AtomicBool,
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self {
            signalled: AtomicBool::new(false),
            reader,
            writer,
        })
    }

    /// Wakes the thread, now or when it next polls.
    pub(crate) fn wake(&self) {
        if !self.signalled.swap(true, Ordering::SeqCst) {
            // A full pipe wakes as well as one byte does.
            while let Err(Errno::INTR) = rustix::io::write(&self.writer, &[1]) {}
        }
    }

    /// What becomes readable with a signal.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Takes the signal back. What is looked at afterwards includes all that came before any signal so far.
    pub(crate) fn acknowledge(&self) {
        let mut sink = [0; 16];
        while let Ok(1..) | Err(Errno::INTR) = rustix::io::read(&self.reader, &mut sink) {}
        self.signalled.store(false, Ordering::SeqCst);
    }
}
