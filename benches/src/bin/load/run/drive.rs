//! Running an engine for a while, and bringing connections to the point where work can begin.

use sigver_benches::{
    engine::{
        Engine,
        connections::{Connections, Handler},
    },
    error::Error,
};
use std::time::{Duration, Instant};

/// What an engine is driven for.
pub(crate) trait Work: Handler {
    /// What makes going on pointless.
    fn trouble(&mut self) -> Option<Error>;
}

/// Polls until `done` says so, at most for `time`; says which it was.
pub(crate) fn drive<W: Work>(
    engine: &mut Engine,
    work: &mut W,
    time: Duration,
    mut done: impl FnMut(&mut W, &mut Connections) -> bool,
) -> Result<bool, Error> {
    let deadline = Instant::now() + time;
    loop {
        if done(work, engine.conns()) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        engine.poll(left.min(TICK), work)?;
        if let Some(trouble) = work.trouble() {
            return Err(trouble);
        }
    }
}

/// How often `done` is asked when nothing happens.
const TICK: Duration = Duration::from_millis(20);
