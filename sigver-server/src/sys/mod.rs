//! The operating system. All code that differs between systems is here.

pub(crate) mod cgroup;
pub(crate) mod clock;
pub(crate) mod connection_limit;
pub(crate) mod heap;
pub(crate) mod listener;
pub(crate) mod pipe;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod sched;
pub(crate) mod socket;
pub(crate) mod socket_file;
pub(crate) mod stream;
pub(crate) mod system_memory;
pub(crate) mod worker_pool;
