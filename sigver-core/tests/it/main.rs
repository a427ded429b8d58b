//! The tests of the core, except for the laws and the exhaustive tests, in one binary.

mod endpoint;
mod house;
mod plain;
mod seeds;
mod transcripts;
mod v1;
mod values;

#[path = "../support/describe.rs"]
mod describe;
#[path = "../support/endpoint_model.rs"]
#[allow(dead_code, reason = "the laws use the rest")]
mod endpoint_model;
#[path = "../support/endpoint_run.rs"]
#[allow(dead_code, reason = "the laws use the rest")]
mod endpoint_run;
#[path = "../support/endpoint_steps.rs"]
#[allow(dead_code, reason = "the laws use the rest")]
mod endpoint_steps;
#[path = "../support/json.rs"]
#[allow(dead_code, reason = "the laws use the rest")]
mod json;
#[path = "../model/mod.rs"]
#[allow(dead_code, reason = "the laws use the rest")]
mod model;
#[path = "../../../fuzz/oracles/reader.rs"]
mod reader;
#[path = "../support/refusals.rs"]
mod refusals;
#[path = "../../../fuzz/oracles/replay.rs"]
mod replay;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/texts.rs"]
mod texts;
