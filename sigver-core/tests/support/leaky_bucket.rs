//! Rate limits of the naive endpoint.

use core::{num::NonZeroU32, time::Duration};

use sigver_core::EndpointConfig;

/// A leaky bucket: the spent budget that has not drained yet, as a time.
#[derive(Clone, Copy, Default)]
pub(crate) struct Bucket {
    pub(crate) level: Duration,
    pub(crate) updated: Duration,
}

impl Bucket {
    fn settle(&mut self, now: Duration) {
        self.level = self.level.saturating_sub(now - self.updated);
        self.updated = now;
    }

    pub(crate) fn spend(&mut self, count: usize, per_second: u32, now: Duration) {
        self.settle(now);
        if per_second != u32::MAX {
            self.level += Duration::from_nanos(count as u64 * 1_000_000_000 / u64::from(per_second));
        }
    }

    /// Returns for how long the client is paused.
    pub(crate) fn excess(&mut self, now: Duration, burst: Duration) -> Duration {
        self.settle(now);
        self.level.saturating_sub(burst)
    }
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Returns the time in which a quarter of the write buffer arrives, at most a second.
pub(crate) fn burst(config: &EndpointConfig) -> Duration {
    let rate = config.bytes_per_second.map_or(u32::MAX, NonZeroU32::get);
    SECOND.min(SECOND * (config.backlog_bytes / 4) / rate)
}
