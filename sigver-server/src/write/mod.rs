//! The write path: frames, the outbox of each connection, and the flusher thread.

pub(crate) mod chunk_queue;
pub(crate) mod flusher;
pub(crate) mod frame;
#[cfg(all(test, loom))]
mod loom_models;
pub(crate) mod outbox;
