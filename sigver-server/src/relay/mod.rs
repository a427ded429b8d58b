//! The relay thread: takes events from the one channel, passes them to the [`Endpoint`] and carries out its outputs.
//!
//! It never waits for a socket and never sends into its own channel. The outputs of one event are carried out in slices, with other events
//! between them.

mod control;
mod output_queue;

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError},
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
    events::{ConnectionId, Reporter, ServerEvent},
    lifecycle::{Lifecycle, Stage},
    relay::output_queue::{AT_ONCE, OutputQueue},
    sys::{
        clock::Clock,
        heap::{self, HeapTrim},
        random, sched,
    },
    write::{flusher::FlushQueue, frame, outbox::SendOutcome},
};

/// Events that are handled before the clock and the server's stage are looked at again.
const BATCH: usize = 64;

/// The same if a timeout is due: some ten milliseconds. If the relay is late by more than a second, the endpoint restarts deadlines anyway.
const LONG_BATCH: usize = 1024;

/// Deferred outputs that are carried out after a batch of events. Each may be a system call: together they take about half a millisecond.
const SLICE: usize = 64;

/// The shortest time between two publications of the counters. Copying them after every batch is a measurable part of an exchange.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(10);

/// The time between two attempts to report lost events, if nothing else happens.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// What a connection takes of the process, without its backlog.
const CONNECTION_BYTES: u64 = 16 * 1024;

/// What the relay shares with other threads.
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    /// The most connections at the same time.
    pub(crate) connections: u32,
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
    /// Connections that were sent their last frame and are not disconnected yet, or whose last frame is deferred and their slot reused.
    closing: BTreeMap<ConnId, Arc<Peer>>,
    outputs: OutputQueue<Output, Option<Origin>>,
    /// The time of the current batch of events.
    now: Time,
    /// A buffer for the frame that is being sent.
    frame: Vec<u8>,
    latency: Histogram,
    /// When the counters may be published again.
    publish_at: Time,
    /// Whether the published counters are those of now.
    is_published: bool,
    /// The connections that the endpoint had closed for the limit of all backlogs when that was last logged.
    evicted: u64,
    heap_trim: HeapTrim,
    reporter: Reporter,
    context: Context,
}

/// The message that a client sent to another, and that outputs follow from.
#[derive(Clone, Copy)]
struct Origin {
    sender: ConnId,
    read_at: Instant,
}

impl Relay {
    pub(crate) fn new(context: Context, events: Option<SyncSender<ServerEvent>>) -> Self {
        let reporter = Reporter::new(events);
        let mut config = context.config.endpoint.clone();
        config.report_activity = reporter.is_active();
        // Reserved keys outlive their connections, and the accept loop limits those.
        let reserved_keys = &mut config.limits.reserved_keys;
        *reserved_keys = reserved_keys.or(NonZeroU32::new(context.connections));
        let mut endpoint = Endpoint::new(config, random::u128);
        if let Some(ice) = context.config.ice.clone() {
            endpoint = endpoint.with_ice_servers(move || ice.ice_servers());
        }
        Self {
            endpoint,
            peers: Vec::new(),
            closing: BTreeMap::new(),
            outputs: OutputQueue::new(),
            now: Time::ZERO,
            frame: Vec::new(),
            latency: Histogram::default(),
            publish_at: Time::ZERO,
            is_published: true,
            evicted: 0,
            heap_trim: HeapTrim::default(),
            reporter,
            context,
        }
    }

    /// Runs until [`Event::End`].
    pub(crate) fn run(mut self, events: &Receiver<Event>) {
        sched::run_as_batch();
        while let Ok(first) = self.wait(events) {
            let now = self.context.clock.now();
            let mut next = first;
            self.now = now;
            let mut left = self.batch(now);
            while let Some(event) = next {
                if matches!(event, Event::End) {
                    return self.end();
                }
                self.handle(event, now);
                left -= 1;
                next = (left > 0).then(|| events.try_recv().ok()).flatten();
            }
            self.finish_batch(now);
        }
        self.end();
    }

    /// Does what is due after a batch of events.
    fn finish_batch(&mut self, now: Time) {
        self.follow_stage(now);
        let outputs = self.endpoint.handle_timeout(now);
        self.carry_out(None, outputs);
        self.finish_drain(now);
        self.carry_out_deferred(SLICE);
        self.report_activity();
        self.reporter.report_loss();
        let is_closed = self.endpoint.phase() == Phase::Closed && self.outputs.is_empty();
        if is_closed && self.context.lifecycle.stage() < Stage::Closed {
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

    fn end(&mut self) {
        self.carry_out_deferred(usize::MAX);
        self.report_activity();
        self.reporter.report_loss();
        self.publish();
    }

    /// Returns how many events are handled before the clock is read again. More if a timeout is due: a deadline must not close a client whose
    /// request is there.
    fn batch(&self, now: Time) -> usize {
        let is_due = self.endpoint.poll_timeout().is_some_and(|due| due <= now);
        if is_due { LONG_BATCH } else { BATCH }
    }

    fn publish(&mut self) {
        let endpoint = self.endpoint.counters();
        let evicted = endpoint.evicted - self.evicted;
        if evicted > 0 {
            log::warn!("limit of all backlogs reached: closed the clients with the largest ({evicted})");
            self.evicted = endpoint.evicted;
        }
        let connections = self.endpoint.sockets() as u64 * CONNECTION_BYTES;
        if self.heap_trim.record(self.now, connections + endpoint.backlog_bytes) {
            heap::trim_in_background();
        }
        self.context.counters.publish(&RelayCounters {
            endpoint,
            latency: self.latency.clone(),
            events_lost: self.reporter.lost(),
        });
    }

    /// Waits for an event, at most until the endpoint's next time-out. Does not wait while outputs are deferred.
    fn wait(&self, events: &Receiver<Event>) -> Result<Option<Event>, RecvTimeoutError> {
        if !self.outputs.is_empty() {
            return match events.try_recv() {
                Ok(event) => Ok(Some(event)),
                Err(TryRecvError::Empty) => Ok(None),
                Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
            };
        }
        let publish = (!self.is_published).then_some(self.publish_at);
        let report = self
            .reporter
            .has_loss()
            .then(|| self.now.saturating_add(REPORT_INTERVAL));
        let own = publish.into_iter().chain(self.heap_trim.due()).chain(report);
        let Some(due) = self.endpoint.poll_timeout().into_iter().chain(own).min() else {
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
            Event::Written(peer) => {
                let outputs = self.endpoint.written(now, peer.id(), peer.take_written());
                return self.carry_out(None, outputs);
            }
            Event::Control(request) => return self.control(*request, now),
            Event::Wake | Event::End => return,
        };
        let id = peer.id();
        self.carry_out_deferred_for(id);
        let mut origin = None;
        let mut asks_for_role = false;
        let outputs = match event {
            ConnEvent::Upgraded {
                response,
                dialect,
                expires_at,
            } => {
                self.accept(now, &peer, dialect, &response);
                if let Some(at) = expires_at {
                    self.endpoint.expire_at(now, peer.id(), at);
                }
                return;
            }
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
            ConnEvent::Progress => return self.endpoint.record_progress(id),
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
                if let Some(until) = self.endpoint.paused_until(now, id) {
                    peer.pause_reading(until);
                }
                peer.set_id(id);
                if self.peers.len() <= id.slot() {
                    self.peers.resize_with(id.slot() + 1, || None);
                }
                // The last frame of the slot's former connection may be deferred.
                if let Some(former) = self.peers[id.slot()].replace(Arc::clone(peer)) {
                    self.closing.insert(former.id(), former);
                }
                self.flush_later(peer, peer.send(response));
                // What `written` has caused since the last report happened before.
                self.report_activity();
                self.reporter.report_with(|| ServerEvent::Connected {
                    connection: ConnectionId::new(peer.serial),
                    identity: peer.admitted().and_then(|admitted| admitted.identity.clone()),
                    client: peer.client(),
                });
            }
            Err(error) => {
                let id = self.endpoint.reject(now);
                peer.set_id(id);
                self.closing.insert(id, Arc::clone(peer));
                self.flush_later(peer, peer.reject(&self.context.counters, &error));
            }
        }
    }

    /// Carries out the first outputs of one call of the endpoint and defers the rest.
    fn carry_out(&mut self, origin: Option<Origin>, outputs: Vec<(ConnId, Output)>) {
        // While every connection of the call still has its place here.
        self.report_activity();
        self.outputs.add(outputs, origin);
        while let Some((id, output, origin)) = self.outputs.next_at_once() {
            self.carry_out_one(origin, id, output);
        }
    }

    /// Carries out deferred outputs, the oldest first, at most this many.
    fn carry_out_deferred(&mut self, limit: usize) {
        for _ in 0..limit {
            let Some((id, output, origin)) = self.outputs.pop() else {
                return;
            };
            self.carry_out_one(origin, id, output);
            self.outputs.defer();
        }
    }

    /// Carries out what is deferred for a connection before its next event, unless that is much. What is left then is carried out later, or
    /// dropped if the connection ends.
    fn carry_out_deferred_for(&mut self, id: ConnId) {
        for _ in 0..AT_ONCE {
            let Some((id, output, origin)) = self.outputs.pop_for(id) else {
                break;
            };
            self.carry_out_one(origin, id, output);
        }
        self.outputs.defer();
    }

    fn carry_out_one(&mut self, origin: Option<Origin>, id: ConnId, output: Output) {
        match output {
            Output::Send(Frame::Close(reason)) => {
                let Some(peer) = self.begin_close(id) else { return };
                frame::encode(&Frame::Close(reason), &mut self.frame);
                self.flush_later(&peer, peer.close(reason, &self.frame));
            }
            Output::Send(reply @ Frame::CloseReply(_)) => {
                let Some(peer) = self.begin_close(id) else { return };
                frame::encode(&reply, &mut self.frame);
                self.flush_later(&peer, peer.finish(&self.frame));
            }
            Output::Send(frame) => self.send(origin, id, &frame),
            Output::PauseReading(until) => {
                if let Some(peer) = find(&self.peers, id) {
                    peer.pause_reading(until);
                }
            }
            Output::StopReading => {
                if let Some(peer) = find(&self.peers, id) {
                    peer.stop_reading();
                }
            }
            Output::ResumeReading => {
                if let Some(peer) = find(&self.peers, id) {
                    peer.resume_reading();
                }
            }
            Output::ProbeProgress => self.probe_progress(id),
            Output::Abort => {
                if let Some(peer) = self.unregister(id) {
                    peer.reset();
                }
            }
            Output::PairingEnded(pairing) => {
                if let Some(peer) = find(&self.peers, id).or_else(|| self.closing.get(&id)) {
                    // If it has waited, it became a joiner by a message of another client.
                    peer.stats.set_role(Role::Joiner);
                    log::debug!("{peer} {pairing}");
                }
            }
            // `Output` may get variants that a driver can ignore.
            _ => {}
        }
    }

    fn send(&mut self, origin: Option<Origin>, id: ConnId, frame: &Frame) {
        let Some(peer) = find(&self.peers, id).or_else(|| self.closing.get(&id)) else {
            return;
        };
        frame::encode(frame, &mut self.frame);
        let sent = peer.send(&self.frame);
        if sent == SendOutcome::Blocked {
            self.context.flush_queue.push(Arc::clone(peer));
        }
        if let Frame::Text(text) = frame {
            peer.stats.record_sent(text.len());
            if let Some(Origin { read_at, .. }) = origin.filter(|origin| origin.sender != id) {
                self.latency.record(read_at.elapsed());
            }
        }
        if sent == SendOutcome::Accepted {
            let outputs = self.endpoint.written(self.now, id, frame.cost());
            self.outputs.append(outputs);
        }
    }

    fn probe_progress(&mut self, id: ConnId) {
        if find(&self.peers, id).is_some_and(|peer| peer.has_read_since_probe()) {
            self.endpoint.record_progress(id);
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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        io::{self, Read},
        net::{Ipv4Addr, TcpListener, TcpStream},
        sync::mpsc::channel,
        thread,
    };

    use sigver_core::Decoder;

    use super::*;
    use crate::{
        conn::peer::Credit,
        sys::{pipe::Pipe, stream},
    };

    const JOINERS: usize = 20;

    /// A relay without connection threads: the test reports what happens on each connection.
    struct Setup {
        relay: Relay,
        listener: TcpListener,
    }

    /// Both ends of a connection.
    struct Conn {
        peer: Arc<Peer>,
        client: TcpStream,
        dialect: Dialect,
    }

    impl Setup {
        fn new() -> io::Result<Self> {
            let context = Context {
                config: Arc::default(),
                connections: 10,
                lifecycle: Arc::new(Lifecycle::new(Pipe::new()?, false)),
                counters: Arc::default(),
                registry: Arc::default(),
                flush_queue: Arc::new(FlushQueue::new(Pipe::new()?)),
                clock: Clock::new(),
            };
            Ok(Self {
                relay: Relay::new(context, None),
                listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?,
            })
        }

        fn connect(&mut self, dialect: Dialect) -> io::Result<Conn> {
            let client = TcpStream::connect(self.listener.local_addr()?)?;
            client.set_read_timeout(Some(Duration::from_secs(60)))?;
            let (stream, addr) = stream::accept(&self.listener)?;
            let conn = Conn {
                peer: Arc::new(Peer::new(0, addr, stream, Duration::from_secs(5))),
                client,
                dialect,
            };
            let response = Vec::new();
            self.handle(
                &conn,
                ConnEvent::Upgraded {
                    response,
                    dialect,
                    expires_at: None,
                },
            );
            Ok(conn)
        }

        fn handle(&mut self, conn: &Conn, event: ConnEvent) {
            self.relay.handle(conn.event(event), Time::ZERO);
        }

        fn send(&mut self, conn: &Conn, text: &str) {
            self.handle(conn, conn.message(text));
        }

        /// Connects an opener of this key and joiners.
        fn open(&mut self, dialect: Dialect, key: &str, joiners: usize) -> io::Result<(Conn, Vec<Conn>)> {
            let opener = self.connect(dialect)?;
            self.send(&opener, &format!(r#"{{"type":"open","key":"{key}"}}"#));
            let joiners = (0..joiners).map(|_| {
                let joiner = self.connect(dialect)?;
                self.send(&joiner, &format!(r#"{{"type":"join","key":"{key}"}}"#));
                Ok(joiner)
            });
            let joiners = joiners.collect::<io::Result<_>>()?;
            Ok((opener, joiners))
        }
    }

    impl Conn {
        fn event(&self, event: ConnEvent) -> Event {
            let peer = Credit::acquire(&self.peer, event.bytes());
            Event::Conn { peer, event }
        }

        fn message(&self, text: &str) -> ConnEvent {
            let message = Decoder::new(self.dialect, &sigver_core::Limits::default()).decode(text);
            ConnEvent::Message {
                message: message.expect("a message"),
                text_bytes: text.len(),
                wire_bytes: text.len(),
                read_at: Instant::now(),
            }
        }

        /// Receives frames until one that ends with this text. Blocks until it was sent.
        #[track_caller]
        fn expect(&mut self, text: &str) {
            while !self.receive().ends_with(text) {}
        }

        #[track_caller]
        fn receive(&mut self) -> String {
            let mut header = [0; 2];
            self.client.read_exact(&mut header).expect("a frame");
            let mut payload = vec![0; header[1].into()];
            self.client.read_exact(&mut payload).expect("a frame");
            String::from_utf8_lossy(&payload).into_owned()
        }
    }

    /// The end of the message to joiners of `sigver.v1`, and of the close frame to plain joiners.
    const OPENER_LEFT: &str = r#""code":"opener-left"}"#;
    const OPENER_LEFT_FRAME: &str = "opener left";

    #[test]
    fn message_of_a_bystander_does_not_wait_for_a_fan_out() -> io::Result<()> {
        let mut setup = Setup::new()?;
        let (opener, mut joiners) = setup.open(Dialect::V1, "k", JOINERS)?;
        let (mut other_opener, other_joiners) = setup.open(Dialect::Plain, "bystanders", 1)?;
        setup.send(&opener, r#"{"type":"close"}"#);
        setup.send(&other_joiners[0], r#"{"n":1}"#);
        assert!(!setup.relay.outputs.is_empty());
        other_opener.expect(r#"{"n":1,"index":0}"#);
        // A joiner that asks for more has received what was deferred before.
        let last = &mut joiners[JOINERS - 1];
        setup.send(last, r#"{"type":"leave"}"#);
        last.expect(OPENER_LEFT);
        assert!(last.receive().contains("no-role"));
        assert!(!setup.relay.outputs.is_empty());
        setup.relay.carry_out_deferred(SLICE);
        for joiner in &mut joiners[..JOINERS - 1] {
            joiner.expect(OPENER_LEFT);
        }
        Ok(())
    }

    #[test]
    fn connection_in_a_reused_slot_does_not_replace_deferred_frames() -> io::Result<()> {
        let mut setup = Setup::new()?;
        let (opener, mut joiners) = setup.open(Dialect::Plain, "k", JOINERS)?;
        setup.handle(&opener, ConnEvent::Disconnected);
        assert!(!setup.relay.outputs.is_empty());
        // They take the slots of the opener and of all joiners.
        let (mut opener, new_joiners) = setup.open(Dialect::Plain, "k", JOINERS)?;
        setup.relay.carry_out_deferred(SLICE);
        assert!(setup.relay.outputs.is_empty());
        for joiner in &mut joiners {
            joiner.expect(OPENER_LEFT_FRAME);
        }
        setup.send(&new_joiners[JOINERS - 1], r#"{"n":1}"#);
        opener.expect(r#"{"n":1,"index":19}"#);
        // Nothing is left of those that have ended.
        for joiner in &joiners {
            setup.handle(joiner, ConnEvent::Disconnected);
        }
        assert!(setup.relay.closing.is_empty());
        Ok(())
    }

    /// A client that has closed its side still reads.
    #[test]
    fn deferred_frames_are_sent_before_a_disconnect_is_handled() -> io::Result<()> {
        let mut setup = Setup::new()?;
        let (opener, mut joiners) = setup.open(Dialect::Plain, "k", JOINERS)?;
        setup.handle(&opener, ConnEvent::Disconnected);
        for joiner in &joiners {
            setup.handle(joiner, ConnEvent::Disconnected);
        }
        for joiner in &mut joiners {
            joiner.expect(OPENER_LEFT_FRAME);
        }
        assert!(setup.relay.outputs.is_empty());
        Ok(())
    }

    /// Joiners that wait for a key are reported to its opener in one event. What the opener sends then does not carry all of that out.
    #[test]
    fn opener_of_many_waiting_joiners_does_not_delay_others() -> io::Result<()> {
        const WAITERS: usize = 100;
        let mut setup = Setup::new()?;
        for _ in 0..WAITERS {
            let waiter = setup.connect(Dialect::V1)?;
            setup.send(&waiter, r#"{"type":"join","key":"k","wait":60}"#);
        }
        let mut opener = setup.connect(Dialect::V1)?;
        setup.send(&opener, r#"{"type":"open","key":"k"}"#);
        let before = setup.relay.outputs.len();
        assert!(before > WAITERS);
        setup.handle(&opener, ConnEvent::Ping(b"1"[..].into()));
        assert!(setup.relay.outputs.len() >= before - 2 * AT_ONCE);
        setup.handle(&opener, ConnEvent::Ping(b"2"[..].into()));
        while !setup.relay.outputs.is_empty() {
            setup.relay.carry_out_deferred(SLICE);
        }
        let opened = opener.receive();
        assert!(opened.starts_with(r#"{"type":"opened","key":"k""#), "{opened}");
        for index in 0..WAITERS {
            assert_eq!(opener.receive(), format!(r#"{{"type":"join","index":{index}}}"#));
        }
        assert_eq!((opener.receive(), opener.receive()), ("1".into(), "2".into()));
        Ok(())
    }

    #[test]
    fn deferred_outputs_do_not_wait_for_an_event() -> io::Result<()> {
        let mut setup = Setup::new()?;
        let (opener, mut joiners) = setup.open(Dialect::V1, "k", SLICE + JOINERS)?;
        let (events, inbox) = channel();
        let relay = thread::spawn(move || setup.relay.run(&inbox));
        let _ = events.send(opener.event(opener.message(r#"{"type":"close"}"#)));
        for joiner in &mut joiners {
            joiner.expect(OPENER_LEFT);
        }
        drop(events);
        relay.join().expect("it does not panic");
        Ok(())
    }

    #[test]
    fn deferred_outputs_are_carried_out_before_the_end() -> io::Result<()> {
        let mut setup = Setup::new()?;
        let (opener, mut joiners) = setup.open(Dialect::V1, "k", SLICE + JOINERS)?;
        let (events, inbox) = channel();
        let _ = events.send(opener.event(opener.message(r#"{"type":"close"}"#)));
        let _ = events.send(Event::End);
        setup.relay.run(&inbox);
        for joiner in &mut joiners {
            joiner.expect(OPENER_LEFT);
        }
        Ok(())
    }

    #[test]
    fn server_is_closed_when_every_close_frame_is_sent() -> io::Result<()> {
        let mut setup = Setup::new()?;
        let (_opener, mut joiners) = setup.open(Dialect::Plain, "k", SLICE + JOINERS)?;
        let lifecycle = Arc::clone(&setup.relay.context.lifecycle);
        lifecycle.advance(Stage::Closing);
        setup.relay.finish_batch(Time::ZERO);
        assert!(!setup.relay.outputs.is_empty() && lifecycle.stage() == Stage::Closing);
        while !setup.relay.outputs.is_empty() {
            setup.relay.finish_batch(Time::ZERO);
        }
        assert!(lifecycle.stage() == Stage::Closed);
        for joiner in &mut joiners {
            joiner.expect("shutting down");
        }
        Ok(())
    }
}
