//! Tables and queues by connection.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::time::Duration;

use crate::{id::ConnId, time::Time};

/// Timers of one kind, at most one for each connection, in order of time. A connection keeps its [`Timer`], to cancel it.
pub(super) struct Timers {
    queue: BTreeSet<(Timer, ConnId)>,
    scheduled: u64,
}

/// The time of a timer, and its number. Timers that are due at the same time fire in the order in which they were scheduled: an order by id
/// would let connections of other keys, which take slots, change it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timer {
    at: Time,
    number: u64,
}

impl Timers {
    pub(super) const fn new() -> Self {
        Self {
            queue: BTreeSet::new(),
            scheduled: 0,
        }
    }

    /// Adds a timer that is due `after` from now, and returns it; [`Duration::MAX`] is never.
    pub(super) fn schedule(&mut self, now: Time, after: Duration, id: ConnId) -> Option<Timer> {
        let at = now.checked_add(after).filter(|_| after < Duration::MAX)?;
        self.scheduled += 1;
        let timer = Timer {
            at,
            number: self.scheduled,
        };
        self.queue.insert((timer, id));
        Some(timer)
    }

    /// Removes the timer of a connection, if it has one.
    pub(super) fn cancel(&mut self, timer: Option<Timer>, id: ConnId) {
        if let Some(timer) = timer {
            self.queue.remove(&(timer, id));
        }
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.queue.first().map(|(timer, _)| timer.at)
    }

    pub(super) fn pop_due(&mut self, now: Time) -> Option<ConnId> {
        self.next().filter(|at| *at <= now)?;
        self.queue.pop_first().map(|(_, id)| id)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

/// Timers that few connections have: it keeps them itself.
pub(super) struct RareTimers {
    timers: Timers,
    by_conn: BTreeMap<ConnId, Timer>,
}

impl RareTimers {
    pub(super) const fn new() -> Self {
        Self {
            timers: Timers::new(),
            by_conn: BTreeMap::new(),
        }
    }

    /// Sets the timer of a connection. A time that has passed is due at once.
    pub(super) fn set(&mut self, now: Time, at: Time, id: ConnId) {
        self.cancel(id);
        if let Some(timer) = self.timers.schedule(now, at.saturating_duration_since(now), id) {
            self.by_conn.insert(id, timer);
        }
    }

    pub(super) fn cancel(&mut self, id: ConnId) {
        self.timers.cancel(self.by_conn.remove(&id), id);
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.timers.next()
    }

    pub(super) fn pop_due(&mut self, now: Time) -> Option<ConnId> {
        let id = self.timers.pop_due(now)?;
        self.by_conn.remove(&id);
        Some(id)
    }

    pub(super) fn len(&self) -> usize {
        self.timers.len()
    }
}

/// A table by slot. An id whose slot was reused is unknown.
pub(super) struct ConnTable<T>(Vec<Option<(ConnId, T)>>);

impl<T> ConnTable<T> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn insert(&mut self, id: ConnId, value: T) {
        if self.0.len() <= id.slot() {
            self.0.resize_with(id.slot() + 1, || None);
        }
        self.0[id.slot()] = Some((id, value));
    }

    pub(super) fn get(&self, id: ConnId) -> Option<&T> {
        match self.0.get(id.slot()) {
            Some(Some((known, value))) if *known == id => Some(value),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        match self.0.get_mut(id.slot()) {
            Some(Some((known, value))) if *known == id => Some(value),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, id: ConnId) -> Option<T> {
        self.get(id)?;
        self.0[id.slot()].take().map(|(_, value)| value)
    }

    /// Returns every entry, by slot.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ConnId, &T)> {
        self.0.iter().flatten().map(|(id, value)| (*id, value))
    }

    /// Returns every id, by slot.
    pub(super) fn ids(&self) -> impl Iterator<Item = ConnId> {
        self.iter().map(|(id, _)| id)
    }
}
