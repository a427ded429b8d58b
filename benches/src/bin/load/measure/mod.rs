//! What is measured, and how it is reported.

pub(crate) mod fidelity;
pub(crate) mod latency;
pub(crate) mod meter;
pub(crate) mod metric;
pub(crate) mod procfs;
pub(crate) mod report;
