//! Decodes a text in both dialects. `oracles/decode.rs` checks the results.

#![no_main]
#![allow(dead_code, reason = "only the tests of the core use the rest of `json`")]

use libfuzzer_sys::fuzz_target;

#[path = "../oracles/decode.rs"]
mod decode;
#[path = "../../sigver-core/tests/support/json.rs"]
mod json;
#[path = "../oracles/reader.rs"]
mod reader;

fuzz_target!(|bytes: &[u8]| decode::check(bytes));
