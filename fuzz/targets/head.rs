//! Any request head against the server's reading of it. What is checked is in `oracles/head.rs`.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../oracles/head.rs"]
mod head;

fuzz_target!(|bytes: &[u8]| head::check(bytes));
