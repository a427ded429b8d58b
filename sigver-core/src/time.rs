//! Owns the core's notion of time: a distance from an epoch that the embedder chose. Never reads a clock.

use core::time::Duration;

/// A moment, as the time that has passed since an epoch of the embedder's choice (its start, say).
///
/// The [`Hub`](crate::Hub) compares moments and adds durations to them; it never asks what time it is. An embedder that lets
/// time go backwards delays deadlines and breaks nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

impl Time {
    /// The epoch itself.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The moment at which `elapsed` has passed since the epoch.
    pub const fn since_epoch(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How much time has passed since the epoch.
    pub const fn elapsed(self) -> Duration {
        self.0
    }

    /// This moment moved on by `duration`, or `None` where that is beyond what can be counted (585 billion years).
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        self.0.checked_add(duration).map(Self)
    }

    /// Returns this moment moved on by `duration`, or the last moment that can be represented.
    #[must_use]
    pub const fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }

    /// Returns this moment moved back by `duration`, or the epoch if that is before it.
    #[must_use]
    pub const fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration))
    }

    /// Returns the time from `earlier` to this moment; zero if `earlier` is later.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}
