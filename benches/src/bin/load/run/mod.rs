//! How a measurement runs: options, servers, rounds, and the client engine under a workload.

pub(crate) mod admission;
pub(crate) mod affinity;
pub(crate) mod bench;
pub(crate) mod drive;
pub(crate) mod exchange;
pub(crate) mod idle;
pub(crate) mod options;
pub(crate) mod servers;
pub(crate) mod signals;
