//! The naive endpoint's back-pressure: the queue of an opener, and joiners that wait for room in it.

use core::{mem, time::Duration};
use std::collections::VecDeque;

use sigver_core::{AllowedRoles, CloseReason, Dialect};

use crate::model;

use super::{Client, EndpointModel, Event, Outputs, State, To, cost};

/// The frames that wait for an opener, in the order in which they are sent, and the joiners that wait for it.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) frames: Vec<QueuedFrame>,
    /// When the last frame was due that was sent, or that everything later follows.
    clock: usize,
    blocked: Vec<usize>,
    line: Vec<usize>,
    stall: Option<Stall>,
}

pub(super) struct QueuedFrame {
    due: usize,
    joiner: Option<usize>,
    pub(super) text: String,
    pub(super) cost: usize,
}

pub(super) struct Stall {
    check_at: Option<Duration>,
    /// Stalls that are checked at the same time are checked in this order.
    scheduled: usize,
    checks: u32,
    has_progressed: bool,
}

/// An event of a joiner that is not read, and the number of its step.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    pub(super) event: Event,
    pub(super) token: usize,
}

pub(super) struct Blocked {
    pub(super) reason: Reason,
    pub(super) events: Vec<Waiting>,
}

/// Why a client is not read.
#[derive(Clone, Copy)]
pub(super) enum Reason {
    NoRoom {
        opener: usize,
    },
    UnknownKey,
    Throttled {
        key: usize,
        at: Option<Duration>,
        scheduled: usize,
    },
}

impl Waiting {
    pub(super) fn size(self, dialect: Dialect) -> usize {
        let is_v1 = dialect == Dialect::V1;
        let is_violation = match self.event {
            Event::InvalidJson => true,
            Event::Data { to, .. } => is_v1 && to == To::Malformed,
            Event::UnknownType => is_v1,
            _ => false,
        };
        let content = match self.event {
            Event::Ping { bytes } => bytes,
            _ if is_violation => 0,
            _ => self.event.text(dialect, self.token).map_or(0, |text| text.len()),
        };
        160 + content
    }
}

/// What a waiting frame costs in addition.
const PLACE: usize = 128;

impl Queue {
    pub(super) fn push(&mut self, joiner: Option<usize>, text: String, cost: usize) {
        let last = self.frames.last().map_or(self.clock, |last| last.due);
        let due = match joiner {
            None => {
                self.clock = last;
                last
            }
            Some(_) => {
                let own = self.frames.iter().filter(|frame| frame.joiner == joiner);
                own.map(|frame| frame.due).max().unwrap_or(0).max(self.clock) + cost + PLACE
            }
        };
        let place = self.frames.partition_point(|frame| frame.due <= due);
        let frame = QueuedFrame {
            due,
            joiner,
            text,
            cost,
        };
        self.frames.insert(place, frame);
    }

    fn bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.cost + PLACE).sum()
    }

    fn share(&self, joiner: usize) -> usize {
        let own = self.frames.iter().filter(|frame| frame.joiner == Some(joiner));
        own.map(|frame| frame.cost + PLACE).sum()
    }

    fn line_up(&mut self, joiner: usize) {
        if self.blocked.contains(&joiner) && self.share(joiner) == 0 {
            self.line.push(joiner);
        }
    }

    pub(super) fn next_check(&self) -> Option<Duration> {
        self.stall.as_ref()?.check_at
    }
}

impl Client {
    pub(super) fn backlog(&self) -> usize {
        self.unwritten + self.queue.bytes()
    }

    fn has_room(&self, joiner: usize, text: usize, limit: usize) -> bool {
        let (backlog, share) = (self.backlog(), self.queue.share(joiner));
        let cost = text + 64 + PLACE;
        let eighth = limit / 8;
        backlog == 0 || (backlog + cost <= limit - eighth && (share == 0 || share + cost <= eighth))
    }
}

impl EndpointModel {
    fn limit(&self) -> usize {
        self.config.backlog_bytes as usize
    }

    fn window(&self) -> usize {
        (self.limit() / 8).min(4 * 1024)
    }

    pub(super) fn receive(&mut self, who: usize, waiting: Waiting, outputs: &mut Outputs) {
        if self.client(who).blocked.is_none() {
            match self.opener_without_room(who, waiting) {
                Some(opener) => {
                    self.block(who, opener, vec![waiting]);
                    outputs.push((who, "stop reading".to_owned()));
                }
                None => self.dispatch(who, waiting, outputs),
            }
            return;
        }
        let blocked = self.client(who).blocked.as_mut().expect("it is");
        blocked.events.push(waiting);
        let events = blocked.events.clone();
        let dialect = self.client(who).dialect;
        let bytes: usize = events.iter().map(|event| event.size(dialect)).sum();
        if bytes > self.limit() && events.len() > 16 {
            self.close(who, CloseReason::TooSlow, outputs);
        }
    }

    fn opener_without_room(&mut self, who: usize, Waiting { event, token }: Waiting) -> Option<usize> {
        let has_text = event.text(self.client(who).dialect, token)?;
        let is_v1 = self.client(who).dialect == Dialect::V1;
        if matches!(event, Event::Open { key, .. } if is_v1 || key.is_some()) {
            return None;
        }
        let role = self.hub.connected().find(|client| client.name == who)?.role;
        let step = match event {
            // It takes the key over or is refused.
            Event::Meet { shown: Some(_), .. } if is_v1 => return None,
            Event::Meet { key, id, .. } if is_v1 => {
                let tokens = model::Tokens::default();
                let allowed = AllowedRoles::BOTH;
                model::Step::Meet {
                    who,
                    key,
                    id,
                    tokens,
                    allowed,
                }
            }
            _ => self.decode(who, event, token).ok()?,
        };
        let opener = match (step, role) {
            (model::Step::Data { .. } | model::Step::UnknownControl { .. }, model::Role::Joiner { opener, .. }) => {
                opener
            }
            (model::Step::Join { .. } | model::Step::Meet { .. }, model::Role::Idle { .. })
                if self.is_throttled(who) =>
            {
                return None;
            }
            (model::Step::Join { key, .. } | model::Step::Meet { key, .. }, model::Role::Idle { .. }) => {
                let of_key =
                    |client: &&model::Client| matches!(client.role, model::Role::Opener { key: one, .. } if one == key);
                self.hub.connected().find(of_key)?.name
            }
            _ => return None,
        };
        let limit = self.limit();
        let client = self.client(opener);
        let has_room = client.queue.line.is_empty() && client.has_room(who, has_text.len(), limit);
        (!has_room).then_some(opener)
    }

    fn block(&mut self, who: usize, opener: usize, events: Vec<Waiting>) {
        self.hub.meet_deadline(who);
        let reason = Reason::NoRoom { opener };
        self.client(who).blocked = Some(Blocked { reason, events });
        let check_at = self.next_check();
        self.scheduled += 1;
        let scheduled = self.scheduled;
        let queue = &mut self.client(opener).queue;
        queue.blocked.push(who);
        queue.line_up(who);
        queue.stall.get_or_insert(Stall {
            check_at,
            scheduled,
            checks: 0,
            has_progressed: false,
        });
    }

    fn next_check(&self) -> Option<Duration> {
        let timeout = self.config.close_timeout;
        (timeout != Duration::MAX).then(|| self.now + timeout / 5)
    }

    fn unblock(&mut self, who: usize) -> Option<Blocked> {
        let blocked = self.client(who).blocked.take()?;
        let Reason::NoRoom { opener } = blocked.reason else {
            return Some(blocked);
        };
        let queue = &mut self.client(opener).queue;
        queue.blocked.retain(|one| *one != who);
        queue.line.retain(|one| *one != who);
        if queue.blocked.is_empty() {
            queue.stall = None;
        }
        Some(blocked)
    }

    pub(super) fn resume(&mut self, who: usize, mut has_room: bool, outputs: &mut Outputs) {
        let Some(Blocked { events, .. }) = self.unblock(who) else {
            return;
        };
        let mut events = VecDeque::from(events);
        while let Some(next) = events.pop_front() {
            let has_room = mem::take(&mut has_room);
            let opener = self.opener_without_room(who, next).filter(|_| !has_room);
            if let Some(opener) = opener {
                events.push_front(next);
                return self.block(who, opener, events.into());
            }
            self.dispatch(who, next, outputs);
            if !self.is_open(who) {
                return;
            }
            if let Some(again) = &mut self.client(who).blocked {
                again.events.extend(events);
                return;
            }
        }
        outputs.push((who, "resume reading".to_owned()));
    }

    /// The end of a connection: it waits no longer, and nobody waits for it.
    pub(super) fn leave_queues(&mut self, who: usize) {
        let _ = self.unblock(who);
        self.release_joiners(who);
    }

    pub(super) fn release_joiners(&mut self, who: usize) {
        let blocked = self.client(who).queue.blocked.clone();
        self.released.extend(blocked);
    }

    pub(super) fn send_to_opener(&mut self, to: usize, joiner: Option<usize>, text: String, outputs: &mut Outputs) {
        let (limit, window) = (self.limit(), self.window());
        let cost = cost(text.len());
        let client = self.client(to);
        let is_free = client.unwritten == 0 || (client.unwritten < window && client.unwritten + cost <= limit);
        if client.queue.frames.is_empty() && is_free {
            client.unwritten += cost;
            outputs.push((to, text));
        } else {
            client.queue.push(joiner, text, cost);
        }
    }

    pub(super) fn written(&mut self, who: usize, bytes: usize, outputs: &mut Outputs) {
        let Some(client) = self.clients.get_mut(&who) else {
            return;
        };
        client.has_progressed |= client.unwritten.min(bytes) > 0;
        client.unwritten = client.unwritten.saturating_sub(bytes);
        if client.state != State::Open || bytes == 0 {
            return;
        }
        if !(client.queue.frames.is_empty() && client.queue.blocked.is_empty()) {
            client.missed_pings = 0;
        }
        if let Some(stall) = &mut client.queue.stall {
            stall.has_progressed = true;
        }
        let (limit, window) = (self.limit(), self.window());
        loop {
            let client = self.client(who);
            while let Some(next) = client.queue.frames.first() {
                let is_free =
                    client.unwritten == 0 || (client.unwritten < window && client.unwritten + next.cost <= limit);
                if !is_free {
                    break;
                }
                let next = client.queue.frames.remove(0);
                client.queue.clock = client.queue.clock.max(next.due);
                client.unwritten += next.cost;
                if let Some(joiner) = next.joiner {
                    client.queue.line_up(joiner);
                }
                outputs.push((who, next.text));
            }
            let Some(joiner) = client.queue.line.first().copied() else {
                return;
            };
            let first = self.client(joiner).blocked.as_ref().expect("it is in line").events[0];
            let text = first
                .event
                .text(self.client(joiner).dialect, first.token)
                .expect("a message");
            if !self.client(who).has_room(joiner, text.len(), limit) {
                return;
            }
            self.resume(joiner, true, outputs);
        }
    }

    pub(super) fn check_stalls(&mut self, is_late: bool, outputs: &mut Outputs) {
        let now = self.now;
        let open = self.clients.iter().filter(|(_, client)| client.state == State::Open);
        let due = open.filter_map(|(who, client)| {
            let stall = client.queue.stall.as_ref()?;
            Some((stall.check_at.filter(|at| *at <= now)?, stall.scheduled, *who))
        });
        let mut due: Vec<_> = due.collect();
        due.sort_unstable();
        for (_, _, who) in due {
            let check_at = self.next_check();
            self.scheduled += 1;
            let scheduled = self.scheduled;
            let Some(stall) = self.client(who).queue.stall.as_mut() else {
                continue;
            };
            stall.checks = if stall.has_progressed || is_late {
                0
            } else {
                stall.checks + 1
            };
            stall.has_progressed = false;
            if stall.checks == 5 {
                self.close(who, CloseReason::TooSlow, outputs);
            } else {
                (stall.check_at, stall.scheduled) = (check_at, scheduled);
                outputs.push((who, "probe progress".to_owned()));
            }
        }
    }
}
