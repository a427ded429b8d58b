//! Runs measurements: options, servers, rounds, and workloads of the client engine.

pub(crate) mod affinity;
pub(crate) mod bench;
pub(crate) mod clients;
pub(crate) mod drive;
pub(crate) mod exchange;
pub(crate) mod idle;
pub(crate) mod options;
pub(crate) mod servers;
pub(crate) mod signals;
