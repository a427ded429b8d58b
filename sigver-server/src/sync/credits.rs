//! Limits how many events of one connection wait for the relay, so that one flooding client does not add to the latency of others.
//! Model-checked in `write/loom_models.rs`.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{
    sync::{AtomicU32, Ordering, Thread, current, park},
    tuning::EVENTS_PER_CONNECTION,
};

/// How often [`Credits::wait_idle`] checks.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// One connection's credits. Its thread acquires them, the relay releases them.
pub(crate) struct Credits {
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

    /// Acquires one credit, after waiting for it if all are used.
    pub(crate) fn acquire(&self) {
        while self.used.load(Ordering::Acquire) == EVENTS_PER_CONNECTION {
            park();
        }
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes the owner return from `park`, whatever it waits for.
    pub(crate) fn wake_owner(&self) {
        if let Some(owner) = self.owner.get() {
            owner.unpark();
        }
    }

    /// Waits until every credit is released, at most for `timeout`. Returns whether that is so. It polls, so that a release stays cheap.
    pub(crate) fn wait_idle(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while self.used.load(Ordering::Acquire) > 0 {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        true
    }

    /// Releases one credit.
    pub(crate) fn release(&self) {
        // The owner waits only if all credits are used, so only the first release after that wakes it.
        if self.used.fetch_sub(1, Ordering::Release) == EVENTS_PER_CONNECTION {
            if let Some(owner) = self.owner.get() {
                owner.unpark();
            }
        }
    }
}
