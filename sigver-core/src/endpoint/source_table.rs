//! Budgets by source address, for limits that all connections of a source share.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::{IpAddr, Ipv6Addr};

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

/// The budgets of sources that are not full, each as the time at which it will be full.
pub(super) struct SourceTable {
    budgets: BTreeMap<Source, Time>,
    /// The same budgets in order of time.
    by_time: BTreeSet<(Time, Source)>,
}

/// The most sources that a table has. An attacker with more addresses must not fill the memory. Beyond it, the budget that is nearest to full
/// is forgotten, so sources that keep spending stay limited.
const MAX_SOURCES: usize = 65_536;

impl SourceTable {
    pub(super) const fn new() -> Self {
        Self {
            budgets: BTreeMap::new(),
            by_time: BTreeSet::new(),
        }
    }

    /// Returns when the budget of the source is full, if it was not full at the last call of [`set`](Self::set).
    pub(super) fn full_at(&self, source: Source) -> Option<Time> {
        self.budgets.get(&source).copied()
    }

    /// Sets when the budget of the source will be full. Forgets those that are full now.
    pub(super) fn set(&mut self, source: Source, full_at: Time, now: Time) {
        while self.by_time.first().is_some_and(|(time, _)| *time <= now) {
            self.forget_first();
        }
        if let Some(before) = self.budgets.insert(source, full_at) {
            self.by_time.remove(&(before, source));
        } else if self.by_time.len() == MAX_SOURCES {
            self.forget_first();
        }
        self.by_time.insert((full_at, source));
    }

    fn forget_first(&mut self) {
        if let Some((_, source)) = self.by_time.pop_first() {
            self.budgets.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().expect("an address").into()
    }

    fn at(millis: u64) -> Time {
        Time::from_duration(Duration::from_millis(millis))
    }

    #[test]
    fn addresses_of_a_64_are_one_source() {
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::2"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }

    #[test]
    fn full_budgets_are_forgotten() {
        let mut table = SourceTable::new();
        let [a, b, c] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(source);
        table.set(a, at(10), at(0));
        table.set(b, at(20), at(0));
        table.set(a, at(30), at(0));
        assert_eq!(
            [a, b, c].map(|source| table.full_at(source)),
            [Some(at(30)), Some(at(20)), None]
        );
        table.set(c, at(40), at(20));
        assert_eq!(
            [a, b, c].map(|source| table.full_at(source)),
            [Some(at(30)), None, Some(at(40))]
        );
        table.set(a, at(50), at(40));
        assert_eq!((table.budgets.len(), table.by_time.len()), (1, 1));
    }

    #[test]
    fn full_table_forgets_the_budget_that_is_nearest_to_full() {
        let mut table = SourceTable::new();
        let busy = source("192.0.2.1");
        table.set(busy, at(60_000), at(0));
        for n in 0..100_000_u32 {
            table.set(IpAddr::from((n | 1 << 31).to_be_bytes()).into(), at(1_000), at(1));
        }
        assert_eq!((table.budgets.len(), table.by_time.len()), (MAX_SOURCES, MAX_SOURCES));
        assert_eq!(table.full_at(busy), Some(at(60_000)));
    }
}
