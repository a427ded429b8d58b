//! Synchronisation primitives: std's, or loom's when the write path is model-checked (`--cfg loom`), so that the models explore the real
//! types.

pub(crate) mod credits;
pub(crate) mod waker;

#[cfg(loom)]
pub(crate) use loom::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{Thread, current, park},
};

/// loom has no time: nothing waits for it.
#[cfg(loom)]
pub(crate) fn park_timeout(_: std::time::Duration) {
    loom::thread::yield_now();
}

#[cfg(not(loom))]
pub(crate) use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{Thread, current, park, park_timeout},
};

/// Locks `mutex`, also if it is poisoned: no code of this crate panics with data half changed under a lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
