//! Connections whose last frame was returned and whose socket may still exist.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::{
    endpoint::timers::{Timer, Timers},
    id::ConnId,
    time::Time,
};

/// How many times the close time-out may pass before a connection is aborted although its client still reads.
const MAX_PERIODS: u8 = 12;

/// All closing connections. Each is checked after every close time-out: without progress since the last check, it is aborted.
pub(super) struct ClosingTable {
    timeout: Duration,
    conns: BTreeMap<ConnId, ClosingConn>,
    timers: Timers,
}

struct ClosingConn {
    check_timer: Option<Timer>,
    /// The close time-outs that have passed.
    periods: u8,
    /// The cost of the frames before the last one that were not reported as written.
    backlog: usize,
    /// Whether the client has read something since the last check.
    has_progressed: bool,
}

impl ClosingTable {
    pub(super) const fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            conns: BTreeMap::new(),
            timers: Timers::new(),
        }
    }

    /// Adds a connection with this much unwritten before its last frame.
    pub(super) fn insert(&mut self, now: Time, id: ConnId, backlog: usize) {
        let conn = ClosingConn {
            check_timer: self.timers.schedule(now, self.timeout, id),
            periods: 0,
            backlog,
            has_progressed: false,
        };
        self.conns.insert(id, conn);
    }

    pub(super) fn remove(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.remove(&id) {
            self.timers.cancel(conn.check_timer, id);
        }
    }

    /// Records written frames. The last frame alone is no progress: it says nothing about the client.
    pub(super) fn written(&mut self, id: ConnId, cost: usize) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.has_progressed |= conn.backlog.min(cost) > 0;
            conn.backlog = conn.backlog.saturating_sub(cost);
        }
    }

    pub(super) fn record_progress(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.has_progressed = true;
        }
    }

    /// Returns when the next check is due.
    pub(super) fn next(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Runs the due checks until one fails. Removes that connection and returns it: the driver aborts it. A late check passes.
    pub(super) fn pop_expired(&mut self, now: Time, is_late: bool) -> Option<ConnId> {
        // A time-out of zero is due again at once.
        while let Some(id) = self.timers.pop_due(now) {
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            conn.periods += 1;
            let has_progressed = core::mem::take(&mut conn.has_progressed) || is_late;
            if !has_progressed || conn.periods >= MAX_PERIODS {
                self.conns.remove(&id);
                return Some(id);
            }
            conn.check_timer = self.timers.schedule(now, self.timeout, id);
        }
        None
    }

    pub(super) fn contains(&self, id: ConnId) -> bool {
        self.conns.contains_key(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.conns.len()
    }

    pub(super) fn timers(&self) -> usize {
        self.timers.len()
    }
}
