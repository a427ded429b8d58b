//! Wakes a thread that blocks in `poll`, with a pipe and a flag that limits it to one byte. Model-checked in `write/loom_models.rs`.

use crate::{
    sync::{AtomicBool, Ordering},
    sys::pipe::Pipe,
};

/// What the sleeping thread polls.
pub(crate) trait Notify {
    /// Makes the thread wake up, now or when it next sleeps.
    fn notify(&self);
    /// Lets the thread sleep again.
    fn clear(&self);
}

/// Wakes one thread. Several wake-ups before an acknowledgement count as one.
pub(crate) struct Waker<B = Pipe> {
    signalled: AtomicBool,
    notifier: B,
}

impl<B: Notify> Waker<B> {
    pub(crate) fn new(notifier: B) -> Self {
        Self {
            signalled: AtomicBool::new(false),
            notifier,
        }
    }

    /// Wakes the thread, now or when it next sleeps.
    pub(crate) fn wake(&self) {
        if !self.signalled.swap(true, Ordering::AcqRel) {
            self.notifier.notify();
        }
    }

    /// Acknowledges a wake-up. The thread must check for work after this call, because a wake-up before it no longer notifies.
    pub(crate) fn acknowledge(&self) {
        self.notifier.clear();
        // A swap and not a store, so that everything before an acknowledged wake-up is visible after this call.
        self.signalled.swap(false, Ordering::AcqRel);
    }

    pub(crate) fn notifier(&self) -> &B {
        &self.notifier
    }
}

impl Notify for Pipe {
    fn notify(&self) {
        self.fill();
    }

    fn clear(&self) {
        self.drain();
    }
}
