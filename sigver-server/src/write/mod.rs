//! The write path: from the relay to the kernel.

pub(crate) mod flusher;
pub(crate) mod frame;
#[cfg(all(test, loom))]
mod loom_models;
pub(crate) mod outbox;
