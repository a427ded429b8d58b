//! Any calls against the hub. What is checked is in `oracles/hub.rs`.

#![no_main]
#![allow(dead_code, reason = "the laws use the rest of `model` and `stage`")]

use libfuzzer_sys::fuzz_target;

#[path = "../oracles/hub.rs"]
mod hub;
#[path = "../../sigver-core/tests/model/mod.rs"]
mod model;
#[path = "../../sigver-core/tests/support/stage.rs"]
mod stage;

fuzz_target!(|bytes: &[u8]| hub::check(bytes));
