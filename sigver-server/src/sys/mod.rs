//! What is asked of the operating system.

pub(crate) mod connection_limit;
pub(crate) mod sched;
pub(crate) mod worker_pool;
