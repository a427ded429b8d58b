//! Returns free memory of the heap to the system after a peak. glibc's malloc keeps it: what each thread has freed lies between what others
//! still use.

use std::time::Duration;

use sigver_core::Time;

/// Decides when to trim the heap: some time after the memory in use has fallen to half of its peak.
#[derive(Default)]
pub(crate) struct HeapTrim {
    /// The most bytes in use since the last trim.
    peak: u64,
    due: Option<Time>,
}

/// How far the use must fall. Less is not worth a trim.
const MIN_FALL: u64 = 8 * 1024 * 1024;

/// The time from the fall to the trim: connections that leave together have ended, and trims are rare.
const DELAY: Duration = Duration::from_secs(5);

impl HeapTrim {
    /// Records the bytes in use. Returns true if it is time to trim.
    pub(crate) fn record(&mut self, now: Time, bytes: u64) -> bool {
        self.peak = self.peak.max(bytes);
        let has_fallen = bytes <= self.peak / 2 && self.peak - bytes >= MIN_FALL;
        match self.due {
            Some(due) if due <= now => {
                self.due = None;
                if has_fallen {
                    self.peak = bytes;
                }
                has_fallen
            }
            Some(_) => false,
            None => {
                self.due = has_fallen.then(|| now.saturating_add(DELAY));
                false
            }
        }
    }

    /// Returns when the next call of [`record`](Self::record) is due.
    pub(crate) fn due(&self) -> Option<Time> {
        self.due
    }
}

/// Trims the heap on a thread of its own: a trim takes milliseconds. Without a thread, nothing is trimmed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn trim_in_background() {
    let _ = std::thread::Builder::new().name("sigver-trim".into()).spawn(trim);
}

/// Other allocators return memory in their own way.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn trim_in_background() {}

/// Returns the pages of all free chunks to the system.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "there is no safe wrapper")]
fn trim() {
    // SAFETY: the call has no requirements. It locks one arena after the other.
    let _ = unsafe { libc::malloc_trim(0) };
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(seconds: u64) -> Time {
        Time::from_duration(Duration::from_secs(seconds))
    }

    #[test]
    fn trim_follows_a_fall_to_half_of_the_peak() {
        let mut trim = HeapTrim::default();
        for (second, mib) in [(0, 10), (1, 100), (2, 51), (3, 100)] {
            assert!(!trim.record(at(second), mib * MIB));
            assert_eq!(trim.due(), None, "{mib}");
        }
        assert!(!trim.record(at(4), 50 * MIB));
        assert_eq!(trim.due(), Some(at(9)));
        assert!(!trim.record(at(8), 20 * MIB));
        assert!(trim.record(at(10), 10 * MIB));
        assert_eq!(trim.due(), None);
        assert!(!trim.record(at(11), 2 * MIB + 1), "a small fall from 10 MiB");
        assert_eq!(trim.due(), None);
    }

    #[test]
    fn small_fall_is_not_followed_by_a_trim() {
        let mut trim = HeapTrim::default();
        assert!(!trim.record(at(0), MIN_FALL - 1));
        assert!(!trim.record(at(1), 0));
        assert_eq!(trim.due(), None);
        assert!(!trim.record(at(2), MIN_FALL));
        assert!(!trim.record(at(3), 0));
        assert_eq!(trim.due(), Some(at(8)));
    }

    #[test]
    fn memory_that_is_in_use_again_is_not_trimmed() {
        let mut trim = HeapTrim::default();
        for (second, mib) in [(0, 100), (1, 40), (6, 90)] {
            assert!(!trim.record(at(second), mib * MIB));
        }
        assert_eq!(trim.due(), None);
        assert!(!trim.record(at(7), 40 * MIB), "it is still far below the peak");
        assert_eq!(trim.due(), Some(at(12)));
    }

    #[test]
    fn trims_are_at_least_five_seconds_apart() {
        let mut trim = HeapTrim::default();
        let use_of = |second: u64| if second.is_multiple_of(4) { 100 * MIB } else { 0 };
        let trims = (0..100).filter(|second| trim.record(at(*second), use_of(*second)));
        assert!((1..=20).contains(&trims.count()));
    }

    /// Frees half of a fragmented heap.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn trim_returns_the_memory_between_used_chunks() {
        use crate::sys::process::resident_bytes;

        let mut chunks: Vec<Vec<u8>> = (0..20_000).map(|_| vec![1; 16 * 1024]).collect();
        let mut number = 0;
        chunks.retain(|_| {
            number += 1;
            number % 4 == 0
        });
        let before = resident_bytes().expect("/proc is mounted");
        trim();
        let after = resident_bytes().expect("/proc is mounted");
        assert!(before - after > 100 * MIB, "{before} bytes, then {after}");
        assert_eq!(chunks.len(), 5_000);
    }
}
