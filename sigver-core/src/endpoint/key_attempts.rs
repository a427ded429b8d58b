//! Throttling of failed joins and opens, by source address.

use alloc::collections::BTreeMap;
use core::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use crate::time::Time;

/// The source of a connection, for limits: an IPv4 address, or an IPv6 network of 64 bits, which is usually one customer.
///
/// ```
/// use core::net::IpAddr;
/// use sigver_core::Source;
///
/// let source = |text: &str| Ok::<_, core::net::AddrParseError>(Source::from(text.parse::<IpAddr>()?));
/// assert_eq!(source("2001:db8::1")?, source("2001:db8::2")?);
/// assert_ne!(source("192.0.2.1")?, source("192.0.2.2")?);
/// # Ok::<(), core::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// The failed attempts of each source in the current minute.
pub(super) struct KeyAttempts {
    failed: BTreeMap<Source, u32>,
    minute_ends: Option<Time>,
}

/// The most sources that are counted per minute. This limits the memory; an attacker with more addresses is not stopped by counting.
const MAX_SOURCES: usize = 65_536;

const MINUTE: Duration = Duration::from_secs(60);

impl KeyAttempts {
    pub(super) const fn new() -> Self {
        Self {
            failed: BTreeMap::new(),
            minute_ends: None,
        }
    }

    /// Returns whether the source has failed `allowed` times in this minute.
    pub(super) fn is_exhausted(&mut self, source: Source, allowed: u32, now: Time) -> bool {
        if self.minute_ends.is_some_and(|end| end <= now) {
            self.failed.clear();
            self.minute_ends = None;
        }
        self.failed.get(&source).copied().unwrap_or(0) >= allowed
    }

    pub(super) fn record_failure(&mut self, source: Source, now: Time) {
        self.minute_ends.get_or_insert_with(|| now.saturating_add(MINUTE));
        if self.failed.len() < MAX_SOURCES || self.failed.contains_key(&source) {
            let failed = self.failed.entry(source).or_default();
            *failed = failed.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn addresses_of_a_64_are_one_source() {
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::2"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }

    #[test]
    fn source_is_exhausted_until_the_minute_is_over() {
        let at = |millis| Time::from_duration(Duration::from_millis(millis));
        let mut attempts = KeyAttempts::new();
        let [guesser, other] = ["192.0.2.1", "192.0.2.2"].map(source);
        for _ in 0..2 {
            assert!(!attempts.is_exhausted(guesser, 2, at(0)));
            attempts.record_failure(guesser, at(0));
        }
        assert!(attempts.is_exhausted(guesser, 2, at(59_999)));
        assert!(!attempts.is_exhausted(other, 2, at(59_999)));
        for n in 0..100_000_u32 {
            attempts.record_failure(IpAddr::from(n.to_be_bytes()).into(), at(59_999));
        }
        assert_eq!(attempts.failed.len(), MAX_SOURCES);
        assert!(!attempts.is_exhausted(guesser, 2, at(60_000)));
        assert!(attempts.failed.is_empty(), "the minute's memory is freed");
    }
}
