//! What the server counts in addition to the endpoint: how long messages took, and which HTTP requests were rejected.

use std::{collections::BTreeMap, time::Duration};

use sigver_core::Counters;

use crate::http::response::Answer;

/// What the relay counts, since the server began.
#[derive(Clone, Default)]
pub(crate) struct Figures {
    pub(crate) counters: Counters,
    pub(crate) latency: Times,
}

/// Upper bounds of the times that are told apart, in microseconds.
pub(crate) const BOUNDS: [u32; 15] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
];

/// How many messages took how long, from read to written.
#[derive(Clone, Default)]
pub(crate) struct Times {
    /// Up to each of [`BOUNDS`], and beyond the last.
    pub(crate) counts: [u64; BOUNDS.len() + 1],
    pub(crate) sum: Duration,
}

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        let micros = time.as_micros();
        let place = BOUNDS.partition_point(|bound| u128::from(*bound) < micros);
        self.counts[place] += 1;
        self.sum += time;
    }
}

/// How often HTTP requests were refused, by status.
#[derive(Default)]
pub(crate) struct Answers(BTreeMap<u16, u64>);

impl Answers {
    pub(crate) fn add(&mut self, answer: &Answer) {
        if let Some(code) = answer.refused() {
            *self.0.entry(code).or_default() += 1;
        }
    }

    /// Statuses, as labels, and how often.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, u64)> {
        self.0.iter().map(|(code, count)| (format!("http-{code}"), *count))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_once_and_in_its_place() {
        let mut times = Times::default();
        for micros in [0, 50, 51, 1_000, 2_500_000, 2_500_001] {
            times.add(Duration::from_micros(micros));
        }
        assert_eq!(times.counts.iter().sum::<u64>(), 6);
        assert_eq!((times.counts[0], times.counts[1], times.counts[4]), (2, 1, 1));
        assert_eq!((times.counts[14], times.counts[15]), (1, 1));
    }
}
