//! The relay thread: takes events from the one channel, passes them to the [`Endpoint`] and carries out its outputs.
//!
//! It never waits for a socket and never sends into its own channel.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use sigver_core::{ConnId, Dialect, Endpoint, Frame, InboundMessage, Input, Output, Phase, Role, Time};

use crate::{
    config::Config,
    conn::{
        event::{ConnEvent, Event},
        peer::Peer,
        registry::Registry,
    },
    counters::{Counters, Histogram, RelayCounters},
    lifecycle::{Lifecycle, Stage},
    sys::{clock::Clock, random, sched},
    tuning::EVENT_CHANNEL,
    write::{flusher::FlushQueue, frame, outbox::SendOutcome},
};

/// Events that are handled before the clock and the server's stage are looked at again.
const BATCH: usize = 64;

/// The shortest time between two publications of the counters. Copying them after every batch is a measurable part of an exchange.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(10);

/// What the relay shares with other threads.
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) flush_queue: Arc<FlushQueue<Arc<Peer>>>,
    pub(crate) clock: Clock,
}

pub(crate) struct Relay {
    endpoint: Endpoint,
    /// Open connections, by the slot of their id.
    peers: Vec<Option<Arc<Peer>>>,
    /// Connections that were sent their last frame and are not disconnected yet.
    closing: BTreeMap<ConnId, Arc<Peer>>,
    /// A buffer for the frame that is being sent.
    frame: Vec<u8>,
    latency: Histogram,
    /// When the counters may be published again.
    publish_at: Time,
    /// Whether the published counters are those of now.
    is_published: bool,
    context: Context,
}

/// The message that a client sent to another, and that outputs follow from.
#[derive(Clone, Copy)]
struct Origin {
    sender: ConnId,
    read_at: Instant,
}

impl Relay {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            endpoint: Endpoint::new(context.config.endpoint.clone(), random::u128),
            peers: Vec::new(),
            closing: BTreeMap::new(),
            frame: Vec::new(),
            latency: Histogram::default(),
            publish_at: Time::ZERO,
            is_published: true,
            context,
        }
    }

    /// Runs until [`Event::End`].
    pub(crate) fn run(mut self, events: &Receiver<Event>) {
        sched::run_as_batch();
        while let Ok(first) = self.wait(events) {
            let now = self.context.clock.now();
            let mut next = first;
            let mut left = self.batch(now);
            while let Some(event) = next {
                if matches!(event, Event::End) {
                    return self.publish();
                }
                self.handle(event, now);
                left -= 1;
                next = (left > 0).then(|| events.try_recv().ok()).flatten();
            }
            self.follow_stage(now);
            let outputs = self.endpoint.handle_timeout(now);
            self.carry_out(None, outputs);
            self.finish_drain(now);
            if self.endpoint.phase() == Phase::Closed && self.context.lifecycle.stage() < Stage::Closed {
                self.context.lifecycle.advance(Stage::Closed);
            }
            if now >= self.publish_at {
                self.publish();
                self.publish_at = now.saturating_add(PUBLISH_INTERVAL);
                self.is_published = true;
            } else {
                self.is_published = false;
            }
        }
        self.publish();
    }

    /// Returns how many events are handled before the clock is read again. If a timeout is due, all that are in the channel: a deadline must
    /// not close a client whose request is there.
    fn batch(&self, now: Time) -> usize {
        let is_due = self.endpoint.poll_timeout().is_some_and(|due| due <= now);
        if is_due { EVENT_CHANNEL } else { BATCH }
    }

    fn publish(&self) {
        self.context.counters.publish(&RelayCounters {
            endpoint: self.endpoint.counters(),
            latency: self.latency.clone(),
        });
    }

    /// Waits for an event, at most until the endpoint's next time-out.
    fn wait(&self, events: &Receiver<Event>) -> Result<Option<Event>, RecvTimeoutError> {
        let publish = (!self.is_published).then_some(self.publish_at);
        let Some(due) = self.endpoint.poll_timeout().into_iter().chain(publish).min() else {
            return events.recv().map(Some).map_err(RecvTimeoutError::from);
        };
        match events.recv_timeout(due.saturating_duration_since(self.context.clock.now())) {
            Err(RecvTimeoutError::Timeout) => Ok(None),
            received => received.map(Some),
        }
    }

    fn handle(&mut self, event: Event, now: Time) {
        let (peer, event) = match event {
            Event::Conn { peer, event } => (peer, event),
            Event::Written { id, cost } => return self.endpoint.written(id, cost),
            Event::Progress { id } => return self.endpoint.record_progress(id),
            Event::Wake | Event::End => return,
        };
        let id = peer.id();
        let mut origin = None;
        let mut asks_for_role = false;
        let outputs = match event {
            ConnEvent::Upgraded { response, dialect } => return self.accept(now, &peer, dialect, &response),
            ConnEvent::Message {
                message,
                text_bytes,
                wire_bytes,
                read_at,
            } => {
                asks_for_role = matches!(
                    message,
                    InboundMessage::Open { .. }
                        | InboundMessage::OpenGenerated { .. }
                        | InboundMessage::Join { .. }
                        | InboundMessage::Meet { .. }
                );
                if let InboundMessage::Data { .. } | InboundMessage::UnknownControl { .. } = message {
                    origin = Some(Origin { sender: id, read_at });
                }
                let input = Input::Message {
                    message,
                    text_bytes,
                    wire_bytes,
                };
                self.endpoint.handle(now, id, input)
            }
            ConnEvent::Ping(payload) => self.endpoint.handle(now, id, Input::Ping(&payload)),
            ConnEvent::Pong => self.endpoint.handle(now, id, Input::Pong),
            ConnEvent::Violation(reason) => self.endpoint.handle(now, id, Input::Violation(reason)),
            ConnEvent::CloseFrame { code } => self.endpoint.handle(now, id, Input::Close(code)),
            ConnEvent::Disconnected => {
                let outputs = self.endpoint.handle(now, id, Input::Disconnected);
                self.carry_out(None, outputs);
                self.unregister(id);
                return peer.abort();
            }
        };
        if asks_for_role {
            if let Some(role) = self.endpoint.role(id) {
                peer.stats.set_role(role);
            }
        }
        self.carry_out(origin, outputs);
    }

    fn accept(&mut self, now: Time, peer: &Arc<Peer>, dialect: Dialect, response: &[u8]) {
        match self.endpoint.connect(now, dialect, peer.client()) {
            Ok(id) => {
                peer.set_id(id);
                if self.peers.len() <= id.slot() {
                    self.peers.resize_with(id.slot() + 1, || None);
                }
                self.peers[id.slot()] = Some(Arc::clone(peer));
                self.flush_later(peer, peer.send(response));
            }
            Err(error) => {
                let id = self.endpoint.reject(now);
                peer.set_id(id);
                self.closing.insert(id, Arc::clone(peer));
                self.flush_later(peer, peer.reject(&self.context.counters, &error));
            }
        }
    }

    /// Carries out the outputs of one call of the endpoint.
    fn carry_out(&mut self, origin: Option<Origin>, outputs: Vec<(ConnId, Output)>) {
        for (id, output) in outputs {
            match output {
                Output::Send(Frame::Close(reason)) => {
                    let Some(peer) = self.begin_close(id) else { continue };
                    frame::encode(&Frame::Close(reason), &mut self.frame);
                    self.flush_later(&peer, peer.close(reason, &self.frame));
                }
                Output::Send(reply @ Frame::CloseReply(_)) => {
                    let Some(peer) = self.begin_close(id) else { continue };
                    frame::encode(&reply, &mut self.frame);
                    self.flush_later(&peer, peer.finish(&self.frame));
                }
                Output::Send(frame) => self.send(origin, id, &frame),
                Output::PauseReading(until) => {
                    if let Some(peer) = find(&self.peers, id) {
                        peer.pause_reading(until);
                    }
                }
                Output::Abort => {
                    if let Some(peer) = self.unregister(id) {
                        peer.reset();
                    }
                }
                Output::PairingEnded(pairing) => {
                    if let Some(peer) = find(&self.peers, id) {
                        // If it has waited, it became a joiner by a message of another client.
                        peer.stats.set_role(Role::Joiner);
                        log::debug!("{peer} {pairing}");
                    }
                }
                // `Output` may get variants that a driver can ignore.
                _ => {}
            }
        }
    }

    fn send(&mut self, origin: Option<Origin>, id: ConnId, frame: &Frame) {
        let Some(peer) = find(&self.peers, id) else { return };
        frame::encode(frame, &mut self.frame);
        match peer.send(&self.frame) {
            SendOutcome::Accepted => self.endpoint.written(id, frame.cost()),
            SendOutcome::Queued => {}
            SendOutcome::Blocked => self.context.flush_queue.push(Arc::clone(peer)),
        }
        if let Frame::Text(text) = frame {
            peer.stats.record_sent(text.len());
            if let Some(Origin { read_at, .. }) = origin.filter(|origin| origin.sender != id) {
                self.latency.record(read_at.elapsed());
            }
        }
    }

    fn flush_later(&self, peer: &Arc<Peer>, sent: SendOutcome) {
        if sent == SendOutcome::Blocked {
            self.context.flush_queue.push(Arc::clone(peer));
        }
    }

    /// Moves a connection from the open to the closing ones.
    fn begin_close(&mut self, id: ConnId) -> Option<Arc<Peer>> {
        let peer = self.unregister(id)?;
        self.closing.insert(id, Arc::clone(&peer));
        Some(peer)
    }

    fn unregister(&mut self, id: ConnId) -> Option<Arc<Peer>> {
        if find(&self.peers, id).is_some() {
            return self.peers[id.slot()].take();
        }
        self.closing.remove(&id)
    }

    /// Makes the endpoint follow the server's stage.
    fn follow_stage(&mut self, now: Time) {
        let Context { config, lifecycle, .. } = &self.context;
        match (lifecycle.stage(), self.endpoint.phase()) {
            (Stage::Draining, Phase::Serving) => {
                log::info!(
                    "ending: {} connections to close",
                    self.endpoint.counters().hub.connections
                );
                // Connections whose handshake is under way are not rejected if another server follows: nobody sees the restart.
                let accept_until = if lifecycle.has_successor() {
                    now.saturating_add(config.handshake_timeout)
                } else {
                    now
                };
                self.endpoint.drain(now, accept_until);
            }
            (Stage::Closing, Phase::Serving | Phase::Draining) => self.close_all(now),
            (Stage::Serving | Stage::Announced | Stage::Draining | Stage::Closing | Stage::Closed, _) => {}
        }
    }

    /// Ends a drain before its time if no connection is left, and no handshake that could become one.
    fn finish_drain(&mut self, now: Time) {
        if self.endpoint.phase() == Phase::Draining
            && self.endpoint.counters().hub.connections == 0
            && self.context.registry.handshakes() == 0
        {
            self.close_all(now);
        }
    }

    fn close_all(&mut self, now: Time) {
        let outputs = self.endpoint.close_all(now);
        self.carry_out(None, outputs);
    }
}

/// Returns the open connection with this id.
fn find(peers: &[Option<Arc<Peer>>], id: ConnId) -> Option<&Arc<Peer>> {
    peers.get(id.slot())?.as_ref().filter(|peer| peer.id() == id)
}
