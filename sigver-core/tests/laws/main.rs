//! The laws of the core, for random inputs: of the hub, of the dialects and of the endpoint.
//!
//! `PROPTEST_CASES=10000` searches longer. A failure is written to `laws.proptest-regressions`, which is committed: it is tried first
//! in every later run.

mod dialects;
mod endpoint;
mod hub;

#[path = "../support/describe.rs"]
mod describe;
#[path = "../support/endpoint_model.rs"]
mod endpoint_model;
#[path = "../support/endpoint_run.rs"]
mod endpoint_run;
#[path = "../support/json.rs"]
mod json;
#[path = "../model/mod.rs"]
mod model;
#[path = "../support/refusals.rs"]
mod refusals;
#[path = "../support/runs.rs"]
mod runs;
#[path = "../support/search.rs"]
mod search;
#[path = "../support/stage.rs"]
mod stage;
#[path = "../support/texts.rs"]
mod texts;
