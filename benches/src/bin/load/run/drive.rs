//! Runs an engine with a workload.

use sigver_benches::{
    engine::{
        Engine,
        connections::{Connections, Handler},
    },
    error::Error,
};
use std::time::{Duration, Instant};

/// A workload of an engine.
pub(crate) trait Workload: Handler {
    /// Returns the error that ends the workload, if there is one.
    fn take_error(&mut self) -> Option<Error>;
}

/// Polls until `done` returns true, for at most `time`. Returns whether `done` was reached.
pub(crate) fn drive<W: Workload>(
    engine: &mut Engine,
    workload: &mut W,
    time: Duration,
    mut done: impl FnMut(&mut W, &mut Connections) -> bool,
) -> Result<bool, Error> {
    let deadline = Instant::now() + time;
    loop {
        if done(workload, engine.conns()) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        engine.poll(left.min(POLL_INTERVAL), workload)?;
        if let Some(error) = workload.take_error() {
            return Err(error);
        }
    }
}

/// Interval of calls of `done` if there are no events.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
