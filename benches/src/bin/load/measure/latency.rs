//! Latencies.

use std::time::Duration;

use hdrhistogram::Histogram;
use sigver_benches::error::{Context, Error};

use crate::measure::metric::{Metric, Sample};

/// Latencies.
#[derive(Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Latency {
    pub(crate) fn new() -> Result<Self, Error> {
        let histogram = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3);
        histogram.map(Self).context("histogram")
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.saturating_record(nanoseconds);
    }

    pub(crate) fn reset(&mut self) {
        self.0.reset();
    }

    /// Microseconds below which that part (0 to 1) of all latencies lies.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    pub(crate) fn metrics(&self, sample: &mut Sample, prefix: &str) {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
            sample.push(Metric::new(format!("{prefix}{name}, µs"), self.quantile(quantile)));
        }
    }
}

const LONGEST: Duration = Duration::from_secs(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_list() {
        let mut latency = Latency::new().expect("histogram");
        for microseconds in 1..=1_000 {
            latency.record(Duration::from_micros(microseconds));
        }
        for (quantile, expected) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1_000.0)] {
            let found = latency.quantile(quantile);
            assert!((found / expected - 1.0).abs() < 0.002, "{quantile}: {found}");
        }
        latency.record(LONGEST * 2);
        assert!(latency.quantile(1.0) >= LONGEST.as_micros() as f64);
        latency.reset();
        assert_eq!(latency.quantile(1.0), 0.0);
    }
}
