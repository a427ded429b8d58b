//! The clock of a server.

use std::time::Instant;

use sigver_core::Time;

/// Counts the endpoint's time from the moment it was made.
#[derive(Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Time {
        Time::from_duration(self.0.elapsed())
    }
}
