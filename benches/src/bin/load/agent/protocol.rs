//! The lines that an agent and its parent exchange.

use sigver_benches::error::Error;

pub(super) const READY: &str = "ready";
pub(super) const GO: &str = "go";
pub(super) const RESULT: &str = "result ";

pub(super) fn unexpected(line: &str) -> Error {
    Error::new(format!("unexpected line from agent: {line:?}"))
}
