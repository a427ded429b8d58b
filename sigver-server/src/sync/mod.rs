//! Owns the choice of synchronisation primitives: std's, or loom's when the write path is model-checked (`--cfg loom`). What the
//! models explore are thus the real types. Never adds one of its own.

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
#[cfg(not(loom))]
pub(crate) use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{Thread, current, park},
};

/// Locks `mutex`, also after a panic elsewhere: no lock of this crate is held over code that leaves its data half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
