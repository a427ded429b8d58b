//! Owns one connection's thread: the handshake, the reading, the waiting for the client to go. Never writes to a client that has
//! been upgraded, and never changes a role: it tells the relay what happened, in order.

pub(crate) mod peer;
pub(crate) mod registry;

use std::{
    io::{self, Read, Write},
    mem,
    net::TcpStream,
    sync::{Arc, mpsc::SyncSender},
    thread,
    time::{Duration, Instant},
};

use rustix::{io::Errno, net::RecvFlags};
use sigver_core::{CloseReason, Dialect, Limits, Source, Time, Traffic};
use tungstenite::{
    Error, Message,
    error::ProtocolError,
    handshake::derive_accept_key,
    protocol::{CloseFrame, Role, WebSocketConfig, WebSocketContext, frame::coding::CloseCode},
};

use crate::{
    access::client_ip::{Share, TooMany},
    conn::peer::{Peer, Ticket},
    conn::registry::Entry,
    http::response::Answer,
    http::{self, Request, Upgrade},
    relay::{ConnEvent, Event},
    server::Shared,
};

/// A read takes at most this much at once. Most signaling messages fit; a connection keeps a buffer of this size for life.
pub(crate) const READ_BUFFER: usize = 2 * 1024;

/// The longest time for which a thread that waits does not look at its connection.
const LOOK: Duration = Duration::from_millis(100);

/// How long a connection that has ended waits for the relay to have handled it.
const SETTLE: Duration = Duration::from_millis(100);

/// A connection that was accepted.
pub(crate) struct Arrival {
    pub(crate) peer: Arc<Peer>,
    pub(crate) events: SyncSender<Event>,
    pub(crate) entry: Entry,
    /// Its source's share, where that is limited and known before the handshake.
    pub(crate) share: Option<Share>,
}

/// Runs a connection from its first byte to its last.
pub(crate) fn run(arrival: Arrival, shared: &Shared) {
    let Arrival {
        peer,
        events,
        entry,
        mut share,
    } = arrival;
    let peer = &peer;
    let started = Instant::now();
    peer.credit.bind();
    if let Some((upgrade, rest)) = shake_hands(peer, shared, &mut share) {
        serve(peer, shared, events, &upgrade, rest, started);
    } else if shared.is_ending() {
        // The relay waits for the last handshake.
        drop(entry);
        let _ = events.send(Event::Wake);
    }
}

/// Reads the request: an admitted handshake, with what came behind it. Anything else is answered here. Not a part of what calls it: see
/// [`report`].
#[inline(never)]
fn shake_hands(peer: &Peer, shared: &Shared, share: &mut Option<Share>) -> Option<(Upgrade, Vec<u8>)> {
    log::debug!("{peer} came");
    let request = match http::receive(&peer.stream, peer.addr.ip(), shared) {
        Ok(request) => request,
        Err(error) => {
            log::debug!("{peer} left before its request was whole: {error}");
            return None;
        }
    };
    let answer = match request {
        Request::Answered(answer) => answer,
        // With a successor, whoever was accepted in the last moment is let in, and told with everyone else.
        Request::Upgrade(..) if shared.is_ending() && !shared.has_successor => Answer::UNAVAILABLE,
        Request::Upgrade(upgrade, rest) => {
            peer.set_client(upgrade.client);
            match take_share(shared, peer, share) {
                Ok(()) => return Some((upgrade, rest)),
                Err(too_many) => {
                    peer.log_refusal(&too_many);
                    Answer::UNAVAILABLE
                }
            }
        }
    };
    shared.count_answer(&answer);
    // A client that is gone, or does not read, gets no answer.
    let _ = answer.send(&peer.stream);
    let (client, status) = (peer.client(), &answer.status);
    log::info!(conn = peer.serial, client:%, status:%; "{peer} answered {status}");
    None
}

/// Takes the share of a client whose proxy has none. One that connects directly has its share from the beginning.
fn take_share(shared: &Shared, peer: &Peer, share: &mut Option<Share>) -> Result<(), TooMany> {
    if share.is_none() && shared.shares.are_limited() {
        *share = Some(shared.shares.take(Source::from(peer.client()))?);
    }
    if let Some(share) = share {
        share.end_handshake();
    }
    Ok(())
}

fn serve(
    peer: &Arc<Peer>,
    shared: &Shared,
    events: SyncSender<Event>,
    upgrade: &Upgrade,
    rest: Vec<u8>,
    started: Instant,
) {
    let mut conn = Conn {
        peer,
        shared,
        events: Link { peer, events },
        received: Traffic::default(),
    };
    let end = conn.serve(upgrade, rest);
    report(peer, upgrade.dialect, conn.received, &end, started);
}

/// Tells the log of a connection's end. A function of its own, as is whatever else happens once: its frame is not part of the stack that a
/// connection keeps touched for life.
#[inline(never)]
fn report(peer: &Peer, dialect: Dialect, received: Traffic, end: &End, started: Instant) {
    // What the relay has done for it is known once it has handled everything.
    peer.credit.settle(SETTLE);
    let (ending, code, reason) = match (peer.verdict(), end) {
        (Some(reason), _) => ("closed", Some(reason.code()), Some(reason.to_string())),
        (None, End::Left(code)) => ("left", *code, None),
        (None, End::Lost) => ("lost", None, None),
        (None, End::Fault(_) | End::Closed) => ("closed", None, None),
    };
    let seconds = started.elapsed().as_secs_f64();
    let (role, sent) = (peer.account.role(), peer.account.sent());
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
    shared: &'a Shared,
    events: Link<'a>,
    received: Traffic,
}

/// The relay as a connection sees it. When it is dropped, in whatever way, the relay learns that the connection is gone.
struct Link<'a> {
    peer: &'a Arc<Peer>,
    events: SyncSender<Event>,
}

/// Why reading has ended.
enum End {
    /// The client sent a close frame with this code.
    Left(Option<u16>),
    /// The client broke the protocol.
    Fault(CloseReason),
    /// The hub has closed the connection.
    Closed,
    /// The socket has ended without a close frame.
    Lost,
}

impl Conn<'_> {
    /// Accepts the handshake and reads until the client is gone.
    fn serve(&mut self, upgrade: &Upgrade, rest: Vec<u8>) -> End {
        let response = http::switching_protocols(upgrade, &derive_accept_key(upgrade.key.as_bytes()));
        let dialect = upgrade.dialect;
        self.events.tell(ConnEvent::Upgraded { response, dialect });
        let end = self.read(rest, dialect);
        match end {
            End::Left(code) => self.events.tell(ConnEvent::CloseFrame { code }),
            End::Fault(reason) => self.events.tell(ConnEvent::Violation(reason)),
            End::Closed => {}
            End::Lost => return end,
        }
        self.discard();
        end
    }

    /// Tells the relay what the client says, until that ends. A frame of its own: see [`report`].
    #[inline(never)]
    fn read(&mut self, rest: Vec<u8>, dialect: Dialect) -> End {
        let limits = &self.shared.config.endpoint.limits;
        let mut socket = context(rest, limits.message_bytes as usize);
        let mut stream = Inbound::new(&self.peer.stream, limits);
        // The handshake had a timeout. From here on the endpoint watches for signs of life, because a timer that is set and cleared by
        // every read is a measurable part of an exchange. Failing to clear it means that the socket is dead.
        if self.peer.stream.set_read_timeout(None).is_err() {
            return End::Lost;
        }
        loop {
            self.wait_while_paused();
            let read = socket.read(&mut stream);
            if self.peer.verdict().is_some() {
                return End::Closed;
            }
            match read {
                Ok(message) => {
                    stream.saw(&message);
                    // Pieces of a message may come between control frames: they count with the message.
                    let wire_bytes = if message.is_text() { stream.take_count() } else { 0 };
                    if let Err(end) = self.take(message, wire_bytes, dialect) {
                        return end;
                    }
                }
                Err(Error::Io(_)) if stream.is_over_quota() => return End::Fault(CloseReason::TooBig),
                Err(error) => return end_of(&error),
            }
        }
    }

    fn take(&mut self, message: Message, wire_bytes: usize, dialect: Dialect) -> Result<(), End> {
        match message {
            Message::Text(text) => {
                let read_at = Instant::now();
                self.received.add(text.len());
                let limits = &self.shared.config.endpoint.limits;
                let message = dialect.decode(&text, limits, random).map_err(End::Fault)?;
                self.events.tell(ConnEvent::Message {
                    message,
                    text_bytes: text.len(),
                    wire_bytes,
                    read_at,
                });
                Ok(())
            }
            Message::Binary(_) => Err(End::Fault(CloseReason::Binary)),
            Message::Ping(payload) => {
                self.events.tell(ConnEvent::Ping(payload[..].into()));
                Ok(())
            }
            Message::Pong(_) => {
                self.events.tell(ConnEvent::Pong);
                Ok(())
            }
            Message::Close(Some(frame)) if is_violation(&frame) => Err(End::Fault(CloseReason::BrokenFraming)),
            Message::Close(frame) => Err(End::Left(frame.map(|frame| frame.code.into()))),
            Message::Frame(_) => Err(End::Fault(CloseReason::BrokenFraming)),
        }
    }

    /// Reads nothing while the client is over a rate limit. What it sends meanwhile waits in the kernel, and then in the client. Messages
    /// that are on their way to the relay when it decides the pause are handled, and make the next one longer.
    fn wait_while_paused(&self) {
        loop {
            // Asks for the time only if there was a pause ever.
            let until = self.peer.paused_until();
            if until == Time::ZERO {
                return;
            }
            let left = until.saturating_duration_since(self.shared.now());
            if left.is_zero() || self.peer.verdict().is_some() || self.peer.is_cut() {
                return;
            }
            thread::sleep(left.min(LOOK));
        }
    }

    /// Reads and forgets until both sides have closed, or the relay cuts the socket. A socket that is closed with unread bytes resets the
    /// connection, and the client would never see its close code.
    fn discard(&self) {
        let mut sink = [0; 256];
        let mut stream = &self.peer.stream;
        loop {
            match stream.read(&mut sink) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
        // The client has closed its side, and may still have much to read. As long as that is kept for it, it counts as a connection: what
        // ends with this thread is its place under every limit.
        self.peer.credit.settle(SETTLE);
        while !self.peer.is_over() {
            thread::sleep(LOOK);
        }
    }
}

impl Link<'_> {
    /// Tells the relay, once it has handled enough of what it was told before.
    fn tell(&self, event: ConnEvent) {
        let event = Event::Conn {
            peer: Ticket::spend(self.peer),
            event,
        };
        // Without a relay the server is ending, and the socket is about to be cut.
        let _ = self.events.send(event);
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell(ConnEvent::Violation(CloseReason::Internal));
        }
        self.tell(ConnEvent::Disconnected);
    }
}

/// What decodes frames. On the heap, and made in a frame of its own: see [`report`].
#[inline(never)]
fn context(rest: Vec<u8>, message_bytes: usize) -> Box<WebSocketContext> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(message_bytes))
        // The limit on messages is none on pings, which are 125 bytes long at most.
        .max_frame_size(Some(message_bytes.max(125)));
    Box::new(WebSocketContext::from_partially_read(rest, Role::Server, Some(config)))
}

/// What tungstenite reads from: the socket, up to a quota. What tungstenite wants to write, its own pongs and close frames, goes
/// nowhere: the relay answers in their place, in order with everything else.
struct Inbound<'a> {
    stream: &'a TcpStream,
    /// How many bytes may still come before a message is whole.
    quota: u64,
    full_quota: u64,
    /// How many bytes have come since that was last asked.
    count: usize,
}

/// A message may take so many times its largest size on the wire. One cut into single bytes takes seven; one cut into empty pieces
/// would never end, and keep a core busy without ever being over any other limit.
const WIRE_FACTOR: u64 = 8;

/// What a control frame takes on the wire beside its payload: a header and a mask (RFC 6455 section 5.2).
const CONTROL_HEADER: u64 = 6;

impl<'a> Inbound<'a> {
    fn new(stream: &'a TcpStream, limits: &Limits) -> Self {
        let full_quota = WIRE_FACTOR * u64::from(limits.message_bytes.max(READ_BUFFER as u32));
        Self {
            stream,
            quota: full_quota,
            full_quota,
            count: 0,
        }
    }

    /// How many bytes have come since this was last asked.
    fn take_count(&mut self) -> usize {
        mem::take(&mut self.count)
    }

    /// Takes note of a message. A control frame may stand amid the pieces of a message that never ends: it gives back what it has taken of the
    /// quota and no more. Its bytes are the endpoint's to count, those of the pieces before it are not.
    fn saw(&mut self, message: &Message) {
        match message {
            Message::Ping(payload) | Message::Pong(payload) => {
                let bytes = CONTROL_HEADER + payload.len() as u64;
                self.quota = self.full_quota.min(self.quota + bytes);
                self.count = self.count.saturating_sub(bytes as usize);
            }
            Message::Text(_) | Message::Binary(_) | Message::Close(_) | Message::Frame(_) => {
                self.quota = self.full_quota;
            }
        }
    }

    fn is_over_quota(&self) -> bool {
        self.quota == 0
    }
}

impl Read for Inbound<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_over_quota() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        loop {
            // Not `TcpStream::read`, which is a point where a C thread may be cancelled, and pays for it.
            match rustix::net::recv(self.stream, &mut *buffer, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok((read, _)) => {
                    self.quota = self.quota.saturating_sub(read as u64);
                    self.count += read;
                    return Ok(read);
                }
            }
        }
    }
}

impl Write for Inbound<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// 128 bits from the system's source of randomness, for a key that nobody can guess.
pub(crate) fn random() -> Option<u128> {
    let mut bits = [0; 16];
    match getrandom::fill(&mut bits) {
        Ok(()) => Some(u128::from_ne_bytes(bits)),
        Err(error) => {
            log::error!("the system has no randomness: {error}");
            None
        }
    }
}

/// What tungstenite makes of a close frame with a code that may not be sent (RFC 6455 section 7.4).
fn is_violation(frame: &CloseFrame) -> bool {
    frame.code == CloseCode::Protocol && frame.reason == "Protocol violation"
}

fn end_of(error: &Error) -> End {
    match error {
        Error::Capacity(_) => End::Fault(CloseReason::TooBig),
        Error::Utf8(_) => End::Fault(CloseReason::InvalidUtf8),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Lost,
        Error::Protocol(_) => End::Fault(CloseReason::BrokenFraming),
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_) | Error::Tls(_) => End::Lost,
        // These come from handshakes and from writing, neither of which is done through tungstenite.
        Error::AttackAttempt | Error::WriteBufferFull(_) | Error::Url(_) | Error::Http(_) | Error::HttpFormat(_) => {
            End::Fault(CloseReason::Internal)
        }
    }
}
