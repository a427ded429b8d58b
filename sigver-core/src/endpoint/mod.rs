//! A whole signaling server without sockets, threads and a clock: the [`Hub`] with the policy around it.
//!
//! ```text
//!   sockets ──Input──> Endpoint::handle ──(ConnId, Output)──> sockets
//!   clock   ──now────> Endpoint::handle_timeout ──────^
//! ```
//!
//! Invariants: every connection is open (known to the hub), closing (its last frame was returned, its socket may still exist) or unknown.
//! A connection that is gone has no timer. Tested in virtual time in `tests/it/endpoint.rs`, against
//! a model in `tests/laws/endpoint.rs`, and by the transcripts.

pub(crate) mod activity;
mod back_pressure;
mod backlog_total;
mod blocked;
mod closing;
pub(crate) mod config;
mod control;
pub(crate) mod counters;
mod drain;
mod ending;
mod eviction;
mod expiry;
mod fair_queue;
mod grace;
pub(crate) mod io;
mod key_attempts;
pub(crate) mod pairing;
mod rate_limit;
mod report;
mod requests;
mod reservation_shares;
pub(crate) mod source_table;
mod takeovers;
mod timers;

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::{fmt, net::IpAddr, time::Duration};

use crate::{
    endpoint::{
        activity::ActivityQueue,
        backlog_total::BacklogTotal,
        blocked::{Blocked, Received},
        closing::ClosingTable,
        config::EndpointConfig,
        counters::Counters,
        drain::Drain,
        fair_queue::{FairQueue, WAITING_OVERHEAD, stall_check},
        io::{Input, Output},
        key_attempts::{AttemptBudget, KeyAttempts, named_key},
        pairing::{Pairing, PairingStage, Side},
        rate_limit::{MAX_BURST, RateLimiter, SourceRates, byte_burst, weight},
        reservation_shares::ReservationShares,
        source_table::Source,
        timers::{ConnTable, RareTimers, Timer, Timers},
    },
    frame::Frame,
    hub::{Disconnect, Hub, Role},
    ice::IceServers,
    id::{ConnId, Key},
    message::{InboundMessage, OutboundMessage},
    reason::{CloseReason, ConnectError},
    time::Time,
    token::Token,
    wire::{Decoder, Dialect},
};

/// A signaling server as a state machine: everything but sockets, threads and the clock.
///
/// A driver reports what happens on its sockets ([`connect`](Self::connect), [`handle`](Self::handle), [`written`](Self::written)), calls
/// [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) is due, and carries out the [`Output`]s that each call
/// returns, in their order. It owns, for each connection, the dialect, keep-alive, rate limits, the size of the write buffer and the close
/// handshake; for all of them the [`Hub`], the size of all write buffers, throttling of failed joins, draining and the counters.
///
/// **Queue the outputs under the lock that protects the endpoint.** If two threads call the endpoint in turn and queue what it returned after
/// releasing the lock, messages can change their order.
///
/// A call costs O(log n) in connections, keys and joiners for each output. A connection costs about 200 bytes.
///
/// ```
/// use core::time::Duration;
/// use sigver_core::{Dialect, Endpoint, EndpointConfig, Frame, Input, Output, Time};
///
/// let random = || Some(7); // use 128 random bits: the tokens of openers are secrets
/// let mut endpoint = Endpoint::new(EndpointConfig::default(), random);
/// let at = |seconds| Time::from_duration(Duration::from_secs(seconds));
/// let ip = "192.0.2.1".parse()?;
///
/// let alice = endpoint.connect(at(0), Dialect::V1, ip)?;
/// let outputs = endpoint.handle(at(1), alice, Input::Text(r#"{"type":"open","key":"tea"}"#));
/// let opened = r#"{"type":"opened","key":"tea","token":"00000000000000000000000000000007"}"#;
/// assert!(matches!(&outputs[..], [(to, Output::Send(Frame::Text(text)))] if *to == alice && text == opened));
///
/// assert_eq!(endpoint.poll_timeout(), Some(at(25))); // time for a ping
/// let outputs = endpoint.handle_timeout(at(25));
/// assert!(matches!(outputs[..], [(to, Output::Send(Frame::Ping))] if to == alice));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Endpoint {
    config: EndpointConfig,
    byte_burst: Duration,
    random: Box<dyn FnMut() -> Option<u128> + Send>,
    hub: Hub,
    plain: Decoder,
    v1: Decoder,
    conns: ConnTable<Conn>,
    closing: ClosingTable,
    backlogs: BacklogTotal,
    ping_timers: Timers,
    stall_timers: Timers,
    refusal_timers: Timers,
    expiries: RareTimers,
    ice: Option<IceSource>,
    /// The time between two checks of an opener that joiners wait for.
    stall_check: Duration,
    /// Joiners whose opener is gone or no opener any more, and joiners whose join has waited for a key that is open now.
    released: VecDeque<ConnId>,
    source_rates: SourceRates,
    reservation_shares: ReservationShares,
    key_attempts: KeyAttempts,
    drain: Option<Drain>,
    /// The counters, except for the hub's.
    counters: Counters,
    activity: ActivityQueue,
    is_closed: bool,
}

/// The phase of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Connections are accepted.
    Serving,
    /// [`Endpoint::drain`] closes the connections one after the other.
    Draining,
    /// Every connection was sent a close frame. Some sockets may still exist.
    Closed,
}

/// An open connection.
struct Conn {
    dialect: Dialect,
    source: Source,
    /// The timer of the next ping.
    ping_timer: Option<Timer>,
    /// Pings since the last frame from the client.
    missed_pings: u8,
    /// The cost of the frames that were returned and not reported as written.
    unwritten: usize,
    /// Of an opener that reads more slowly than its joiners send.
    queue: Option<Box<FairQueue>>,
    /// While the client is not read.
    blocked: Option<Box<Blocked>>,
    messages: RateLimiter,
    bytes: RateLimiter,
    /// When reading from the client resumes, or has resumed.
    paused_until: Time,
    attempts: AttemptBudget,
    /// Of the key that it has open or had last.
    takeovers: AttemptBudget,
    /// Of a joiner. Boxed, because other connections have none.
    pairing: Option<Box<Pairing>>,
}

/// When this many pings are missed and another is due, the connection is closed.
const MAX_MISSED_PINGS: u8 = 2;

/// A call of [`Endpoint::handle_timeout`] that is later than this follows a suspension of the process, or of the machine.
const MAX_LATENESS: Duration = Duration::from_secs(1);

/// Pings, expiries and throttled refusals per call of [`Endpoint::handle_timeout`], of each. With many connections, messages should not
/// wait for all of them.
const TIMERS_PER_CALL: usize = 64;

/// Returns the ICE servers for one side of a pairing.
type IceSource = Box<dyn FnMut() -> Option<IceServers> + Send>;

/// The outputs of one call.
type Outputs = Vec<(ConnId, Output)>;

impl Endpoint {
    /// Creates an endpoint without connections.
    ///
    /// `random` returns 128 random bits from a cryptographically secure source, or `None` if the source fails. It is called when a client of
    /// `sigver.v1` opens a key or meets, for its [`Token`] and for a key that it does not name. If it fails, that client is closed with 1011
    /// [`Internal`](CloseReason::Internal).
    pub fn new(config: EndpointConfig, random: impl FnMut() -> Option<u128> + Send + 'static) -> Self {
        let activity = ActivityQueue::new(config.report_activity);
        let reservation_shares = ReservationShares::new(&config.limits);
        Self {
            hub: Hub::new(config.limits.clone()),
            plain: Decoder::new(Dialect::Plain, &config.limits),
            v1: Decoder::new(Dialect::V1, &config.limits),
            closing: ClosingTable::new(config.close_timeout),
            backlogs: BacklogTotal::new(config.backlog_total_bytes),
            byte_burst: byte_burst(config.bytes_per_second, config.backlog_bytes),
            stall_check: stall_check(config.close_timeout),
            config,
            random: Box::new(random),
            conns: ConnTable::new(),
            ping_timers: Timers::new(),
            stall_timers: Timers::new(),
            refusal_timers: Timers::new(),
            expiries: RareTimers::new(),
            ice: None,
            released: VecDeque::new(),
            source_rates: SourceRates::new(),
            reservation_shares,
            key_attempts: KeyAttempts::new(),
            drain: None,
            counters: Counters::default(),
            activity,
            is_closed: false,
        }
    }

    /// Sends ICE servers to clients of `sigver.v1`, in `joined`, `join` and the joiners of `opened`.
    ///
    /// `source` is called for each side of each pairing, so that credentials are fresh and one client's are not another's. It must not block.
    /// `None`: the client gets none. Keep the servers below 2 KiB of JSON: the write buffers assume it.
    #[must_use]
    pub fn with_ice_servers(mut self, source: impl FnMut() -> Option<IceServers> + Send + 'static) -> Self {
        self.ice = Some(Box::new(source));
        self
    }

    /// Returns until when not to read a connection. Ask after [`connect`](Self::connect) if
    /// [`messages_per_second_per_source`](EndpointConfig::messages_per_second_per_source) is set: a client that is over the rate must not be
    /// read because it has connected again. Its role deadline begins then. Later, [`Output::PauseReading`] tells.
    pub fn paused_until(&self, now: Time, id: ConnId) -> Option<Time> {
        let paused_until = self.conns.get(id)?.paused_until;
        (paused_until > now).then_some(paused_until)
    }

    /// Accepts a connection whose handshake negotiated `dialect` ([`Dialect::negotiate`]), from a client with this address. Behind a trusted
    /// proxy, that is the address that the proxy forwards.
    ///
    /// [`Limits::connections`](crate::Limits::connections) counts open connections only. A closing connection keeps its socket until
    /// [`Input::Disconnected`] or [`Output::Abort`], so clients that connect and are closed at once can exceed it. To limit file descriptors
    /// and memory, compare [`sockets`](Self::sockets) with a limit of the driver's own before calling this.
    ///
    /// # Errors
    ///
    /// [`ConnectError::TooManyConnections`] at [`Limits::connections`](crate::Limits::connections), and [`ConnectError::ShuttingDown`] after
    /// [`close_all`](Self::close_all), and after the `accept_until` of [`drain`](Self::drain). The usual response to both is HTTP 503.
    pub fn connect(&mut self, now: Time, dialect: Dialect, client: IpAddr) -> Result<ConnId, ConnectError> {
        if self.drain.as_ref().is_some_and(|drain| !drain.accepts(now)) {
            return Err(ConnectError::ShuttingDown);
        }
        let source = client.into();
        let paused_until = self.source_rates.ready_at(source, now).unwrap_or(now);
        // The client cannot request a role before.
        let id = self.hub.connect(paused_until, dialect.profile())?;
        let conn = Conn {
            dialect,
            source,
            ping_timer: None,
            missed_pings: 0,
            unwritten: 0,
            queue: None,
            blocked: None,
            messages: RateLimiter::new(now),
            bytes: RateLimiter::new(now),
            paused_until,
            attempts: AttemptBudget::new(now),
            takeovers: AttemptBudget::new(now),
            pairing: None,
        };
        self.conns.insert(id, conn);
        self.schedule_ping(now, id);
        if let Some(drain) = &mut self.drain {
            drain.push(id, now);
        }
        Ok(id)
    }

    /// Registers a connection that [`connect`](Self::connect) rejected and that receives a last response, such as HTTP 503. It is closing
    /// from the start: the driver sends the response, reads and discards until the client closes the socket, and reports
    /// [`Input::Disconnected`]. After [`EndpointConfig::close_timeout`], the endpoint returns [`Output::Abort`].
    pub fn reject(&mut self, now: Time) -> ConnId {
        let id = self.hub.dead_id();
        self.closing.insert(now, id, 0, false);
        id
    }

    /// Handles an event on a connection. Events of closing and unknown connections do nothing.
    #[must_use = "the outputs must be carried out"]
    pub fn handle(&mut self, now: Time, id: ConnId, input: Input<'_>) -> Vec<(ConnId, Output)> {
        let mut outputs = Vec::new();
        self.handle_into(now, id, input, &mut outputs);
        outputs
    }

    /// Like [`handle`](Self::handle), but appends to `outputs`, which saves an allocation for each event.
    pub fn handle_into(&mut self, now: Time, id: ConnId, input: Input<'_>, outputs: &mut Vec<(ConnId, Output)>) {
        if self.backlogs.excess() > 0 && self.conns.get(id).is_some() && !matches!(input, Input::Disconnected) {
            self.limit_backlogs(now, outputs);
        }
        let Some(conn) = self.conns.get_mut(id) else {
            if let Input::Disconnected = input {
                let backlog = self.closing.remove(id);
                self.backlogs.subtract(backlog);
            }
            return self.resume_released(now, outputs);
        };
        conn.missed_pings = 0;
        let received = match input {
            Input::Text(text) => match (match conn.dialect {
                Dialect::Plain => &self.plain,
                Dialect::V1 => &self.v1,
            })
            .decode(text)
            {
                Ok(message) => Received::Message {
                    message,
                    text_bytes: text.len(),
                    wire_bytes: text.len(),
                },
                Err(reason) => Received::Violation(reason),
            },
            Input::Message {
                message,
                text_bytes,
                wire_bytes,
            } => Received::Message {
                message,
                text_bytes,
                wire_bytes,
            },
            Input::Binary => Received::Violation(CloseReason::Binary),
            Input::Ping(payload) => Received::Ping(payload.into()),
            Input::Pong => Received::Pong,
            Input::Close(code) => Received::CloseFrame(code),
            Input::Violation(reason) => Received::Violation(reason),
            Input::Disconnected => {
                self.disconnect(now, id, outputs);
                return self.resume_released(now, outputs);
            }
        };
        self.receive(now, id, received, outputs);
        self.resume_released(now, outputs);
    }

    fn dispatch(&mut self, now: Time, id: ConnId, received: Received, outputs: &mut Outputs) {
        match received {
            Received::Message {
                message,
                text_bytes,
                wire_bytes,
            } => self.handle_message(now, id, message, text_bytes, wire_bytes, outputs),
            Received::Ping(payload) => {
                let bytes = payload.len();
                self.enqueue(now, id, Frame::Pong(payload), outputs);
                self.limit_rate(now, id, 1, bytes, outputs);
            }
            Received::Pong => self.limit_rate(now, id, 1, 0, outputs),
            Received::CloseFrame(code) => {
                self.end_pairing(now, id, PairingStage::EndedByJoiner, outputs);
                self.begin_close(now, id, Frame::CloseReply(code), outputs);
                let messages = self.hub.disconnect(now, id, Disconnect::Clean);
                self.deliver(now, Some(id), messages, outputs);
            }
            Received::Violation(reason) => self.close_into(now, id, reason, outputs),
        }
    }

    /// Reports frames of a connection that the kernel accepted. `cost` is the sum of their [`Frame::cost`]s; parts of a frame may be reported
    /// separately. Returns the frames that have waited for this, and whose joiners are read again. Frames that are never reported as written
    /// fill the connection's write buffer. For a closing connection, written frames from before its last frame count as
    /// [progress](Self::record_progress).
    #[must_use = "the outputs must be carried out"]
    pub fn written(&mut self, now: Time, id: ConnId, cost: usize) -> Vec<(ConnId, Output)> {
        let mut outputs = Vec::new();
        match self.conns.get_mut(id) {
            Some(conn) => {
                let written = cost.min(conn.unwritten);
                conn.unwritten -= written;
                self.backlogs.subtract(written);
                if conn.queue.is_some() && cost > 0 {
                    conn.record_progress();
                    self.continue_sending(now, id, &mut outputs);
                    self.resume_released(now, &mut outputs);
                }
            }
            None => {
                let written = self.closing.written(id, cost);
                self.backlogs.subtract(written);
            }
        }
        outputs
    }

    /// Reports that the client of a connection has read something: see [`Output::ProbeProgress`]. If the connection is closing, it is not
    /// aborted at the next [`close_timeout`](EndpointConfig::close_timeout). Optional: for drivers that know how much the kernel still has to
    /// send.
    pub fn record_progress(&mut self, id: ConnId) {
        match self.conns.get_mut(id) {
            Some(conn) => conn.record_progress(),
            None => self.closing.record_progress(id),
        }
    }

    /// Begins a graceful shutdown: closes every connection with 1001, one after the other, spread over [`EndpointConfig::drain`]. A second
    /// call changes nothing.
    ///
    /// Openers are closed last, so that their joiners receive 1001 and not 4001. Connections are accepted until `accept_until`, and closed
    /// soon after; pass `now` to accept none. When no connection is left and `accept_until` has passed, the phase is
    /// [`Closed`](Phase::Closed).
    pub fn drain(&mut self, now: Time, accept_until: Time) {
        if self.phase() == Phase::Serving {
            let (openers, others): (Vec<_>, Vec<_>) = self
                .conns
                .ids()
                .partition(|id| self.hub.role(*id) == Some(Role::Opener));
            let queue = others.into_iter().chain(openers).collect();
            self.drain = Some(Drain::new(queue, self.config.drain, now, accept_until));
        }
    }

    /// Closes every connection with 1001 at once and accepts no further one.
    #[must_use = "the outputs must be carried out"]
    pub fn close_all(&mut self, now: Time) -> Vec<(ConnId, Output)> {
        let mut outputs = Vec::new();
        self.drain = None;
        self.is_closed = true;
        let messages = self.hub.shutdown();
        self.deliver(now, None, messages, &mut outputs);
        self.resume_released(now, &mut outputs);
        outputs
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due; `None` if there is nothing to wait for. Any other call may change it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let drain = self.drain.as_ref().map(Drain::next);
        [
            self.hub.poll_timeout(),
            self.closing.next(),
            self.ping_timers.next(),
            self.stall_timers.next(),
            self.refusal_timers.next(),
            self.expiries.next(),
            drain,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Carries out what is due: role deadlines, waits, reservations, refusals, expiries, draining, close time-outs, pings, checks of openers that do not
    /// read. One call does a bounded amount of work; if [`poll_timeout`](Self::poll_timeout) is still in the past afterwards, call again.
    /// Early and late calls are harmless: if a call is late by more than a second, as after a suspension of the process, role deadlines,
    /// reservations and close time-outs that have passed begin again. What these clients sent in time may not have been read yet.
    #[must_use = "the outputs must be carried out"]
    pub fn handle_timeout(&mut self, now: Time) -> Vec<(ConnId, Output)> {
        let mut outputs = Vec::new();
        let lateness = self.poll_timeout().map(|due| now.saturating_duration_since(due));
        let is_late = lateness > Some(MAX_LATENESS);
        if is_late {
            self.hub.restart_deadlines(now);
        }
        self.limit_backlogs(now, &mut outputs);
        let messages = self.hub.handle_timeout(now);
        self.deliver(now, None, messages, &mut outputs);
        self.refuse_due(now, &mut outputs);
        self.close_expired(now, &mut outputs);
        self.continue_drain(now, &mut outputs);
        while let Some((id, backlog)) = self.closing.pop_expired(now, is_late) {
            self.backlogs.subtract(backlog);
            outputs.push((id, Output::Abort));
        }
        self.check_stalls(now, is_late, &mut outputs);
        for _ in 0..TIMERS_PER_CALL {
            let Some(id) = self.ping_timers.pop_due(now) else { break };
            self.ping(now, id, &mut outputs);
        }
        self.resume_released(now, &mut outputs);
        outputs
    }

    /// Returns the phase of the server.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match (self.is_closed, &self.drain) {
            (true, _) => Phase::Closed,
            (false, Some(_)) => Phase::Draining,
            (false, None) => Phase::Serving,
        }
    }

    /// Returns the number of sockets that the endpoint knows: of open and of closing connections, rejected ones included. Drivers should
    /// limit it when they accept: [`Limits::connections`](crate::Limits::connections) does not count closing connections.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.hub.stats().connections as usize + self.closing.len()
    }

    /// Whether the server may end: the phase is [`Closed`](Phase::Closed) and no socket is left.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.phase() == Phase::Closed && self.sockets() == 0
    }

    /// Returns the gauges and counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            hub: self.hub.stats(),
            backlog_bytes: self.backlogs.bytes(),
            ..self.counters.clone()
        }
    }

    /// Returns the configuration that the endpoint was created with.
    #[must_use]
    pub fn config(&self) -> &EndpointConfig {
        &self.config
    }

    fn handle_message(
        &mut self,
        now: Time,
        id: ConnId,
        message: InboundMessage,
        text_bytes: usize,
        wire_bytes: usize,
        outputs: &mut Outputs,
    ) {
        if matches!(message, InboundMessage::Leave) {
            self.end_pairing(now, id, PairingStage::EndedByJoiner, outputs);
        }
        if matches!(message, InboundMessage::CloseKey) {
            self.release_joiners(id);
        }
        let key = named_key(&message).cloned();
        let message = match self.add_randomness(id, message) {
            Ok(message) => message,
            Err(reason) => return self.close_into(now, id, reason, outputs),
        };
        let resigns = matches!(message, InboundMessage::Leave | InboundMessage::CloseKey);
        let role = if resigns { self.hub.role(id) } else { None };
        let messages = match key {
            Some(key) => self.attempt_key(now, id, key, message, outputs),
            None => self.hub.handle(now, id, message),
        };
        self.record_takeover(now, id, &messages);
        if resigns {
            self.record_resignation(id, role);
        }
        self.counters.received.add(text_bytes);
        let weight = weight(&messages);
        self.deliver(now, Some(id), messages, outputs);
        self.limit_rate(now, id, weight, wire_bytes, outputs);
    }

    /// Adds the key and the token that the hub cannot generate, if the client's dialect has them.
    fn add_randomness(&mut self, id: ConnId, mut message: InboundMessage) -> Result<InboundMessage, CloseReason> {
        let mut random = || (self.random)().ok_or(CloseReason::Internal);
        if let InboundMessage::OpenGenerated { id } = message {
            message = InboundMessage::Open {
                key: Key::from_random(random()?, &self.config.limits)?,
                id,
                token: None,
                new_token: None,
            };
        }
        if let InboundMessage::Open { new_token, .. } | InboundMessage::Meet { new_token, .. } = &mut message {
            if self.conns.get(id).is_some_and(|conn| conn.dialect == Dialect::V1) {
                *new_token = Some(Token::from_random(random()?));
            }
        }
        Ok(message)
    }

    fn limit_rate(&mut self, now: Time, id: ConnId, messages: usize, bytes: usize, outputs: &mut Outputs) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.messages.spend(messages, self.config.messages_per_second, now);
        conn.bytes.spend(bytes, self.config.bytes_per_second, now);
        let per_source = self.config.messages_per_second_per_source;
        let pauses = [
            conn.messages.ready_at(now, MAX_BURST),
            conn.bytes.ready_at(now, self.byte_burst),
            self.source_rates.spend(conn.source, messages, per_source, now),
        ];
        if let Some(until) = pauses.into_iter().flatten().max() {
            conn.paused_until = until;
            outputs.push((id, Output::PauseReading(until)));
        }
    }

    /// Encodes what the hub returned, and everything that follows from it. `sender` caused it, by a message or by its end.
    fn deliver(
        &mut self,
        now: Time,
        sender: Option<ConnId>,
        messages: Vec<(ConnId, OutboundMessage)>,
        outputs: &mut Outputs,
    ) {
        let mut messages = VecDeque::from(messages);
        while let Some((to, message)) = messages.pop_front() {
            self.record(now, sender, to, &message, outputs);
            self.record_activity(to, &message, messages.front());
            // It may have been closed as a slow consumer since the message was returned.
            let Some(conn) = self.conns.get(to) else { continue };
            let joiner = is_from_joiner(&message).then_some(sender.filter(|sender| *sender != to));
            match conn
                .dialect
                .encode_with_ice(message, || self.ice.as_mut().and_then(|ice| ice()))
            {
                None => {}
                Some(Frame::Close(reason)) => self.begin_close(now, to, Frame::Close(reason), outputs),
                Some(frame) => match joiner {
                    Some(joiner) => self.enqueue_for_opener(to, joiner, frame, outputs),
                    None => messages.extend(self.try_enqueue(now, to, frame, outputs)),
                },
            }
        }
    }

    fn enqueue(&mut self, now: Time, to: ConnId, frame: Frame, outputs: &mut Outputs) {
        let messages = self.try_enqueue(now, to, frame, outputs);
        self.deliver(now, None, messages, outputs);
    }

    /// Returns the frame to the driver; or, if it does not fit into the write buffer, closes the connection.
    #[must_use]
    fn try_enqueue(
        &mut self,
        now: Time,
        to: ConnId,
        frame: Frame,
        outputs: &mut Outputs,
    ) -> Vec<(ConnId, OutboundMessage)> {
        let Some(conn) = self.conns.get_mut(to) else {
            return Vec::new();
        };
        let (backlog, cost) = (conn.backlog(), frame.cost());
        if backlog > 0 && backlog + cost > self.config.backlog_bytes as usize {
            return self.close_in_hub(now, to, CloseReason::TooSlow);
        }
        self.counters.count_sent(&frame);
        self.backlogs.add(cost);
        if let Some(queue) = conn.queue.as_mut().filter(|queue| queue.has_frames()) {
            queue.push(None, frame);
            self.backlogs.add(WAITING_OVERHEAD);
        } else {
            conn.unwritten += cost;
            outputs.push((to, Output::Send(frame)));
        }
        Vec::new()
    }

    /// Sends the last frame of an open connection.
    fn begin_close(&mut self, now: Time, id: ConnId, last: Frame, outputs: &mut Outputs) {
        if self.conns.get(id).is_some_and(|conn| conn.blocked.is_some()) {
            // What the client still sends is read and discarded.
            outputs.push((id, Output::ResumeReading));
        }
        self.activity.push_end(id, Some(&last));
        let is_discarded = last == Frame::Close(CloseReason::TooSlow);
        let mut backlog = 0;
        if let Some(conn) = self.remove(id) {
            self.backlogs.subtract(conn.backlog());
            backlog = conn.unwritten;
            let queue = conn.queue.filter(|_| !is_discarded);
            for frame in queue.into_iter().flat_map(|queue| queue.into_frames()) {
                backlog += frame.cost();
                outputs.push((id, Output::Send(frame)));
            }
        }
        if !is_discarded {
            self.backlogs.add(backlog);
        }
        self.closing.insert(now, id, backlog, is_discarded);
        outputs.push((id, Output::Send(last)));
    }

    /// Removes an open connection and its timers.
    fn remove(&mut self, id: ConnId) -> Option<Conn> {
        self.unblock(id);
        self.release_joiners(id);
        let conn = self.conns.remove(id)?;
        self.expiries.cancel(id);
        self.ping_timers.cancel(conn.ping_timer, id);
        self.stall_timers.cancel(conn.stall_timer(), id);
        Some(conn)
    }

    fn ping(&mut self, now: Time, id: ConnId, outputs: &mut Outputs) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.ping_timer = None;
        if conn.blocked.is_some() || conn.paused_until > now {
            // Its pongs may be among the unread bytes.
            conn.missed_pings = 0;
        }
        if conn.missed_pings >= MAX_MISSED_PINGS {
            return self.close_into(now, id, CloseReason::Silent, outputs);
        }
        conn.missed_pings += 1;
        self.schedule_ping(now, id);
        self.enqueue(now, id, Frame::Ping, outputs);
    }

    fn schedule_ping(&mut self, now: Time, id: ConnId) {
        if self.config.keep_alive.is_zero() {
            return;
        }
        if let Some(conn) = self.conns.get_mut(id) {
            conn.ping_timer = self.ping_timers.schedule(now, self.config.keep_alive, id);
        }
    }

    fn continue_drain(&mut self, now: Time, outputs: &mut Outputs) {
        while let Some(drain) = &mut self.drain {
            match drain.pop_due(now) {
                drain::Step::Close(id) => self.close_into(now, id, CloseReason::ShuttingDown, outputs),
                drain::Step::Wait => break,
                drain::Step::Done => outputs.append(&mut self.close_all(now)),
            }
        }
    }

    /// Updates the counters and pairings for a message of the hub.
    fn record(
        &mut self,
        now: Time,
        sender: Option<ConnId>,
        to: ConnId,
        message: &OutboundMessage,
        outputs: &mut Outputs,
    ) {
        match message {
            OutboundMessage::Opened { .. } => self.counters.reach(PairingStage::Opened),
            OutboundMessage::Waiting { .. } => self.begin_grace(to, outputs),
            OutboundMessage::Joined { .. } => {
                self.end_grace(to);
                self.counters.reach(PairingStage::Joined);
                if let Some(conn) = self.conns.get_mut(to) {
                    conn.pairing = Some(Box::new(Pairing::new(now)));
                }
            }
            OutboundMessage::Data { from, .. } => {
                let (joiner, side) = match from {
                    Some(_) => (sender, Side::Joiner),
                    None => (Some(to), Side::Opener),
                };
                let conn = joiner.and_then(|joiner| self.conns.get_mut(joiner));
                if let Some(pairing) = conn.and_then(|conn| conn.pairing.as_mut()) {
                    for stage in pairing.record(side, now) {
                        self.counters.reach(stage);
                    }
                }
            }
            OutboundMessage::Refused(refusal) => self.counters.refused.add(refusal),
            OutboundMessage::RoleEnded(end) => {
                self.release_joiners(to);
                if let Some(reason) = end.reason() {
                    self.end_pairing(now, to, stage_of(reason), outputs);
                }
            }
            OutboundMessage::Close(reason) => {
                self.counters.refused.add_close(*reason);
                self.end_pairing(now, to, stage_of(*reason), outputs);
            }
            OutboundMessage::PeerJoined { .. }
            | OutboundMessage::PeerLeft { .. }
            | OutboundMessage::Reopened { .. }
            | OutboundMessage::Pong => {}
        }
    }

    fn end_pairing(&mut self, now: Time, joiner: ConnId, stage: PairingStage, outputs: &mut Outputs) {
        let conn = self.conns.get_mut(joiner);
        if let Some(mut pairing) = conn.and_then(|conn| conn.pairing.take()) {
            pairing.end(stage, now);
            self.counters.reach(stage);
            outputs.push((joiner, Output::PairingEnded(pairing)));
        }
    }

    /// Returns the number of timers of connections. For tests: it is at most three times [`sockets`](Self::sockets).
    #[doc(hidden)]
    #[must_use]
    pub fn timers(&self) -> usize {
        self.ping_timers.len()
            + self.stall_timers.len()
            + self.refusal_timers.len()
            + self.expiries.len()
            + self.closing.timers()
    }

    /// Panics if the tables disagree. Tests call it after every step.
    #[doc(hidden)]
    pub fn assert_invariants(&self) {
        self.hub.assert_invariants();
        assert_eq!(
            self.hub.stats().connections as usize,
            self.conns.ids().count(),
            "the hub and the endpoint have the same open connections"
        );
        for id in self.conns.ids() {
            assert!(!self.closing.contains(id), "a connection is open or closing");
        }
        let open = self.conns.iter().map(|(_, conn)| conn.memory());
        let backlogs = open.chain(self.closing.backlogs().map(|(_, backlog)| backlog));
        assert_eq!(
            self.backlogs.bytes(),
            backlogs.map(|backlog| backlog as u64).sum::<u64>(),
            "the total is the sum of all backlogs"
        );
        assert!(
            self.timers() <= 3 * self.sockets(),
            "a connection that is gone has no timer"
        );
        self.assert_back_pressure();
        if self.sockets() == 0 && self.drain.is_none() && self.hub.stats().reserved == 0 {
            assert_eq!(self.poll_timeout(), None, "nothing waits for connections that are gone");
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("hub", &self.hub)
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}

/// Returns how a pairing ended whose joiner was closed for this reason.
fn stage_of(reason: CloseReason) -> PairingStage {
    if reason == CloseReason::OpenerLeft {
        PairingStage::EndedByOpener
    } else if reason == CloseReason::Kicked {
        PairingStage::EndedByKick
    } else {
        PairingStage::EndedByServer
    }
}

/// Whether the message tells an opener what a joiner has done.
fn is_from_joiner(message: &OutboundMessage) -> bool {
    matches!(
        message,
        OutboundMessage::Data { from: Some(_), .. }
            | OutboundMessage::PeerJoined { .. }
            | OutboundMessage::PeerLeft { .. }
    )
}
