//! The keys that are reserved for openers whose connection was lost.

use alloc::collections::BTreeMap;

use crate::{id::Key, time::Time};

/// The reserved keys by the end of their reservation. The key's entry in the table of keys has its token.
pub(super) struct Reservations {
    keys: BTreeMap<Reservation, Key>,
    next: u64,
}

/// Identifies a reservation. Those that end at the same time are ordered by their age.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reservation {
    until: Time,
    number: u64,
}

impl Reservations {
    pub(super) const fn new() -> Self {
        Self {
            keys: BTreeMap::new(),
            next: 0,
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.keys.len() as u32
    }

    pub(super) fn insert(&mut self, until: Time, key: Key) -> Reservation {
        let number = self.next;
        self.next += 1;
        let reservation = Reservation { until, number };
        self.keys.insert(reservation, key);
        reservation
    }

    pub(super) fn remove(&mut self, reservation: Reservation) {
        self.keys.remove(&reservation);
    }

    /// Removes the oldest one and returns its key.
    pub(super) fn pop_first(&mut self) -> Option<Key> {
        self.keys.pop_first().map(|(_, key)| key)
    }

    /// Removes one that has ended and returns its key.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<Key> {
        self.next().filter(|until| *until <= now)?;
        self.pop_first()
    }

    /// Returns when the next one ends.
    pub(super) fn next(&self) -> Option<Time> {
        self.keys.keys().next().map(|reservation| reservation.until)
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
    }

    /// Returns the reserved key. For tests.
    pub(super) fn key(&self, reservation: Reservation) -> Option<&Key> {
        self.keys.get(&reservation)
    }
}
