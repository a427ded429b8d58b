//! Parses the first bytes of a connection as a request head. `oracles/head.rs` checks the result.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../oracles/head.rs"]
mod head;

fuzz_target!(|bytes: &[u8]| head::check(bytes));
