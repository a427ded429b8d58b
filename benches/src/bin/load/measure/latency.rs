//! A histogram of latencies.

use std::time::Duration;

use hdrhistogram::Histogram;
use sigver_benches::error::{Context, Error};

use crate::measure::metric::{Metric, Sample};

/// A histogram of latencies, from 1 ns to [`MAX_LATENCY`].
#[derive(Debug)]
pub(crate) struct LatencyHistogram(Histogram<u64>);

impl LatencyHistogram {
    pub(crate) fn new() -> Result<Self, Error> {
        let histogram = Histogram::new_with_bounds(1, MAX_LATENCY.as_nanos() as u64, 3);
        histogram.map(Self).context("cannot create histogram")
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanoseconds);
    }

    /// Records the time so far of a pending operation if it is longer than all recorded ones, so that a server that stopped
    /// answering is not reported as fast.
    pub(crate) fn record_pending(&mut self, so_far: Duration) {
        if so_far.as_secs_f64() * 1e6 > self.quantile(1.0) {
            self.record(so_far);
        }
    }

    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }

    /// Returns the latency at `quantile` (0 to 1), in microseconds.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    pub(crate) fn push_metrics(&self, sample: &mut Sample, prefix: &str) {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            sample.push(Metric::new(format!("{prefix}{name}, µs"), self.quantile(quantile)));
        }
    }
}

const MAX_LATENCY: Duration = Duration::from_secs(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_match_recorded_values() {
        let mut latency = LatencyHistogram::new().expect("histogram");
        for microseconds in 1..=1_000 {
            latency.record(Duration::from_micros(microseconds));
        }
        for (quantile, expected) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1_000.0)] {
            let found = latency.quantile(quantile);
            assert!((found / expected - 1.0).abs() < 0.002, "{quantile}: {found}");
        }
        latency.record_pending(Duration::from_micros(900));
        assert!(latency.quantile(1.0) < 1_100.0);
        latency.record_pending(Duration::from_micros(2_000));
        assert!(latency.quantile(1.0) > 1_900.0);
        latency.record(MAX_LATENCY * 2);
        assert!(latency.quantile(1.0) >= MAX_LATENCY.as_micros() as f64);
        latency.reset();
        assert_eq!(latency.quantile(1.0), 0.0);
    }
}
