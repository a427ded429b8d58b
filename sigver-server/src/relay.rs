//! Owns the thread that owns the [`Hub`]: it takes events from the one channel, lets the hub decide, and delivers what follows.
//! Never waits for a socket, never sends into its own channel, and never knows WebSocket beyond the frames that it asks for.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use sigver_core::{CloseReason, ConnId, Dialect, Encoded, Hub, InboundMessage, OutboundMessage, Refusal, Role, Time};

use crate::{
    figures::{Figures, Reached},
    flusher::Handover,
    frame,
    outbox::Sent,
    pairing::{Pairing, Speaker},
    peer::{Peer, Ticket},
    sched,
    server::{Shared, Stage},
    sources::{Guesses, Source},
};

/// What goes through the channel.
pub(crate) enum Event {
    /// A connection's thread tells what happened on it.
    Conn { peer: Ticket, what: What },
    /// Nothing has happened, but there may be something to look at: the shutdown flag.
    Wake,
}

/// What happened on a connection.
pub(crate) enum What {
    /// Its handshake is legal: take it in and answer, or refuse it.
    Arrived { response: Vec<u8>, dialect: Dialect },
    /// It said something, in so many bytes, that was read then.
    Said {
        message: InboundMessage,
        bytes: usize,
        read_at: Instant,
    },
    /// It pinged. The pong follows all that came before.
    Pinged(Box<[u8]>),
    /// It broke the protocol.
    Fault(CloseReason),
    /// It sent a close frame.
    Left { code: Option<u16> },
    /// Its thread ends. The last event of a connection.
    Gone,
}

/// Events that are handled before the clock and the shutdown flag are looked at again, and pings that are sent before events are.
const BATCH: usize = 64;

/// A connection is closed when it is due for another ping and has let so many pass without a whole frame.
const UNANSWERED: u8 = 2;

pub(crate) struct Relay {
    hub: Hub,
    /// Who is behind a [`ConnId`], by its slot.
    peers: Vec<Option<Seat>>,
    /// Connections that have been sent their last frame and are not gone yet, by serial.
    closing: BTreeMap<u64, Arc<Peer>>,
    /// When those are cut, in order; some are gone before.
    cuts: VecDeque<(Instant, u64)>,
    /// When connections are to be pinged, in order; some are gone before.
    pings: VecDeque<(Instant, ConnId)>,
    /// What is still to be delivered of one event.
    outputs: VecDeque<(ConnId, OutboundMessage)>,
    text: String,
    frame: Vec<u8>,
    flusher: Arc<Handover<Arc<Peer>>>,
    guesses: Guesses,
    figures: Figures,
    /// The closing of everyone, while it is under way.
    drain: Option<Drain>,
    shared: Arc<Shared>,
    epoch: Instant,
}

/// Connections that are closed one after the other, since the server ends.
struct Drain {
    left: VecDeque<ConnId>,
    /// From one to the next.
    pause: Duration,
    next: Instant,
    /// When those must be through their handshake that were accepted before the end began, and are not turned away.
    last_handshake: Option<Instant>,
}

/// The longest pause from one to the next: a few clients do not have to be kept from coming back together.
const DRAIN_PAUSE: Duration = Duration::from_millis(10);

/// A connection that the hub knows.
struct Seat {
    peer: Arc<Peer>,
    dialect: Dialect,
    /// How far it has got with its opener, while it is a joiner. Boxed, since most of those that are idle are none.
    pairing: Option<Box<Pairing>>,
}

/// The message that outputs follow from.
#[derive(Clone, Copy)]
struct Cause {
    from: ConnId,
    read_at: Instant,
}

impl Relay {
    pub(crate) fn new(shared: Arc<Shared>, flusher: Arc<Handover<Arc<Peer>>>) -> Self {
        Self {
            hub: Hub::new(shared.config.limits.clone()),
            peers: Vec::new(),
            closing: BTreeMap::new(),
            cuts: VecDeque::new(),
            pings: VecDeque::new(),
            outputs: VecDeque::new(),
            text: String::new(),
            frame: Vec::new(),
            flusher,
            guesses: Guesses::new(shared.config.guesses_per_ip),
            figures: Figures::default(),
            drain: None,
            shared,
            epoch: Instant::now(),
        }
    }

    /// Runs until no connection is left that could tell anything, and the server has let go of its own end of the channel.
    pub(crate) fn run(mut self, events: &Receiver<Event>) {
        sched::run_as_batch();
        while let Ok(first) = self.wait(events) {
            let mut next = first;
            for _ in 0..BATCH {
                let Some(event) = next else { break };
                self.handle(event);
                next = events.try_recv().ok();
            }
            if let Some(event) = next {
                self.handle(event);
            }
            self.handle_time();
            self.figures.hub = self.hub.stats();
            self.shared.publish(&self.figures);
        }
    }

    /// Waits for an event, but no longer than until something is due.
    fn wait(&self, events: &Receiver<Event>) -> Result<Option<Event>, RecvTimeoutError> {
        let hub = self
            .hub
            .poll_timeout()
            .and_then(|time| after(self.epoch, time.elapsed()));
        let cut = self.cuts.front().map(|(at, _)| *at);
        let ping = self.pings.front().map(|(at, _)| *at);
        let drain = self.drain.as_ref().map(|drain| drain.next);
        match hub.into_iter().chain(cut).chain(ping).chain(drain).min() {
            None => events.recv().map(Some).map_err(RecvTimeoutError::from),
            Some(due) => match events.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => Ok(None),
                received => received.map(Some),
            },
        }
    }

    fn handle(&mut self, event: Event) {
        let Event::Conn { peer, what } = event else { return };
        let id = peer.id();
        match what {
            What::Arrived { response, dialect } => self.take_in(&peer, dialect, &response),
            What::Said {
                message,
                bytes,
                read_at,
            } => {
                self.figures.received.add(bytes);
                if matches!(message, InboundMessage::Leave) {
                    self.end_pairing(id, Reached::EndedByJoiner);
                }
                let outputs = if self.guesses.are_limited() {
                    self.handle_guess(&peer, id, message)
                } else {
                    self.hub.handle(id, message)
                };
                self.deliver_for(Some(Cause { from: id, read_at }), outputs);
            }
            What::Pinged(payload) => {
                frame::pong(&payload, &mut self.frame);
                self.send_control(&peer);
            }
            What::Fault(reason) => {
                let outputs = self.hub.close(id, reason);
                self.deliver(outputs);
            }
            What::Left { code } => {
                self.end_pairing(id, Reached::EndedByJoiner);
                let outputs = self.hub.disconnect(id);
                if self.forget(&peer) {
                    frame::close_echo(code, &mut self.frame);
                    let sent = peer.finish(&self.frame);
                    self.dismiss(&peer, sent);
                }
                self.deliver(outputs);
            }
            What::Gone => {
                self.end_pairing(id, Reached::EndedByJoiner);
                let outputs = self.hub.disconnect(id);
                self.forget(&peer);
                self.deliver(outputs);
                self.closing.remove(&peer.serial);
                peer.cut();
            }
        }
    }

    fn take_in(&mut self, peer: &Arc<Peer>, dialect: Dialect, response: &[u8]) {
        match self.hub.connect(self.now(), dialect.profile()) {
            Ok(id) => {
                peer.set_id(id);
                if self.peers.len() <= id.slot() {
                    self.peers.resize_with(id.slot() + 1, || None);
                }
                self.peers[id.slot()] = Some(Seat {
                    peer: Arc::clone(peer),
                    dialect,
                    pairing: None,
                });
                self.schedule_ping(id);
                if peer.send(response) == Sent::Blocked {
                    self.flusher.push(Arc::clone(peer));
                }
            }
            Err(refusal) => {
                let sent = self.shared.turn_away(peer, &refusal);
                self.dismiss(peer, sent);
            }
        }
    }

    /// Lets the hub handle a message, unless it asks for a key and its source has asked for too many that it could not have.
    fn handle_guess(&mut self, peer: &Peer, id: ConnId, message: InboundMessage) -> Vec<(ConnId, OutboundMessage)> {
        if !matches!(message, InboundMessage::Open { .. } | InboundMessage::Join { .. }) {
            return self.hub.handle(id, message);
        }
        let (source, now) = (Source::from(peer.client()), Instant::now());
        if self.guesses.are_spent(source, now) {
            return self.hub.deny(id, message);
        }
        let outputs = self.hub.handle(id, message);
        if outputs.iter().any(|(_, output)| is_wrong_guess(output)) {
            self.guesses.count(source, now);
        }
        outputs
    }

    /// Sends everything that follows from one call into the hub, and all that follows from that.
    fn deliver(&mut self, outputs: Vec<(ConnId, OutboundMessage)>) {
        self.deliver_for(None, outputs);
    }

    /// The same, of what follows from a message.
    fn deliver_for(&mut self, cause: Option<Cause>, outputs: Vec<(ConnId, OutboundMessage)>) {
        self.outputs.extend(outputs);
        while let Some((to, message)) = self.outputs.pop_front() {
            self.note(cause, to, &message);
            // A connection that was closed as too slow while its messages waited here has no use for them.
            let Some(Seat { peer, dialect, .. }) = find(&self.peers, to) else {
                continue;
            };
            self.text.clear();
            match dialect.encode(&message, &mut self.text) {
                Encoded::Nothing => {}
                Encoded::Text => {
                    frame::text(&self.text, &mut self.frame);
                    let sent = peer.send(&self.frame);
                    peer.account.add(self.text.len());
                    self.figures.sent.add(self.text.len());
                    match sent {
                        Sent::Done => {}
                        Sent::Blocked => self.flusher.push(Arc::clone(peer)),
                        Sent::Overflow => self.outputs.extend(self.hub.close(to, CloseReason::TooSlow)),
                    }
                    if let (Some(cause), OutboundMessage::Data { .. }) = (cause, &message) {
                        self.figures.relay.add(cause.read_at.elapsed());
                    }
                }
                Encoded::Close(reason) => {
                    let peer = Arc::clone(peer);
                    self.forget(&peer);
                    frame::close(reason, &mut self.frame);
                    let sent = peer.close(reason, &self.frame);
                    self.dismiss(&peer, sent);
                }
            }
        }
    }

    /// Counts what a message to `to` says of roles, pairings and refusals.
    fn note(&mut self, cause: Option<Cause>, to: ConnId, message: &OutboundMessage) {
        match message {
            OutboundMessage::Opened { .. } => {
                self.figures.reach(Reached::Opened);
                if let Some(seat) = self.seat(to) {
                    seat.peer.account.set_role(Role::Opener);
                }
            }
            OutboundMessage::Joined { .. } => {
                self.figures.reach(Reached::Joined);
                if let Some(seat) = self.seat(to) {
                    seat.pairing = Some(Box::new(Pairing::new(Instant::now())));
                    seat.peer.account.set_role(Role::Joiner);
                }
            }
            OutboundMessage::Data { from, .. } => {
                let Some(cause) = cause else { return };
                let (joiner, speaker) = match from {
                    Some(_) => (cause.from, Speaker::Joiner),
                    None => (to, Speaker::Opener),
                };
                if let Some(pairing) = find_mut(&mut self.peers, joiner).and_then(|seat| seat.pairing.as_mut()) {
                    for stage in pairing.speak(speaker, cause.read_at) {
                        self.figures.reach(stage);
                    }
                }
            }
            OutboundMessage::Refused(refusal) => self.figures.refused.add(refusal),
            OutboundMessage::RoleEnded(end) => self.end_pairing(to, stage_of(end.reason())),
            OutboundMessage::Close(reason) => {
                self.figures.refused.add_close(*reason);
                self.end_pairing(to, stage_of(*reason));
            }
            OutboundMessage::PeerJoined { .. } | OutboundMessage::PeerLeft { .. } => {}
        }
    }

    /// A joiner is one no more, if it was one.
    fn end_pairing(&mut self, joiner: ConnId, stage: Reached) {
        let Some(seat) = self.seat(joiner) else { return };
        let Some(pairing) = seat.pairing.take() else { return };
        log::debug!("{} {}: {pairing}", seat.peer, stage.label());
        self.figures.reach(stage);
    }

    fn seat(&mut self, id: ConnId) -> Option<&mut Seat> {
        find_mut(&mut self.peers, id)
    }

    /// Sends the control frame in `self.frame`, unless the connection is closed.
    fn send_control(&mut self, peer: &Arc<Peer>) {
        match peer.send(&self.frame) {
            Sent::Done => {}
            Sent::Blocked => self.flusher.push(Arc::clone(peer)),
            Sent::Overflow => {
                let outputs = self.hub.close(peer.id(), CloseReason::TooSlow);
                self.deliver(outputs);
            }
        }
    }

    /// Takes a connection out of the table; false if it is not in it any more.
    fn forget(&mut self, peer: &Arc<Peer>) -> bool {
        match self.peers.get_mut(peer.id().slot()) {
            Some(place) if place.as_ref().is_some_and(|seat| Arc::ptr_eq(&seat.peer, peer)) => {
                *place = None;
                true
            }
            _ => false,
        }
    }

    /// Sees a connection off that was given its last frame: it has until the close timeout to take it.
    fn dismiss(&mut self, peer: &Arc<Peer>, sent: Sent) {
        if sent == Sent::Blocked {
            self.flusher.push(Arc::clone(peer));
        }
        self.closing.insert(peer.serial, Arc::clone(peer));
        if let Some(at) = after(Instant::now(), self.shared.config.close_timeout) {
            self.cuts.push_back((at, peer.serial));
        }
    }

    /// Does what is due.
    fn handle_time(&mut self) {
        match self.shared.stage() {
            Stage::Serving | Stage::Closed => {}
            Stage::Draining => self.drain(),
            Stage::Closing => self.close_all(),
        }
        let outputs = self.hub.handle_timeout(self.now());
        self.deliver(outputs);
        let now = Instant::now();
        while let Some(serial) = take_due(&mut self.cuts, now) {
            if let Some(peer) = self.closing.remove(&serial) {
                peer.cut();
            }
        }
        for _ in 0..BATCH {
            let Some(id) = take_due(&mut self.pings, now) else {
                break;
            };
            self.ping(id);
        }
    }

    /// Closes those whose turn has come, since the server ends. Openers come last: as long as they are there, their joiners are closed
    /// for the server's reason and not for want of an opener.
    fn drain(&mut self) {
        let now = Instant::now();
        let mut drain = self.drain.take().unwrap_or_else(|| {
            let left = self.everyone();
            let count = left.len().max(1).try_into().unwrap_or(u32::MAX);
            let pause = DRAIN_PAUSE.min(self.shared.config.drain / count);
            log::info!("ending: {} connections to close", left.len());
            Drain {
                left,
                pause,
                next: now,
                last_handshake: after(now, self.shared.config.handshake_timeout),
            }
        });
        while drain.next <= now {
            let Some(id) = drain.left.pop_front() else {
                let is_awaited =
                    drain.last_handshake.is_none_or(|last| last > now) && self.shared.registry.handshakes() > 0;
                if !(self.shared.has_successor && is_awaited) {
                    return self.close_all();
                }
                drain.left = self.everyone();
                drain.next = now + DRAIN_PAUSE;
                break;
            };
            drain.next += drain.pause;
            let outputs = self.hub.close(id, CloseReason::ShuttingDown);
            self.deliver(outputs);
        }
        self.drain = Some(drain);
    }

    /// Everyone, openers last.
    fn everyone(&self) -> VecDeque<ConnId> {
        let ids = self.peers.iter().flatten().map(|seat| seat.peer.id());
        let (openers, others): (Vec<_>, Vec<_>) = ids.partition(|id| self.hub.role(*id) == Some(Role::Opener));
        others.into_iter().chain(openers).collect()
    }

    /// Closes everyone who is left.
    fn close_all(&mut self) {
        self.drain = None;
        let outputs = self.hub.shutdown();
        self.deliver(outputs);
        self.shared.advance(Stage::Closed);
    }

    fn schedule_ping(&mut self, id: ConnId) {
        if let Some(at) = after(Instant::now(), self.shared.config.keep_alive) {
            self.pings.push_back((at, id));
        }
    }

    /// Pings a connection, or closes it when it has left too many pings without an answer.
    fn ping(&mut self, id: ConnId) {
        let Some(peer) = find(&self.peers, id).map(|seat| Arc::clone(&seat.peer)) else {
            return;
        };
        if peer.count_ping() >= UNANSWERED {
            let outputs = self.hub.close(id, CloseReason::Silent);
            return self.deliver(outputs);
        }
        self.schedule_ping(id);
        frame::ping(&mut self.frame);
        self.send_control(&peer);
    }

    fn now(&self) -> Time {
        Time::since_epoch(self.epoch.elapsed())
    }
}

/// The connection that the hub calls `id`, while it is open.
fn find(peers: &[Option<Seat>], id: ConnId) -> Option<&Seat> {
    peers.get(id.slot())?.as_ref().filter(|seat| seat.peer.id() == id)
}

fn find_mut(peers: &mut [Option<Seat>], id: ConnId) -> Option<&mut Seat> {
    peers.get_mut(id.slot())?.as_mut().filter(|seat| seat.peer.id() == id)
}

/// What a joiner's close says of its pairing.
fn stage_of(reason: CloseReason) -> Reached {
    if reason == CloseReason::OpenerLeft {
        Reached::EndedByOpener
    } else if reason == CloseReason::Kicked {
        Reached::EndedByKick
    } else {
        Reached::EndedByServer
    }
}

/// Whether it says that a key was not to be had.
fn is_wrong_guess(output: &OutboundMessage) -> bool {
    matches!(
        output,
        OutboundMessage::Refused(Refusal::UnknownKey { .. } | Refusal::KeyTaken { .. })
            | OutboundMessage::Close(CloseReason::KeyUnknown | CloseReason::KeyTaken)
    )
}

/// `None` where it is too far away for the clock to say: that is never due.
fn after(begin: Instant, time: Duration) -> Option<Instant> {
    begin.checked_add(time)
}

/// Takes the first of a queue in order of time, once its time has come.
fn take_due<T>(queue: &mut VecDeque<(Instant, T)>, now: Instant) -> Option<T> {
    match queue.front() {
        Some((at, _)) if *at <= now => queue.pop_front().map(|(_, due)| due),
        _ => None,
    }
}
