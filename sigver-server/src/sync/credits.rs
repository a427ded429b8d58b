//! Limits what waits of one connection for the relay: no flooding client adds to the latency of others, and the channel is bounded.
//! Model-checked in `write/loom_models.rs`.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{
    sync::{AtomicU32, Ordering, Thread, current, park, park_timeout},
    tuning::CREDITS,
};

/// The flag in `used` that the owner waits.
const WAITING: u32 = 1 << 31;

/// One connection's credits. Its thread acquires them, the relay releases them.
pub(crate) struct Credits {
    /// The acquired credits, and [`WAITING`].
    used: AtomicU32,
    /// The connection's thread.
    owner: OnceLock<Thread>,
}

impl Credits {
    pub(crate) fn new() -> Self {
        Self {
            used: AtomicU32::new(0),
            owner: OnceLock::new(),
        }
    }

    /// Makes this thread the one that acquires. Must be called first.
    pub(crate) fn bind(&self) {
        let _ = self.owner.set(current());
    }

    /// Acquires so many credits, at most [`CREDITS`], after waiting for them.
    pub(crate) fn acquire(&self, count: u32) {
        let is_free = |used: u32| (used & !WAITING) + count <= CREDITS;
        if !is_free(self.used.load(Ordering::Acquire)) {
            while !is_free(self.used.fetch_or(WAITING, Ordering::AcqRel)) {
                park();
            }
            self.used.fetch_and(!WAITING, Ordering::Relaxed);
        }
        self.used.fetch_add(count, Ordering::Relaxed);
    }

    /// Makes the owner return from `park`, whatever it waits for.
    pub(crate) fn wake_owner(&self) {
        if let Some(owner) = self.owner.get() {
            owner.unpark();
        }
    }

    /// Waits until every credit is released, at most for `timeout`. Returns whether that is so. Called by the owner.
    pub(crate) fn wait_idle(&self, timeout: Duration) -> bool {
        let is_idle = |used: u32| used & !WAITING == 0;
        let deadline = Instant::now() + timeout;
        let mut left = timeout;
        while !is_idle(self.used.load(Ordering::Acquire)) && !left.is_zero() {
            if !is_idle(self.used.fetch_or(WAITING, Ordering::AcqRel)) {
                park_timeout(left);
                left = deadline.saturating_duration_since(Instant::now());
            }
        }
        is_idle(self.used.fetch_and(!WAITING, Ordering::AcqRel))
    }

    /// Releases credits.
    pub(crate) fn release(&self, count: u32) {
        if self.used.fetch_sub(count, Ordering::Release) & WAITING != 0 {
            self.used.fetch_and(!WAITING, Ordering::Relaxed);
            self.wake_owner();
        }
    }
}
