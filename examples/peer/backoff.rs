//! Decides how long to wait before the next attempt to connect.

use std::time::Duration;

/// The bounds of the random times between attempts.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) first: Duration,
    pub(crate) last: Duration,
}

/// A random time between zero and a bound, which doubles with each failure: after a restart of the server, its clients do not all come back
/// at the same moment.
pub(crate) struct Backoff {
    bounds: Bounds,
    bound: Duration,
}

impl Backoff {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let bound = bounds.first;
        Self { bounds, bound }
    }

    /// Records a success.
    pub(crate) fn reset(&mut self) {
        self.bound = self.bounds.first;
    }

    /// Records a failure and returns the time to wait. `random` is any number.
    pub(crate) fn next(&mut self, random: u32) -> Duration {
        let bound = self.bound;
        self.bound = (bound * 2).min(self.bounds.last);
        bound.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}
