//! Each source's share of the reserved keys: a client that loses many connections must not end the reservations of others.

use core::{num::NonZeroU32, time::Duration};

use crate::{
    endpoint::source_table::{Source, SourceTable},
    limits::Limits,
    time::Time,
};

/// A source may have this part of all reservations, and at least [`MIN`].
const SHARES: u32 = 8;

/// The reservations that a source may have in any case.
const MIN: u32 = 16;

/// The reservations of each source, as a budget that refills in the time of a reservation.
pub(super) struct ReservationShares {
    budgets: SourceTable,
    /// How long one reservation takes to refill; zero if there is no limit.
    cost: Duration,
    full: Duration,
}

impl ReservationShares {
    pub(super) fn new(limits: &Limits) -> Self {
        let most = limits.reserved_keys.or(limits.connections);
        let share = most.map(|most| (most.get() / SHARES).max(MIN));
        Self {
            budgets: SourceTable::new(),
            cost: share
                .and_then(NonZeroU32::new)
                .map_or(Duration::ZERO, |share| limits.reserve / share.get()),
            full: limits.reserve,
        }
    }

    /// Whether a key may be reserved for a client of this source; counts it then.
    pub(super) fn take(&mut self, source: Source, now: Time) -> bool {
        if self.cost.is_zero() {
            return true;
        }
        let full_at = self.budgets.full_at(source).unwrap_or(now).max(now);
        let after = full_at.saturating_add(self.cost);
        if after > now.saturating_add(self.full) {
            return false;
        }
        self.budgets.set(source, after, now);
        true
    }
}
