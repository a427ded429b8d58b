//! The order and the pace of a graceful shutdown.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::{id::ConnId, time::Time};

/// Connections that are closed one after the other.
pub(super) struct Drain {
    queue: VecDeque<ConnId>,
    /// The time between two closes.
    interval: Duration,
    next: Time,
    accept_until: Time,
}

/// The longest interval between two closes. It applies to few connections, whose clients may reconnect at the same time.
const MAX_INTERVAL: Duration = Duration::from_millis(10);

/// What to do next.
pub(super) enum Step {
    Close(ConnId),
    Wait,
    /// No connection is left, and none is accepted any more.
    Done,
}

impl Drain {
    pub(super) fn new(queue: VecDeque<ConnId>, spread: Duration, now: Time, accept_until: Time) -> Self {
        let count = queue.len().max(1).try_into().unwrap_or(u32::MAX);
        Self {
            queue,
            interval: MAX_INTERVAL.min(spread / count),
            next: now,
            accept_until,
        }
    }

    pub(super) fn accepts(&self, now: Time) -> bool {
        now < self.accept_until
    }

    /// Adds a connection that was accepted during the drain, at the front of the queue: the openers are at the end.
    pub(super) fn push(&mut self, id: ConnId, now: Time) {
        if self.queue.is_empty() {
            self.next = now.saturating_add(MAX_INTERVAL);
        }
        self.queue.push_front(id);
    }

    /// Returns when the next step is due.
    pub(super) fn next(&self) -> Time {
        if self.queue.is_empty() {
            self.accept_until
        } else {
            self.next
        }
    }

    pub(super) fn pop_due(&mut self, now: Time) -> Step {
        if now < self.next() {
            return Step::Wait;
        }
        match self.queue.pop_front() {
            Some(id) => {
                self.next = self.next.saturating_add(self.interval);
                Step::Close(id)
            }
            None => Step::Done,
        }
    }
}
