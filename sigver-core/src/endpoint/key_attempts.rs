//! Throttling of clients that guess keys, by connection and by source address.

use core::time::Duration;

use crate::{
    endpoint::source_table::{Source, SourceTable},
    id::Key,
    message::InboundMessage,
    time::Time,
};

/// Returns the key that a request for a role names.
pub(super) fn named_key(message: &InboundMessage) -> Option<&Key> {
    match message {
        InboundMessage::Open { key, .. } | InboundMessage::Join { key, .. } | InboundMessage::Meet { key, .. } => {
            Some(key)
        }
        InboundMessage::NotAllowed { key } => key.as_ref(),
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

/// The attempts of all connections of a source together.
pub(super) struct KeyAttempts(SourceTable);

/// How many times the budget of a connection all connections of one source have together.
pub(super) const SOURCE_FACTOR: u32 = 10;

impl KeyAttempts {
    pub(super) const fn new() -> Self {
        Self(SourceTable::new())
    }

    /// Returns whether the source has less than one attempt left.
    pub(super) fn is_exhausted(&self, source: Source, per_minute: u32, now: Time) -> bool {
        self.budget(source, now).is_exhausted(per_minute, now)
    }

    pub(super) fn spend(&mut self, source: Source, per_minute: u32, now: Time) {
        let mut budget = self.budget(source, now);
        budget.spend(per_minute, now);
        self.0.set(source, budget.full_at, now);
    }

    fn budget(&self, source: Source, now: Time) -> AttemptBudget {
        AttemptBudget {
            full_at: self.0.full_at(source).unwrap_or(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    fn source(text: &str) -> Source {
        text.parse::<IpAddr>().expect("an address").into()
    }

    fn at(millis: u64) -> Time {
        Time::from_duration(Duration::from_millis(millis))
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
    }
}
