//! Runs a script of endpoint calls. `oracles/endpoint.rs` checks the outputs.

#![no_main]
#![allow(
    dead_code,
    reason = "only the tests of the core use the rest of `model` and `endpoint_run`"
)]

use libfuzzer_sys::fuzz_target;

#[path = "../../sigver-core/tests/support/describe.rs"]
mod describe;
#[path = "../oracles/endpoint.rs"]
mod endpoint;
#[path = "../../sigver-core/tests/support/endpoint_model.rs"]
mod endpoint_model;
#[path = "../../sigver-core/tests/support/endpoint_run.rs"]
mod endpoint_run;
#[path = "../../sigver-core/tests/support/endpoint_steps.rs"]
mod endpoint_steps;
#[path = "../../sigver-core/tests/model/mod.rs"]
mod model;

fuzz_target!(|bytes: &[u8]| endpoint::check(bytes));
