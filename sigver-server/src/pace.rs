//! Owns how much a connection may send in a second. Never closes anyone for sending more: it says how long not to read.

use std::time::{Duration, Instant};

/// A budget that fills up at a steady rate, and holds what comes in in [`BURST`].
///
/// It is kept as the moment at which it will be full (the "theoretical arrival time" of the generic cell rate algorithm): no timer, and
/// no counting while nothing happens.
pub(crate) struct Pace {
    per_second: u32,
    full_at: Instant,
}

/// How long a client may have been silent and still make up for it at once.
const BURST: Duration = Duration::from_secs(1);

/// A rate that is none.
pub(crate) const UNLIMITED: u32 = u32::MAX;

impl Pace {
    /// A full budget.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            per_second: per_second.max(1),
            full_at: now,
        }
    }

    /// Spends so many, and says how long to rest before spending more. They are spent even when there were not as many, and the rest
    /// is the longer for it.
    pub(crate) fn spend(&mut self, count: usize, now: Instant) -> Duration {
        if self.per_second == UNLIMITED {
            return Duration::ZERO;
        }
        let nanos = count as u128 * 1_000_000_000 / u128::from(self.per_second);
        let cost = Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX));
        self.full_at = self.full_at.max(now) + cost;
        self.full_at.saturating_duration_since(now).saturating_sub(BURST)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_second_s_worth_is_free_and_what_follows_comes_at_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        for _ in 0..10 {
            assert_eq!(pace.spend(1, start), Duration::ZERO);
        }
        assert_eq!(pace.spend(1, start), 100 * MS);
        assert_eq!(pace.spend(2, start), 300 * MS);
        assert_eq!(
            pace.spend(1, start + 300 * MS),
            100 * MS,
            "who rests as told is in time"
        );
        assert_eq!(
            pace.spend(10, start + 3_000 * MS),
            Duration::ZERO,
            "silence fills it again"
        );
        assert_eq!(
            pace.spend(1, start + 3_000 * MS),
            100 * MS,
            "but not beyond a second's worth"
        );
    }

    #[test]
    fn a_rate_of_none_and_the_largest_numbers_do_no_harm() {
        let start = Instant::now();
        assert_eq!(Pace::new(UNLIMITED, start).spend(usize::MAX / 2, start), Duration::ZERO);
        assert_eq!(
            Pace::new(0, start).spend(3, start),
            2_000 * MS,
            "nothing a second would be for ever"
        );
    }
}
