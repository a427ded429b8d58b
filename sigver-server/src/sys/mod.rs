//! What the server asks of the operating system.

pub(crate) mod clock;
pub(crate) mod connection_limit;
pub(crate) mod listener;
pub(crate) mod random;
pub(crate) mod sched;
pub(crate) mod socket;
pub(crate) mod worker_pool;
