//! Owns how a thread that sleeps in `poll` is woken: a pipe, and a flag that keeps it to one byte. Never says what it is woken for.
//! Model-checked in `loom_models.rs`.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};

use crate::sync::{AtomicBool, Ordering};

/// What the sleeper hears.
pub(crate) trait Bell {
    /// Makes the sleeper wake, now or when it next goes to sleep.
    fn ring(&self);
    /// Lets the sleeper sleep again.
    fn silence(&self);
}

/// Wakes one thread. Signals that come before the thread has acknowledged one are one signal.
pub(crate) struct Waker<B = Pipe> {
    signalled: AtomicBool,
    bell: B,
}

impl<B: Bell> Waker<B> {
    pub(crate) fn new(bell: B) -> Self {
        Self {
            signalled: AtomicBool::new(false),
            bell,
        }
    }

    /// Wakes the thread, now or when it next goes to sleep.
    pub(crate) fn wake(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            self.bell.ring();
        }
    }

    /// Takes the signal back. The sleeper then looks at all there is to do, and so sees what a signal that came too early to ring
    /// was meant for.
    pub(crate) fn acknowledge(&self) {
        self.bell.silence();
        // A swap and not a store, so that all that came before a signal which is taken back here is seen afterwards.
        self.signalled.swap(false, Ordering::AcqRel);
    }

    pub(crate) fn bell(&self) -> &B {
        &self.bell
    }
}

/// A bell that `poll` hears.
pub(crate) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { reader, writer })
    }
}

impl Bell for Pipe {
    fn ring(&self) {
        // A full pipe wakes as well as one byte does.
        while let Err(Errno::INTR) = rustix::io::write(&self.writer, &[1]) {}
    }

    fn silence(&self) {
        let mut sink = [0; 16];
        while let Ok(1..) | Err(Errno::INTR) = rustix::io::read(&self.reader, &mut sink) {}
    }
}

/// Readable while the bell rings.
impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
