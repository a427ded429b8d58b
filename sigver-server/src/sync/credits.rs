//! Owns how many events of one connection may wait for the relay: the fairness that keeps a flooder's backlog, and so everyone's
//! latency, short. Never counts bytes. Model-checked in `loom_models.rs`.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::sync::{AtomicU32, Ordering, Thread, current, park};

/// How many events of one connection may be on their way to the relay. Two keep the relay busy while the connection's thread
/// decodes; more only lengthen the queue of everyone else.
pub(crate) const EVENTS: u32 = if cfg!(loom) { 2 } else { 4 };

/// From one look to the next of who waits for everything to be back.
const LOOK: Duration = Duration::from_millis(1);

/// One connection's credit. Its thread spends, the relay refunds.
pub(crate) struct Credit {
    spent: AtomicU32,
    spender: OnceLock<Thread>,
}

impl Credit {
    pub(crate) fn new() -> Self {
        Self {
            spent: AtomicU32::new(0),
            spender: OnceLock::new(),
        }
    }

    /// Says that this thread is the one that spends. Comes before everything else.
    pub(crate) fn bind(&self) {
        let _ = self.spender.set(current());
    }

    /// Spends one event, after waiting for it where all are spent.
    pub(crate) fn spend(&self) {
        while self.spent.load(Ordering::Acquire) == EVENTS {
            park();
        }
        self.spent.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until everything that was spent is back, but no longer than `patience`. It looks now and then, so that a refund stays
    /// cheap.
    pub(crate) fn settle(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.spent.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
    }

    /// Gives one event back.
    pub(crate) fn refund(&self) {
        // Only a spender that has spent everything can be waiting, so the step down from there is the one that wakes.
        if self.spent.fetch_sub(1, Ordering::Release) == EVENTS {
            if let Some(spender) = self.spender.get() {
                spender.unpark();
            }
        }
    }
}
