//! Throttling of clients that guess keys, by connection and by source address.

use alloc::collections::{BTreeMap, BTreeSet};
use core::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use crate::{id::Key, message::InboundMessage, time::Time};

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

/// Returns the key that a request for a role names.
pub(super) fn named_key(message: &InboundMessage) -> Option<&Key> {
    match message {
        InboundMessage::Open { key, .. } | InboundMessage::Join { key, .. } | InboundMessage::Meet { key, .. } => {
            Some(key)
        }
        InboundMessage::OpenGenerated { .. }
        | InboundMessage::Data { .. }
        | InboundMessage::UnknownControl { .. }
        | InboundMessage::Kick { .. }
        | InboundMessage::Leave
        | InboundMessage::CloseKey
        | InboundMessage::Ping => None,
    }
}

/// A budget of attempts that refills in a minute: the generic cell rate algorithm. It is stored as the time at which it will be full.
#[derive(Clone, Copy)]
pub(super) struct AttemptBudget {
    full_at: Time,
}

const MINUTE: Duration = Duration::from_secs(60);

impl AttemptBudget {
    /// Returns a full budget.
    pub(super) fn new(now: Time) -> Self {
        Self { full_at: now }
    }

    /// Returns whether less than one attempt is left.
    pub(super) fn is_exhausted(self, per_minute: u32, now: Time) -> bool {
        self.after_one(per_minute, now) > now.saturating_add(MINUTE)
    }

    pub(super) fn spend(&mut self, per_minute: u32, now: Time) {
        self.full_at = self.after_one(per_minute, now);
    }

    fn after_one(self, per_minute: u32, now: Time) -> Time {
        self.full_at.max(now).saturating_add(MINUTE / per_minute.max(1))
    }
}

/// The budgets of sources that are not full.
pub(super) struct KeyAttempts {
    budgets: BTreeMap<Source, AttemptBudget>,
    /// The same sources by the time at which their budget is full.
    by_full_at: BTreeSet<(Time, Source)>,
}

/// The most sources that are counted at the same time. An attacker with more addresses must not fill the memory. Beyond it, the budget that
/// is nearest to full is forgotten, so sources that keep guessing stay throttled.
const MAX_SOURCES: usize = 65_536;

/// How many times the budget of a connection all connections of one source have together.
pub(super) const SOURCE_FACTOR: u32 = 10;

impl KeyAttempts {
    pub(super) const fn new() -> Self {
        Self {
            budgets: BTreeMap::new(),
            by_full_at: BTreeSet::new(),
        }
    }

    /// Returns whether the source has less than one attempt left.
    pub(super) fn is_exhausted(&self, source: Source, per_minute: u32, now: Time) -> bool {
        let budget = self.budgets.get(&source);
        budget.is_some_and(|budget| budget.is_exhausted(per_minute, now))
    }

    pub(super) fn spend(&mut self, source: Source, per_minute: u32, now: Time) {
        while let Some(&(full_at, other)) = self.by_full_at.first() {
            if full_at > now {
                break;
            }
            self.forget(full_at, other);
        }
        let mut budget = AttemptBudget::new(now);
        if let Some(known) = self.budgets.get(&source) {
            budget = *known;
            self.by_full_at.remove(&(budget.full_at, source));
        } else if self.budgets.len() == MAX_SOURCES {
            if let Some(&(full_at, other)) = self.by_full_at.first() {
                self.forget(full_at, other);
            }
        }
        budget.spend(per_minute, now);
        self.budgets.insert(source, budget);
        self.by_full_at.insert((budget.full_at, source));
    }

    fn forget(&mut self, full_at: Time, source: Source) {
        self.by_full_at.remove(&(full_at, source));
        self.budgets.remove(&source);
    }
}

#[cfg(test)]
mod tests {
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
    fn budget_allows_a_minute_s_worth_at_once_and_refills_steadily() {
        let mut attempts = KeyAttempts::new();
        let [guesser, other] = ["192.0.2.1", "192.0.2.2"].map(source);
        for _ in 0..3 {
            assert!(!attempts.is_exhausted(guesser, 3, at(0)));
            attempts.spend(guesser, 3, at(0));
        }
        assert!(attempts.is_exhausted(guesser, 3, at(19_999)));
        assert!(!attempts.is_exhausted(other, 3, at(0)));
        assert!(!attempts.is_exhausted(guesser, 3, at(20_000)));
        attempts.spend(guesser, 3, at(20_000));
        assert!(attempts.is_exhausted(guesser, 3, at(39_999)));
        attempts.spend(other, 3, at(80_000));
        assert_eq!(attempts.budgets.len(), 1, "full budgets are forgotten");
    }

    #[test]
    fn exhausted_source_stays_throttled_when_the_table_is_full() {
        let mut attempts = KeyAttempts::new();
        let guesser = source("192.0.2.1");
        for _ in 0..3 {
            attempts.spend(guesser, 3, at(0));
        }
        for n in 0..100_000_u32 {
            attempts.spend(IpAddr::from((n | 1 << 31).to_be_bytes()).into(), 3, at(1));
        }
        assert_eq!(
            (attempts.budgets.len(), attempts.by_full_at.len()),
            (MAX_SOURCES, MAX_SOURCES)
        );
        assert!(attempts.is_exhausted(guesser, 3, at(1)));
    }
}
