//! What the server counts in addition to the endpoint: relay latency, and rejected HTTP requests.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The counters of a server, shared by its threads.
#[derive(Default)]
pub(crate) struct Counters {
    relay: Mutex<RelayCounters>,
    rejections: Mutex<HttpRejections>,
}

impl Counters {
    /// Publishes the relay's counters.
    pub(crate) fn publish(&self, counters: &RelayCounters) {
        locked(&self.relay).clone_from(counters);
    }

    /// Returns the relay's counters, as of their last publication.
    pub(crate) fn relay(&self) -> RelayCounters {
        locked(&self.relay).clone()
    }

    /// Records an HTTP response by its status. Only rejections are counted.
    pub(crate) fn record_response(&self, status: u16) {
        locked(&self.rejections).record(status);
    }

    pub(crate) fn rejections(&self) -> MutexGuard<'_, HttpRejections> {
        locked(&self.rejections)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the relay counts, since the server started.
#[derive(Clone, Default)]
pub(crate) struct RelayCounters {
    pub(crate) endpoint: sigver_core::Counters,
    pub(crate) latency: Histogram,
    /// Events for the embedder for which its channel had no room.
    pub(crate) events_lost: u64,
}

/// Upper bounds of the histogram's buckets, in microseconds.
pub(crate) const BUCKET_BOUNDS: [u32; 15] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
];

/// The time from reading a message to writing it.
#[derive(Clone, Default)]
pub(crate) struct Histogram {
    /// One bucket for each of [`BUCKET_BOUNDS`], and one for the rest.
    pub(crate) buckets: [u64; BUCKET_BOUNDS.len() + 1],
    pub(crate) sum: Duration,
}

impl Histogram {
    pub(crate) fn record(&mut self, time: Duration) {
        let micros = time.as_micros();
        let bucket = BUCKET_BOUNDS.partition_point(|bound| u128::from(*bound) < micros);
        self.buckets[bucket] += 1;
        self.sum += time;
    }
}

/// Rejected HTTP requests, by status.
#[derive(Default)]
pub(crate) struct HttpRejections(BTreeMap<u16, u64>);

impl HttpRejections {
    fn record(&mut self, status: u16) {
        if !matches!(status, 200..300) {
            *self.0.entry(status).or_default() += 1;
        }
    }

    /// Returns each status as a metric label, with its count.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, u64)> {
        self.0.iter().map(|(status, count)| (format!("http-{status}"), *count))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Duration, Histogram, HttpRejections};

    #[test]
    fn time_falls_into_the_bucket_with_the_next_upper_bound() {
        let mut histogram = Histogram::default();
        for micros in [0, 50, 51, 1_000, 2_500_000, 2_500_001] {
            histogram.record(Duration::from_micros(micros));
        }
        assert_eq!(histogram.buckets.iter().sum::<u64>(), 6);
        assert_eq!(
            (histogram.buckets[0], histogram.buckets[1], histogram.buckets[4]),
            (2, 1, 1)
        );
        assert_eq!((histogram.buckets[14], histogram.buckets[15]), (1, 1));
    }

    #[test]
    fn only_rejections_are_counted() {
        let mut rejections = HttpRejections::default();
        for status in [200, 404, 503, 404, 204] {
            rejections.record(status);
        }
        let counted: Vec<_> = rejections.iter().collect();
        assert_eq!(counted, [("http-404".to_owned(), 2), ("http-503".to_owned(), 1)]);
    }
}
