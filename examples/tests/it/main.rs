//! Tests of the examples. Most run an example as a process.

mod conformance;
mod defective;
mod peer;
mod run;
mod support;
