//! Rate limits of a connection and of a source.

use core::{num::NonZeroU32, time::Duration};

use crate::{
    endpoint::source_table::{Source, SourceTable},
    id::ConnId,
    message::OutboundMessage,
    reason::RoleEnd,
    time::Time,
};

/// A budget that refills at a steady rate and holds at most a burst: the generic cell rate algorithm. It is stored as the time at which it
/// will be full.
#[derive(Clone, Copy)]
pub(super) struct RateLimiter {
    full_at: Time,
}

/// The largest burst, as the time in which the budget refills.
pub(super) const MAX_BURST: Duration = Duration::from_secs(1);

/// Returns the burst of bytes: at most a quarter of a write buffer. A client that is within its rate must not fill the buffer of a peer before
/// the peer can read.
pub(super) fn byte_burst(bytes_per_second: Option<NonZeroU32>, backlog_bytes: u32) -> Duration {
    let Some(rate) = bytes_per_second else { return MAX_BURST };
    let nanos = u64::from(backlog_bytes / 4) * 1_000_000_000 / u64::from(rate.get());
    Duration::from_nanos(nanos).min(MAX_BURST)
}

impl RateLimiter {
    /// Returns a full budget.
    pub(super) fn new(now: Time) -> Self {
        Self { full_at: now }
    }

    /// Spends `count` of a budget of `per_second`; `None` is no limit. The budget may become negative; that delays the time until it is
    /// positive again.
    pub(super) fn spend(&mut self, count: usize, per_second: Option<NonZeroU32>, now: Time) {
        let Some(per_second) = per_second else { return };
        let nanos = count as u128 * 1_000_000_000 / u128::from(per_second.get());
        let cost = Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX));
        self.full_at = self.full_at.max(now).saturating_add(cost);
    }

    /// Returns the time from which the budget is not negative, if that is after `now`.
    pub(super) fn ready_at(&self, now: Time, burst: Duration) -> Option<Time> {
        let ready = self.full_at.saturating_sub(burst);
        (ready > now).then_some(ready)
    }
}

/// Returns the number of messages for which a message counts that has caused these. A takeover notifies all joiners, and two connections
/// could take a key from each other without end, so it counts as its notices.
pub(super) fn weight(caused: &[(ConnId, OutboundMessage)]) -> usize {
    let is_takeover = |message: &OutboundMessage| matches!(message, OutboundMessage::RoleEnded(RoleEnd::TakenOver));
    match caused.first() {
        Some((_, first)) if is_takeover(first) => caused.len(),
        Some(_) | None => 1,
    }
}

/// The message rate of all connections of a source together.
pub(super) struct SourceRates(SourceTable);

impl SourceRates {
    pub(super) const fn new() -> Self {
        Self(SourceTable::new())
    }

    /// Spends messages of the source's budget. Returns the time from which the budget is not negative, if that is after `now`.
    pub(super) fn spend(
        &mut self,
        source: Source,
        count: usize,
        per_second: Option<NonZeroU32>,
        now: Time,
    ) -> Option<Time> {
        per_second?;
        let mut limiter = RateLimiter::new(self.0.full_at(source).unwrap_or(now));
        limiter.spend(count, per_second, now);
        self.0.set(source, limiter.full_at, now);
        limiter.ready_at(now, MAX_BURST)
    }

    /// Returns the time from which the budget is not negative, if that is after `now`.
    pub(super) fn ready_at(&self, source: Source, now: Time) -> Option<Time> {
        let full_at = self.0.full_at(source)?;
        RateLimiter { full_at }.ready_at(now, MAX_BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_duration(Duration::from_millis(millis))
    }

    #[test]
    fn one_second_is_free_and_the_rest_comes_at_the_rate() {
        let mut limiter = RateLimiter::new(at(0));
        let mut spend = |count, now| {
            limiter.spend(count, NonZeroU32::new(10), at(now));
            limiter.ready_at(at(now), MAX_BURST)
        };
        for _ in 0..10 {
            assert_eq!(spend(1, 0), None);
        }
        assert_eq!(spend(1, 0), Some(at(100)));
        assert_eq!(spend(2, 0), Some(at(300)));
        assert_eq!(spend(1, 300), Some(at(400)), "the pause is long enough");
        assert_eq!(spend(10, 3_000), None, "an idle client's budget refills");
        assert_eq!(spend(1, 3_000), Some(at(3_100)), "to one second's worth");
    }

    #[test]
    fn burst_of_bytes_is_a_quarter_of_the_write_buffer_or_one_second() {
        let burst = |rate, backlog| byte_burst(NonZeroU32::new(rate), backlog);
        assert_eq!(burst(4 * 1024 * 1024, 1024 * 1024), Duration::from_micros(62_500));
        assert_eq!(burst(1000, 1024 * 1024), MAX_BURST);
        assert_eq!(burst(u32::MAX, 0), Duration::ZERO);
        assert_eq!(byte_burst(None, u32::MAX), MAX_BURST);
    }

    #[test]
    fn extreme_rates_and_counts_do_not_overflow() {
        let mut limiter = RateLimiter::new(at(0));
        limiter.spend(usize::MAX, None, at(0));
        assert_eq!(limiter.ready_at(at(0), MAX_BURST), None, "no limit");
        limiter.spend(3, Some(NonZeroU32::MIN), at(0));
        assert_eq!(limiter.ready_at(at(0), MAX_BURST), Some(at(2_000)));
        limiter.spend(usize::MAX, Some(NonZeroU32::MIN), at(0));
        limiter.spend(usize::MAX, Some(NonZeroU32::MIN), at(0));
        assert!(limiter.ready_at(at(0), MAX_BURST).is_some());
    }
}
