//! One connection's thread: handshake, reading, end.
//!
//! It reports what happens to the relay, in order. It writes to the client only before the upgrade.

pub(crate) mod control;
pub(crate) mod event;
pub(crate) mod handshake;
mod linger;
pub(crate) mod peer;
pub(crate) mod peer_addr;
pub(crate) mod reader;
pub(crate) mod registry;
pub(crate) mod request_line;

use std::{
    sync::{Arc, mpsc::Sender},
    thread,
    time::{Duration, Instant, SystemTime},
};

use sigver_core::{CloseReason, Decoder, Dialect, Source, Time, Traffic};

use crate::{
    access::{
        admissions::Admissions,
        per_ip::{self, LimitExceeded, PerIpLimits},
        permit::Permit,
    },
    config::Config,
    conn::{
        event::{ConnEvent, Event},
        handshake::{Decision, Upgrade},
        linger::DRAIN_WAIT,
        peer::{Credit, Peer},
        reader::{End, Reader, Received},
        registry::Entry,
    },
    counters::Counters,
    http::response::Response,
    lifecycle::Lifecycle,
    sys::{clock::Clock, socket},
    tuning::POLL_INTERVAL,
};

/// What the threads of all connections share.
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) per_ip: Arc<PerIpLimits>,
    pub(crate) admissions: Arc<Admissions<Peer>>,
    pub(crate) clock: Clock,
}

/// An accepted connection.
pub(crate) struct Accepted {
    pub(crate) peer: Arc<Peer>,
    pub(crate) events: Sender<Event>,
    pub(crate) entry: Entry,
    /// Its part of the limits of its source. `None` if there are none, or if the source is a proxy.
    pub(crate) permit: Option<per_ip::Permit>,
}

/// Runs a connection from its first byte to its last.
pub(crate) fn run(accepted: Accepted, context: &Context) {
    let Accepted {
        peer,
        events,
        entry,
        mut permit,
    } = accepted;
    let peer = &peer;
    let started = Instant::now();
    peer.credits.bind();
    if let Some((upgrade, rest)) = shake_hands(peer, context, &mut permit) {
        serve(peer, context, events, upgrade, rest, started);
    } else if context.lifecycle.is_ending() {
        // The relay waits for the last handshake.
        drop(entry);
        let _ = events.send(Event::Wake);
    }
}

/// Reads the request. Returns an admitted handshake and the bytes after it; responds to any other request. Not inlined: see [`report`].
#[inline(never)]
fn shake_hands(peer: &Arc<Peer>, context: &Context, permit: &mut Option<per_ip::Permit>) -> Option<(Upgrade, Vec<u8>)> {
    let Context {
        config,
        lifecycle,
        admissions,
        ..
    } = context;
    log::debug!("{peer} connected");
    let is_ready = || lifecycle.is_ready();
    let begin = || admissions.begin(peer, Instant::now(), || lifecycle.waker().wake());
    let decision = match handshake::read(&peer.stream, peer.addr.ip(), config, is_ready, begin) {
        Ok(decision) => decision,
        Err(error) => {
            log::debug!("{peer} disconnected before its request was complete: {error}");
            return None;
        }
    };
    if peer.is_aborted() || !peer.claim_answer() {
        // The server has ended during the admission, or a read; or the admission took too long.
        log::debug!("{peer} ended before its request was answered");
        return None;
    }
    let (response, line) = match decision {
        Err(response) => (response, None),
        Ok((Decision { client, line, outcome }, rest)) => {
            peer.set_client(client);
            let response = match outcome {
                Err(response) => response,
                Ok(_) if lifecycle.rejects_handshakes() => Response::UNAVAILABLE,
                Ok(upgrade) => match acquire_permit(context, peer, permit) {
                    Ok(()) => return Some((upgrade, rest)),
                    Err(exceeded) => {
                        peer.log_rejection(&exceeded);
                        Response::UNAVAILABLE
                    }
                },
            };
            (response, Some(line))
        }
    };
    context.counters.record_response(response.code());
    // A client that has gone or does not read gets no response.
    peer.limit_delivery();
    let _ = response.send(&peer.stream);
    peer.log_response(&response, line.as_ref());
    None
}

/// Acquires the permit of a client behind a trusted proxy. A client that connects directly has one already.
fn acquire_permit(context: &Context, peer: &Peer, permit: &mut Option<per_ip::Permit>) -> Result<(), LimitExceeded> {
    if permit.is_none() && context.per_ip.are_limited() {
        *permit = Some(context.per_ip.acquire_upgraded(Source::from(peer.client()))?);
    }
    if let Some(permit) = permit {
        permit.end_handshake();
    }
    Ok(())
}

fn serve(
    peer: &Arc<Peer>,
    context: &Context,
    events: Sender<Event>,
    upgrade: Upgrade,
    rest: Vec<u8>,
    started: Instant,
) {
    let (dialect, client_permit) = (upgrade.dialect, upgrade.permit.clone());
    let mut conn = Conn {
        peer,
        context,
        events: EventSender { peer, events },
        received: Traffic::default(),
        permit: client_permit,
    };
    conn.accept(upgrade);
    let end = conn.serve(dialect, rest);
    let received = conn.received;
    // The relay handles the end first: logging may block, and the key of an opener must be free.
    drop(conn);
    report(peer, dialect, received, &end, started);
    // Until then, it has its place under every limit: what waits for the relay is bounded by the connections.
    while !peer.credits.wait_idle(DRAIN_WAIT) {}
}

/// Logs the end of a connection. Not inlined, as all that runs once: the stack that a connection has touched stays in memory while it lives.
#[inline(never)]
fn report(peer: &Peer, dialect: Dialect, received: Traffic, end: &End, started: Instant) {
    // The relay's part of the numbers is complete once it has handled every event.
    peer.credits.wait_idle(DRAIN_WAIT);
    let (ending, code, reason) = match (peer.close_reason(), end) {
        (Some(reason), _) => ("closed", Some(reason.code()), Some(reason.to_string())),
        (None, End::CloseFrame(code)) => ("left", *code, None),
        (None, End::Lost) => ("lost", None, None),
        (None, End::Violation(_) | End::Closed) => ("closed", None, None),
    };
    let seconds = started.elapsed().as_secs_f64();
    let (role, sent) = (peer.stats.role(), peer.stats.sent());
    let dialect = match dialect {
        Dialect::Plain => "plain",
        Dialect::V1 => "sigver.v1",
    };
    let why = match (code, &reason) {
        (Some(code), Some(reason)) => format!(" with {code} {reason}"),
        (Some(code), None) => format!(" with {code}"),
        (None, _) => String::new(),
    };
    log::info!(
        conn = peer.serial, client:% = peer.client(), role, dialect, seconds, ending, code, reason,
        messages_in = received.messages, bytes_in = received.bytes, messages_out = sent.messages, bytes_out = sent.bytes;
        "{peer} {ending}{why} after {seconds:.1} s: {role}, {dialect}, messages in {received}, out {sent}"
    );
}

struct Conn<'a> {
    peer: &'a Arc<Peer>,
    context: &'a Context,
    events: EventSender<'a>,
    received: Traffic,
    permit: Permit,
}

/// Sends a connection's events to the relay. The last one, [`ConnEvent::Disconnected`], is sent on drop.
struct EventSender<'a> {
    peer: &'a Arc<Peer>,
    events: Sender<Event>,
}

impl Conn<'_> {
    /// Accepts the handshake. Frees it: the client chooses how large its subprotocol is.
    fn accept(&self, upgrade: Upgrade) {
        self.peer.admit(self.permit.shared_identity());
        let expires_at = self.permit.expiry().map(|expiry| {
            let left = expiry.duration_since(SystemTime::now()).unwrap_or_default();
            self.context.clock.now().saturating_add(left)
        });
        self.events.send(ConnEvent::Upgraded {
            response: upgrade.response(),
            dialect: upgrade.dialect,
            expires_at,
        });
    }

    /// Reads until the client is gone.
    fn serve(&mut self, dialect: Dialect, rest: Vec<u8>) -> End {
        let end = self.read(rest, dialect);
        match end {
            End::CloseFrame(code) => self.events.send(ConnEvent::CloseFrame { code }),
            End::Violation(reason) => self.events.send(ConnEvent::Violation(reason)),
            End::Closed => {}
            End::Lost => {
                // The relay closes the socket once it has handled the disconnect: a client that sees the end may open its key again at once.
                self.peer.discard_undelivered();
                return end;
            }
        }
        linger::linger(self.peer, || self.events.send(ConnEvent::Progress));
        end
    }

    /// Reads, decodes and sends events until the connection ends. Not inlined: see [`report`].
    #[inline(never)]
    fn read(&mut self, rest: Vec<u8>, dialect: Dialect) -> End {
        let decoder = Decoder::new(dialect, &self.context.config.endpoint.limits);
        let mut reader = Reader::new(&self.peer.stream, rest, &self.context.config.endpoint.limits);
        if self.context.config.endpoint.messages_per_second_per_source.is_some() {
            self.wait_until_registered();
        }
        loop {
            if self.wait_while_stopped().is_err() {
                return End::Lost;
            }
            if self.wait_while_paused().is_err() {
                return End::Lost;
            }
            // Without a timeout: the endpoint's keep-alive detects dead clients.
            let received = reader.read();
            if self.peer.is_closing() {
                return End::Closed;
            }
            if let Err(end) = received.and_then(|received| self.handle(received, &decoder)) {
                return end;
            }
        }
    }

    fn handle(&mut self, received: Received, decoder: &Decoder) -> Result<(), End> {
        let event = match received {
            Received::Text(text, wire_bytes) => {
                let read_at = Instant::now();
                self.received.add(text.len());
                let message = decoder.decode(&text).map_err(End::Violation)?;
                ConnEvent::Message {
                    message: self.permit.restrict(message),
                    text_bytes: text.len(),
                    wire_bytes,
                    read_at,
                }
            }
            Received::Ping(payload) => ConnEvent::Ping(payload[..].into()),
            Received::Pong => ConnEvent::Pong,
        };
        self.events.send(event);
        Ok(())
    }

    /// Waits until the relay has handled the handshake, or is gone. If the client's source is over its rate, the connection is paused from then
    /// on.
    fn wait_until_registered(&self) {
        while !self.peer.credits.wait_idle(DRAIN_WAIT) && !self.peer.is_aborted() {}
    }

    /// Waits while the client's opener reads more slowly than the client sends. Fails if the client has gone: what it has sent and nobody has
    /// read is lost with it.
    fn wait_while_stopped(&self) -> Result<(), End> {
        while self.peer.is_stopped() && !self.peer.is_closing() && !self.peer.is_aborted() {
            thread::park_timeout(POLL_INTERVAL);
            if self.peer.is_stopped() && socket::wait_hang_up(&self.peer.stream, Duration::ZERO) {
                return Err(End::Lost);
            }
        }
        Ok(())
    }

    /// Waits while the client exceeds a rate limit. What it sends meanwhile waits in the kernel, and then in the client. Messages that are
    /// in the channel when the relay decides on the pause are handled, and make the next pause longer. Fails if the client has closed its
    /// side. Its unread messages are discarded, or it could avoid the rate limit by closing. A close frame among them is discarded too, so the
    /// connection counts as lost.
    fn wait_while_paused(&self) -> Result<(), End> {
        loop {
            // The clock is read only if there was a pause.
            let until = self.peer.paused_until();
            if until == Time::ZERO {
                return Ok(());
            }
            let left = until.saturating_duration_since(self.context.clock.now());
            if left.is_zero() || self.peer.is_closing() || self.peer.is_aborted() {
                return Ok(());
            }
            if socket::wait_hang_up(&self.peer.stream, left.min(POLL_INTERVAL)) {
                return Err(End::Lost);
            }
        }
    }
}

impl EventSender<'_> {
    /// Sends an event, after waiting for its credits.
    fn send(&self, event: ConnEvent) {
        let event = Event::Conn {
            peer: Credit::acquire(self.peer, event.bytes()),
            event,
        };
        // Without a relay the server is ending, and the socket is about to be closed.
        let _ = self.events.send(event);
    }
}

impl Drop for EventSender<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.send(ConnEvent::Violation(CloseReason::Internal));
        }
        self.send(ConnEvent::Disconnected);
    }
}
