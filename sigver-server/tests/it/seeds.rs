//! Replays what the fuzz target `head` starts from and has found, without a fuzzer: `fuzz/README.md`.

use std::error::Error;

#[path = "../../../fuzz/oracles/head.rs"]
mod head;
#[path = "../../../fuzz/oracles/replay.rs"]
mod replay;

#[test]
fn every_seed_of_head_is_answered_as_it_should_be() -> Result<(), Box<dyn Error>> {
    replay::replay("head", head::check)
}
