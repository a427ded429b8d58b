//! What an agent and its parent say to each other, line by line.

use sigver_benches::error::Error;

pub(super) const READY: &str = "ready";
pub(super) const GO: &str = "go";
pub(super) const RESULT: &str = "result ";

pub(super) fn unexpected(line: &str) -> Error {
    Error::new(format!("an agent says {line:?}"))
}
