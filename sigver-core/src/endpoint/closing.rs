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
    /// Whether these frames were discarded. They do not count any more, but the client may still read the rest of one of them.
    is_discarded: bool,
    /// Whether the client has read something since the last check.
    has_progressed: bool,
}

impl ClosingConn {
    /// Returns the part of its backlog that is not discarded.
    const fn counted(&self) -> usize {
        if self.is_discarded { 0 } else { self.backlog }
    }
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
    pub(super) fn insert(&mut self, now: Time, id: ConnId, backlog: usize, is_discarded: bool) {
        let conn = ClosingConn {
            check_timer: self.timers.schedule(now, self.timeout, id),
            periods: 0,
            backlog,
            is_discarded,
            has_progressed: false,
        };
        self.conns.insert(id, conn);
    }

    /// Removes a connection and returns its backlog.
    pub(super) fn remove(&mut self, id: ConnId) -> usize {
        let Some(conn) = self.conns.remove(&id) else { return 0 };
        self.timers.cancel(conn.check_timer, id);
        conn.counted()
    }

    /// Records written frames, and returns by how much the backlog shrinks. The last frame alone is no progress: it says nothing about the
    /// client.
    pub(super) fn written(&mut self, id: ConnId, cost: usize) -> usize {
        let Some(conn) = self.conns.get_mut(&id) else { return 0 };
        let before = conn.counted();
        conn.has_progressed |= conn.backlog.min(cost) > 0;
        conn.backlog = conn.backlog.saturating_sub(cost);
        before - conn.counted()
    }

    /// Returns the backlog of each connection, by id.
    pub(super) fn backlogs(&self) -> impl Iterator<Item = (ConnId, usize)> {
        self.conns.iter().map(|(id, conn)| (*id, conn.counted()))
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

    /// Runs the due checks until one fails. Removes that connection and returns it with its backlog: the driver aborts it. A late check
    /// passes.
    pub(super) fn pop_expired(&mut self, now: Time, is_late: bool) -> Option<(ConnId, usize)> {
        // A time-out of zero is due again at once.
        while let Some(id) = self.timers.pop_due(now) {
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            conn.periods += 1;
            let has_progressed = core::mem::take(&mut conn.has_progressed) || is_late;
            if !has_progressed || conn.periods >= MAX_PERIODS {
                return Some((id, self.remove(id)));
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
