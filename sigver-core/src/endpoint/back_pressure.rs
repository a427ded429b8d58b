//! Back-pressure on joiners: a joiner that sends faster than its opener reads is not read until there is room for it.
//!
//! A message for which there is no room stays with its sender, and so does all that the sender has sent behind it. An opener that reads
//! nothing while joiners wait is closed after the close time-out.

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::{iter, mem};

use crate::{
    endpoint::{
        Conn, Endpoint, Outputs,
        blocked::{BlockReason, Blocked, Received},
        fair_queue::{STALL_CHECKS, Stall, WAITING_OVERHEAD},
        io::Output,
        timers::Timer,
    },
    frame::Frame,
    id::ConnId,
    message::InboundMessage,
    reason::CloseReason,
    time::Time,
};

/// A joiner may use this part of an opener's write buffer, and all together leave as much to the opener's own frames.
const SHARES: usize = 8;

/// The endpoint returns frames for an opener beyond an empty write buffer only up to this many bytes; all others wait in turn.
const MAX_WINDOW: usize = 4 * 1024;

/// What is added to the text of a message on its way to an opener, at most: an envelope, an index, the frame's header.
const ENVELOPE: usize = 64;

/// The assumed size of the ICE servers in the notice of a joiner. Larger ones can exceed the write buffer of the opener by the difference.
const ICE: usize = 2 * 1024;

/// The events of a joiner that wait at least, whatever their size: a driver may have read some before it is told to stop.
const MIN_WAITING: usize = 16;

impl Conn {
    /// Returns what counts for the write buffer: the frames that were returned and not reported as written, and those that wait.
    pub(super) fn backlog(&self) -> usize {
        self.unwritten + self.queue.as_ref().map_or(0, |queue| queue.bytes())
    }

    /// Returns what counts for the limit of all connections together: the backlog, and what the client has sent that waits.
    pub(super) fn memory(&self) -> usize {
        self.backlog() + self.blocked.as_ref().map_or(0, |blocked| blocked.bytes)
    }

    /// Whether a frame that a joiner causes can be returned at once.
    fn is_writable(&self, cost: usize, limit: usize) -> bool {
        self.unwritten == 0 || (self.unwritten < window(limit) && self.unwritten + cost <= limit)
    }

    /// Whether there is room for a message of this size from a joiner.
    fn has_room(&self, joiner: ConnId, text_bytes: usize, limit: usize) -> bool {
        let backlog = self.backlog();
        let share = self.queue.as_ref().map_or(0, |queue| queue.share(joiner));
        let cost = text_bytes + ENVELOPE + WAITING_OVERHEAD;
        backlog == 0 || (backlog + cost <= limit - limit / SHARES && (share == 0 || share + cost <= limit / SHARES))
    }

    pub(super) fn stall_timer(&self) -> Option<Timer> {
        self.queue.as_ref()?.stall.as_ref()?.check_timer
    }

    /// Records that the client has read something. If frames wait for it, that is a sign of life: pings wait behind them.
    pub(super) fn record_progress(&mut self) {
        if let Some(queue) = &mut self.queue {
            self.missed_pings = 0;
            if let Some(stall) = &mut queue.stall {
                stall.has_progressed = true;
            }
        }
    }

    /// Drops the queue if nothing is left in it.
    fn drop_empty_queue(&mut self) {
        self.queue.take_if(|queue| !queue.has_frames() && !queue.has_blocked());
    }
}

fn window(limit: usize) -> usize {
    MAX_WINDOW.min(limit / SHARES)
}

impl Endpoint {
    /// Handles what a connection has sent, unless the connection is not read at the moment: then it waits.
    pub(super) fn receive(&mut self, now: Time, id: ConnId, received: Received, outputs: &mut Outputs) {
        let limit = self.config.backlog_bytes as usize;
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Some(blocked) = &mut conn.blocked {
            let bytes = received.bytes();
            blocked.bytes += bytes;
            blocked.received.push_back(received);
            self.backlogs.add(bytes);
            if blocked.bytes > limit && blocked.received.len() > MIN_WAITING {
                // The driver goes on reading.
                self.close_into(now, id, CloseReason::TooSlow, outputs);
            }
            return;
        }
        if let Some(opener) = self.opener_without_room(now, id, &received) {
            self.block_for_room(now, id, opener, VecDeque::from([received]));
            outputs.push((id, Output::StopReading));
            return;
        }
        self.dispatch(now, id, received, outputs);
    }

    /// Returns the opener whose write buffer has no room for what follows from a message.
    fn opener_without_room(&self, now: Time, id: ConnId, received: &Received) -> Option<ConnId> {
        let Received::Message {
            message, text_bytes, ..
        } = received
        else {
            return None;
        };
        let opener = match message {
            InboundMessage::Data { .. } | InboundMessage::UnknownControl { .. } => self.hub.place(id)?.0,
            InboundMessage::Join { key, .. } | InboundMessage::Meet { key, token: None, .. }
                if self.hub.role(id).is_none() && !self.is_throttled(now, id) =>
            {
                self.hub.opener(key)?
            }
            InboundMessage::Join { .. }
            | InboundMessage::Meet { .. }
            | InboundMessage::Open { .. }
            | InboundMessage::OpenGenerated { .. }
            | InboundMessage::NotAllowed { .. }
            | InboundMessage::Kick { .. }
            | InboundMessage::Leave
            | InboundMessage::CloseKey
            | InboundMessage::Ping => return None,
        };
        let conn = self.conns.get(opener)?;
        let is_first = conn.queue.as_ref().is_none_or(|queue| queue.first_in_line().is_none());
        let has_room = is_first
            && conn.has_room(
                id,
                text_bytes + self.ice_bytes(message),
                self.config.backlog_bytes as usize,
            );
        (!has_room).then_some(opener)
    }

    /// Keeps what a connection has sent until [`resume`](Self::resume).
    pub(super) fn block(&mut self, id: ConnId, reason: BlockReason, received: VecDeque<Received>) {
        // It has asked for a role in time, if that is what it asks for.
        self.hub.meet_deadline(id);
        if let Some(conn) = self.conns.get_mut(id) {
            let bytes = received.iter().map(Received::bytes).sum();
            self.backlogs.add(bytes);
            conn.blocked = Some(Box::new(Blocked {
                reason,
                received,
                bytes,
            }));
        }
    }

    fn block_for_room(&mut self, now: Time, id: ConnId, opener: ConnId, received: VecDeque<Received>) {
        self.block(id, BlockReason::NoRoom(opener), received);
        self.counters.blocked_joiners += 1;
        let Some(conn) = self.conns.get_mut(opener) else { return };
        let queue = conn.queue.get_or_insert_default();
        queue.block(id);
        if queue.stall.is_none() {
            queue.stall = Some(Stall {
                check_timer: self.stall_timers.schedule(now, self.stall_check, opener),
                checks: 0,
                has_progressed: false,
            });
        }
    }

    /// Handles what a connection has sent while it was not read. `has_room`: for the first message there is room.
    fn resume(&mut self, now: Time, id: ConnId, mut has_room: bool, outputs: &mut Outputs) {
        let Some(blocked) = self.unblock(id) else { return };
        let mut received = blocked.received;
        while let Some(next) = received.pop_front() {
            if !mem::take(&mut has_room) {
                if let Some(opener) = self.opener_without_room(now, id, &next) {
                    received.push_front(next);
                    return self.block_for_room(now, id, opener, received);
                }
            }
            self.dispatch(now, id, next, outputs);
            let Some(conn) = self.conns.get_mut(id) else { return };
            if let Some(again) = &mut conn.blocked {
                let bytes = received.iter().map(Received::bytes).sum();
                again.bytes += bytes;
                again.received.append(&mut received);
                self.backlogs.add(bytes);
                return;
            }
        }
        outputs.push((id, Output::ResumeReading));
    }

    /// Ends the wait of a connection, and returns what it has sent.
    pub(super) fn unblock(&mut self, id: ConnId) -> Option<Blocked> {
        let blocked = *self.conns.get_mut(id)?.blocked.take()?;
        self.backlogs.subtract(blocked.bytes);
        match blocked.reason {
            BlockReason::NoRoom(opener) => self.leave_line(id, opener),
            BlockReason::Throttled { timer, .. } => self.refusal_timers.cancel(timer, id),
            BlockReason::UnknownKey => {}
        }
        Some(blocked)
    }

    fn leave_line(&mut self, joiner: ConnId, opener: ConnId) {
        self.counters.blocked_joiners -= 1;
        let Some(conn) = self.conns.get_mut(opener) else { return };
        if let Some(queue) = &mut conn.queue {
            queue.unblock(joiner);
            if !queue.has_blocked() {
                let timer = queue.stall.take().and_then(|stall| stall.check_timer);
                self.stall_timers.cancel(timer, opener);
            }
        }
        conn.drop_empty_queue();
    }

    /// Lets the joiners continue that wait for a connection whose role ends.
    pub(super) fn release_joiners(&mut self, id: ConnId) {
        if let Some(queue) = self.conns.get(id).and_then(|conn| conn.queue.as_ref()) {
            self.released.extend(queue.blocked());
        }
    }

    /// Handles what clients have sent that wait no longer. Every call of the endpoint ends with this.
    pub(super) fn resume_released(&mut self, now: Time, outputs: &mut Outputs) {
        while let Some(id) = self.released.pop_front() {
            self.resume(now, id, false, outputs);
        }
    }

    /// Returns a frame that a joiner has caused to the driver, or queues it while the opener's socket is busy. There is room for it: that
    /// of a joiner was looked at before its message was handled, and each notice of a joiner that leaves follows one that it has joined.
    pub(super) fn enqueue_for_opener(
        &mut self,
        to: ConnId,
        joiner: Option<ConnId>,
        frame: Frame,
        outputs: &mut Outputs,
    ) {
        let limit = self.config.backlog_bytes as usize;
        let Some(conn) = self.conns.get_mut(to) else { return };
        self.counters.count_sent(&frame);
        let cost = frame.cost();
        self.backlogs.add(cost);
        let is_queued = conn.queue.as_ref().is_some_and(|queue| queue.has_frames());
        if is_queued || !conn.is_writable(cost, limit) {
            conn.queue.get_or_insert_default().push(joiner, frame);
            self.backlogs.add(WAITING_OVERHEAD);
        } else {
            conn.unwritten += cost;
            outputs.push((to, Output::Send(frame)));
        }
    }

    /// Returns the next frames of an opener's queue to the driver, and reads its joiners again while there is room.
    pub(super) fn continue_sending(&mut self, now: Time, id: ConnId, outputs: &mut Outputs) {
        let limit = self.config.backlog_bytes as usize;
        loop {
            let Some(conn) = self.conns.get_mut(id) else { return };
            let Some(queue) = &mut conn.queue else { return };
            while conn.unwritten < window(limit) || conn.unwritten == 0 {
                let room = if conn.unwritten == 0 {
                    usize::MAX
                } else {
                    limit.saturating_sub(conn.unwritten)
                };
                let Some(frame) = queue.pop(room) else { break };
                conn.unwritten += frame.cost();
                self.backlogs.subtract(WAITING_OVERHEAD);
                outputs.push((id, Output::Send(frame)));
            }
            let next = queue.first_in_line();
            conn.drop_empty_queue();
            let Some(joiner) = next.filter(|joiner| self.has_room_for_first(id, *joiner)) else {
                return;
            };
            self.resume(now, joiner, true, outputs);
        }
    }

    fn has_room_for_first(&self, opener: ConnId, joiner: ConnId) -> bool {
        let first = self
            .conns
            .get(joiner)
            .and_then(|conn| conn.blocked.as_ref()?.received.front());
        match (self.conns.get(opener), first) {
            (
                Some(conn),
                Some(Received::Message {
                    message, text_bytes, ..
                }),
            ) => conn.has_room(
                joiner,
                text_bytes + self.ice_bytes(message),
                self.config.backlog_bytes as usize,
            ),
            _ => true,
        }
    }

    /// Returns what the ICE servers of a notice add to the size of the message that causes it.
    fn ice_bytes(&self, message: &InboundMessage) -> usize {
        let is_request = matches!(message, InboundMessage::Join { .. } | InboundMessage::Meet { .. });
        if is_request && self.ice.is_some() { ICE } else { 0 }
    }

    /// Panics if a joiner waits for a connection that does not know it, or the other way round.
    pub(super) fn assert_back_pressure(&self) {
        let mut waiting = 0;
        for id in self.conns.ids() {
            let Some(conn) = self.conns.get(id) else { continue };
            if let Some(BlockReason::NoRoom(opener)) = conn.blocked.as_ref().map(|blocked| &blocked.reason) {
                waiting += 1;
                let opener = self.conns.get(*opener).and_then(|conn| conn.queue.as_ref());
                assert!(opener.is_some_and(|queue| queue.blocked().contains(&id)));
            }
        }
        let queues = self.conns.ids().filter_map(|id| self.conns.get(id)?.queue.as_ref());
        let mut blocked = 0;
        for queue in queues {
            blocked += queue.blocked().len();
            assert_eq!(queue.stall.is_some(), queue.has_blocked());
        }
        assert_eq!(waiting, blocked, "joiners and openers agree on who waits");
        assert_eq!(waiting, self.counters.blocked_joiners as usize);
        assert!(self.released.is_empty(), "no call leaves a joiner behind");
    }

    /// Closes the openers that have read nothing for a close time-out while joiners wait.
    pub(super) fn check_stalls(&mut self, now: Time, is_late: bool, outputs: &mut Outputs) {
        // A close time-out of zero is due again at once, in the next call.
        let due: Vec<_> = iter::from_fn(|| self.stall_timers.pop_due(now)).collect();
        for id in due {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            let Some(stall) = conn.queue.as_mut().and_then(|queue| queue.stall.as_mut()) else {
                continue;
            };
            let has_progressed = mem::take(&mut stall.has_progressed) || is_late;
            stall.checks = if has_progressed { 0 } else { stall.checks + 1 };
            stall.check_timer = None;
            if stall.checks == STALL_CHECKS {
                self.close_into(now, id, CloseReason::TooSlow, outputs);
                continue;
            }
            stall.check_timer = self.stall_timers.schedule(now, self.stall_check, id);
            outputs.push((id, Output::ProbeProgress));
        }
    }
}
