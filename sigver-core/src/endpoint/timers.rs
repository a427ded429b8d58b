//! Tables and queues by connection.

use alloc::{collections::BTreeSet, vec::Vec};
use core::time::Duration;

use crate::{id::ConnId, time::Time};

/// Timers of one kind, at most one for each connection, in order of time. A connection keeps the time of its timer, to cancel it.
pub(super) struct Timers(BTreeSet<(Time, ConnId)>);

impl Timers {
    pub(super) const fn new() -> Self {
        Self(BTreeSet::new())
    }

    /// Adds a timer that is due `after` from now, and returns its time; [`Duration::MAX`] is never.
    pub(super) fn schedule(&mut self, now: Time, after: Duration, id: ConnId) -> Option<Time> {
        let at = now.checked_add(after).filter(|_| after < Duration::MAX)?;
        self.0.insert((at, id));
        Some(at)
    }

    /// Removes the timer of a connection, if it has one.
    pub(super) fn cancel(&mut self, at: Option<Time>, id: ConnId) {
        if let Some(at) = at {
            self.0.remove(&(at, id));
        }
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.0.first().map(|(at, _)| *at)
    }

    pub(super) fn pop_due(&mut self, now: Time) -> Option<ConnId> {
        self.next().filter(|at| *at <= now)?;
        self.0.pop_first().map(|(_, id)| id)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
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

    /// Returns every id, by slot.
    pub(super) fn ids(&self) -> impl Iterator<Item = ConnId> {
        self.0.iter().flatten().map(|(id, _)| *id)
    }
}
