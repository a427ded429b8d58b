//! Metrics: readings of the system, latencies, and reports.

pub(crate) mod delivery;
pub(crate) mod latency;
pub(crate) mod meter;
pub(crate) mod metric;
pub(crate) mod procfs;
pub(crate) mod report;
