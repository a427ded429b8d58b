//! Tables and queues by connection.

use alloc::{collections::VecDeque, vec::Vec};
use core::time::Duration;

use crate::{id::ConnId, time::Time};

/// Timers of one kind, which all have the same duration: a queue in order of time. A timer whose connection is gone is skipped when it is
/// due.
pub(super) struct Timers(VecDeque<(Time, ConnId)>);

impl Timers {
    pub(super) const fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Adds a timer that is due `after` from now; [`Duration::MAX`] is never.
    pub(super) fn schedule(&mut self, now: Time, after: Duration, id: ConnId) {
        if let Some(at) = now.checked_add(after).filter(|_| after < Duration::MAX) {
            self.0.push_back((at, id));
        }
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.0.front().map(|(at, _)| *at)
    }

    pub(super) fn pop_due(&mut self, now: Time) -> Option<ConnId> {
        match self.0.front() {
            Some((at, _)) if *at <= now => self.0.pop_front().map(|(_, id)| id),
            _ => None,
        }
    }

    /// Removes timers from the front until one is needed.
    pub(super) fn drop_stale(&mut self, is_needed: impl Fn(ConnId) -> bool) {
        while self.0.front().is_some_and(|(_, id)| !is_needed(*id)) {
            self.0.pop_front();
        }
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

    pub(super) fn remove(&mut self, id: ConnId) {
        if self.get(id).is_some() {
            self.0[id.slot()] = None;
        }
    }

    /// Returns every id, by slot.
    pub(super) fn ids(&self) -> impl Iterator<Item = ConnId> {
        self.0.iter().flatten().map(|(id, _)| *id)
    }
}
