//! Delivery counts as metrics, and the result of a delivery check.

use sigver_benches::{delivery::DeliveryCounts, error::Error};

use crate::measure::metric::{Metric, Sample};

/// Returns delivery counts as metrics.
pub(crate) fn metrics(counts: &DeliveryCounts) -> Sample {
    let metric = |(name, count)| Metric::absolute(name, count as f64);
    counts.by_name().map(metric).into()
}

/// Prints that all runs were clean.
///
/// # Errors
/// The number of runs that were not clean, if there were any.
pub(crate) fn require_clean(failed_runs: u32) -> Result<(), Error> {
    if failed_runs == 0 {
        println!("clean: every payload arrived once, unchanged and in order");
        return Ok(());
    }
    Err(Error::new(format!(
        "delivery failed in {failed_runs} runs: see the counts above"
    )))
}
