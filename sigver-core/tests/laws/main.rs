//! The laws of the core, as property tests: of the hub, the dialects and the endpoint.
//!
//! `PROPTEST_CASES=10000` runs more cases. A failure is added to `laws.proptest-regressions`, which is committed and replayed first in
//! every later run.

mod back_pressure;
mod coverage;
mod dialects;
mod endpoint;
mod endpoint_runs;
mod grace;
mod hub;
mod keys;

#[path = "../support/describe.rs"]
mod describe;
#[path = "../support/endpoint_model.rs"]
mod endpoint_model;
#[path = "../support/endpoint_run.rs"]
mod endpoint_run;
#[path = "../support/endpoint_steps.rs"]
mod endpoint_steps;
#[path = "../support/hub_driver.rs"]
mod hub_driver;
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
#[path = "../support/texts.rs"]
mod texts;
