//! What is measured, and how it is reported.

pub(crate) mod meter;
pub(crate) mod procfs;
pub(crate) mod report;
