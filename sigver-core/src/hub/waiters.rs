//! The connections that wait for keys, in order of arrival.

use alloc::collections::BTreeMap;

use crate::id::{ConnId, Key};

/// The waiters of all keys. A key without waiters has no entry.
pub(super) struct Waiters {
    by_key: BTreeMap<Key, BTreeMap<Arrival, ConnId>>,
    len: u32,
    next: Arrival,
}

/// A number that rises with each waiter.
pub(super) type Arrival = u64;

impl Waiters {
    pub(super) const fn new() -> Self {
        Self {
            by_key: BTreeMap::new(),
            len: 0,
            next: 0,
        }
    }

    /// Returns the number of waiters.
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    /// Returns the number of waiters for `key`.
    pub(super) fn count(&self, key: &Key) -> usize {
        self.by_key.get(key).map_or(0, BTreeMap::len)
    }

    /// Adds a waiter behind the others.
    pub(super) fn push(&mut self, key: Key, conn: ConnId) -> Arrival {
        let arrival = self.next;
        self.next += 1;
        self.by_key.entry(key).or_default().insert(arrival, conn);
        self.len += 1;
        arrival
    }

    pub(super) fn remove(&mut self, key: &Key, arrival: Arrival) {
        let Some(waiters) = self.by_key.get_mut(key) else {
            return;
        };
        if waiters.remove(&arrival).is_some() {
            self.len -= 1;
        }
        if waiters.is_empty() {
            self.by_key.remove(key);
        }
    }

    /// Removes all waiters for `key`. Returns them in order of arrival.
    pub(super) fn take(&mut self, key: &Key) -> impl Iterator<Item = ConnId> + use<> {
        let waiters = self.by_key.remove(key).unwrap_or_default();
        self.len -= waiters.len() as u32;
        waiters.into_values()
    }

    pub(super) fn clear(&mut self) {
        self.by_key.clear();
        self.len = 0;
    }

    /// Returns all waiters, for tests.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, Arrival, ConnId)> {
        let keys = self.by_key.iter();
        keys.flat_map(|(key, waiters)| waiters.iter().map(move |(arrival, conn)| (key, *arrival, *conn)))
    }
}
