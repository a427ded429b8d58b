//! The event loop: it reports events to the [`Endpoint`] and carries out the outputs.
//!
//! mio reports edges: each change once. A read that does not fill its buffer has emptied the socket, and mio reports what arrives later;
//! unless the client has hung up, because then only the end is left to read. A read that fills its buffer is repeated in the next turn,
//! after all others ([`Server::unread`]). mio reports that a socket is writable only after the kernel rejected a write.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    mem,
    net::SocketAddr,
    num::NonZeroU32,
    os::unix,
    time::{Duration, Instant},
};

use mio::{
    Events, Interest, Poll, Token,
    event::Event,
    net::{TcpListener, UnixStream},
};
use rustix::process::{Resource, getrlimit};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    low_level::pipe,
};
use sigver_core::{ConnId, Dialect, Endpoint, Frame, Input, Output, Time};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    conn::State,
    conns::Conns,
    frame::{Reader, Received},
    handshake::{self, Head, Refusal},
    options::Options,
};

pub(crate) struct Server {
    poll: Poll,
    /// `None` during shutdown.
    listener: Option<TcpListener>,
    /// Readable after SIGINT or SIGTERM.
    signals: UnixStream,
    endpoint: Endpoint,
    conns: Conns,
    /// The slot in `conns` of each connection of the endpoint.
    slots: BTreeMap<ConnId, usize>,
    /// Connections whose sockets may have more to read.
    unread: Vec<usize>,
    /// When to accept again without an event.
    accept_at: Option<Instant>,
    /// The epoch of the endpoint's [`Time`].
    epoch: Instant,
    /// The start of this iteration of the loop.
    now: Instant,
}

const LISTENER: Token = Token(usize::MAX);
const SIGNALS: Token = Token(usize::MAX - 1);

/// The most bytes that are read from one connection in a turn, while others wait.
const READ_BYTES: usize = 16 * 1024;

/// The length of the kernel's accept queue, and the most connections that are accepted in a turn.
const ACCEPT_QUEUE: i32 = 4096;
const ACCEPTS: usize = 64;

/// The kernel's buffer for each client, which the kernel doubles. By default it grows to 4 MiB for a slow consumer.
const SEND_BUFFER: usize = 128 * 1024;

/// Descriptors that are kept for other files and for connections that are rejected.
const OTHER_FILES: u64 = 64;

/// The pause after `accept` failed, because of too many open files for example.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// The time until a request head has to be complete.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The time that a rejected client has to read the response.
const REJECT_TIMEOUT: Duration = Duration::from_secs(1);

impl Server {
    pub(crate) fn bind(options: Options) -> io::Result<Self> {
        let Options {
            listen: addr,
            endpoint: mut config,
        } = options;
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most: u32 = files.saturating_sub(OTHER_FILES).try_into().unwrap_or(u32::MAX);
        let most = NonZeroU32::new(most).unwrap_or(NonZeroU32::MIN);
        let connections = &mut config.limits.connections;
        *connections = Some(connections.map_or(most, |limit| limit.min(most)));

        let poll = Poll::new()?;
        let mut listener = listen(addr)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (signals, sender) = unix::net::UnixStream::pair()?;
        signals.set_nonblocking(true)?;
        let mut signals = UnixStream::from_std(signals);
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        pipe::register(SIGTERM, sender.try_clone()?)?;
        pipe::register(SIGINT, sender)?;

        let now = Instant::now();
        Ok(Self {
            conns: Conns::new(poll.registry().try_clone()?),
            poll,
            listener: Some(listener),
            signals,
            endpoint: Endpoint::new(config, random),
            slots: BTreeMap::new(),
            unread: Vec::new(),
            accept_at: None,
            epoch: now,
            now,
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?.local_addr()
    }

    /// Serves until a signal requests shutdown and every connection is closed.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        // One buffer for all connections, so that an idle one has none.
        let mut buffer = vec![0; READ_BYTES];
        while !self.endpoint.is_finished() || !self.conns.is_empty() {
            match self.poll.poll(&mut events, self.next_timeout()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            self.now = Instant::now();
            let unread = mem::take(&mut self.unread);
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    SIGNALS => self.shut_down(),
                    Token(slot) => self.serve(slot, event, &mut buffer),
                }
                self.flush();
            }
            // The slot may belong to another connection by now. Reading it is harmless.
            for slot in unread {
                self.read(slot, &mut buffer);
                self.flush();
            }
            self.handle_timeouts();
            self.flush();
        }
        Ok(())
    }

    /// Returns how long to wait for events; `None` for no limit.
    fn next_timeout(&self) -> Option<Duration> {
        if !self.unread.is_empty() {
            return Some(Duration::ZERO);
        }
        let endpoint = self.endpoint.poll_timeout().map(|time| self.instant(time));
        let conns = self.conns.next_due().map(|(due, _)| due);
        let first = [endpoint, conns, self.accept_at].into_iter().flatten().min()?;
        Some(first.saturating_duration_since(self.now))
    }

    fn handle_timeouts(&mut self) {
        if self.accept_at.is_some_and(|at| at <= self.now) {
            self.accept();
        }
        let outputs = self.endpoint.handle_timeout(self.time());
        self.carry_out(outputs);
        while let Some((due, slot)) = self.conns.next_due() {
            if due > self.now {
                break;
            }
            match self.conns[slot].state {
                State::Request => self.reject(slot, Refusal::TooSlow),
                State::Open { .. } => self.resume_reading(slot),
                State::Ending { .. } => self.remove(slot),
            }
        }
    }

    fn accept(&mut self) {
        self.accept_at = None;
        for _ in 0..ACCEPTS {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, client)) => {
                    // Fails if the poll is out of memory. The connection is dropped.
                    let _ = self.conns.insert(stream, client.ip(), self.now + REQUEST_TIMEOUT);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    // The client disconnected before it was accepted.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    // No event reports when there are descriptors again.
                    _ => {
                        self.accept_at = Some(self.now + ACCEPT_RETRY);
                        return;
                    }
                },
            }
        }
        self.accept_at = Some(self.now);
    }

    /// Handles an event on a socket.
    fn serve(&mut self, slot: usize, event: &Event, buffer: &mut [u8]) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        conn.hung_up |= event.is_read_closed();
        let hung_up = conn.hung_up;
        if hung_up && conn.is_stopped {
            return self.remove(slot);
        }
        if event.is_writable() {
            self.write(slot);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(slot, buffer);
        } else if hung_up {
            // The end arrived before, when there was still something to send.
            self.unread.push(slot);
        }
    }

    /// Reads once from a connection and handles what has arrived.
    fn read(&mut self, slot: usize, buffer: &mut [u8]) {
        let Some(conn) = self.conns.get_mut(slot).filter(|conn| !conn.is_paused()) else {
            return;
        };
        let received = match conn.read(buffer) {
            Ok(None) => return,
            Ok(Some(0)) | Err(_) => return self.handle_end(slot),
            Ok(Some(read)) => &mut buffer[..read],
        };
        if received.len() == READ_BYTES || conn.hung_up {
            self.unread.push(slot);
        }
        // Most frames arrive complete and are handled in the shared buffer.
        let mut partial = mem::take(&mut conn.partial);
        if partial.is_empty() {
            let handled = self.handle(slot, received, 0);
            self.keep(slot, received[handled..].to_vec());
        } else {
            let known = partial.len();
            partial.extend_from_slice(received);
            let handled = self.handle(slot, &mut partial, known);
            partial.drain(..handled);
            self.keep(slot, partial);
        }
    }

    /// Handles what is complete in `bytes`, of which the first `known` arrived before. Returns the length of what was handled.
    fn handle(&mut self, slot: usize, bytes: &mut [u8], known: usize) -> usize {
        match self.conns[slot].state {
            State::Request => match handshake::read(bytes, known) {
                Head::Partial => 0,
                Head::Refused(refusal) => {
                    self.reject(slot, refusal);
                    0
                }
                // Some clients send their first messages with the request.
                Head::Upgrade {
                    length,
                    dialect,
                    response,
                } => {
                    self.upgrade(slot, dialect, &response);
                    length + self.handle_frames(slot, &mut bytes[length..])
                }
            },
            State::Open { .. } => self.handle_frames(slot, bytes),
            State::Ending { .. } => 0,
        }
    }

    /// Keeps what is not complete.
    fn keep(&mut self, slot: usize, rest: Vec<u8>) {
        let conn = &mut self.conns[slot];
        if !rest.is_empty() && !matches!(conn.state, State::Ending { .. }) {
            conn.partial = rest;
        }
    }

    fn upgrade(&mut self, slot: usize, dialect: Dialect, response: &[u8]) {
        let client = self.conns[slot].client;
        let Ok(id) = self.endpoint.connect(self.time(), dialect, client) else {
            return self.reject(slot, Refusal::Unavailable);
        };
        self.slots.insert(id, slot);
        let reader = Reader::default();
        self.conns[slot].state = State::Open { id, reader };
        self.conns.set_due(slot, None);
        self.conns.queue(slot, response);
    }

    /// Handles every complete frame in `bytes` while the connection is open. Returns the length of what was handled.
    fn handle_frames(&mut self, slot: usize, bytes: &mut [u8]) -> usize {
        let limit = self.endpoint.config().limits.message_bytes;
        let mut handled = 0;
        while let State::Open { id, reader } = &mut self.conns[slot].state {
            let id = *id;
            let (length, received) = match reader.next(&mut bytes[handled..], limit) {
                Ok(None) => break,
                Ok(Some(frame)) => frame,
                Err(reason) => {
                    self.report(id, Input::Violation(reason));
                    break;
                }
            };
            handled += length;
            match &received {
                Received::Text(text) => self.report(id, Input::Text(text)),
                Received::Ping(payload) => self.report(id, Input::Ping(payload)),
                Received::Pong => self.report(id, Input::Pong),
                Received::Close(code) => self.report(id, Input::Close(*code)),
                Received::Piece => {}
            }
        }
        handled
    }

    /// Reports an event to the endpoint and carries out the outputs.
    fn report(&mut self, id: ConnId, input: Input<'_>) {
        let outputs = self.endpoint.handle(self.time(), id, input);
        self.carry_out(outputs);
    }

    fn carry_out(&mut self, outputs: Vec<(ConnId, Output)>) {
        for (id, output) in outputs {
            let Some(&slot) = self.slots.get(&id) else { continue };
            match output {
                Output::Send(frame) => {
                    self.conns.send(slot, &frame);
                    if matches!(frame, Frame::Close(_) | Frame::CloseReply(_)) {
                        self.conns[slot].is_stopped = false;
                        self.resume_reading(slot);
                        self.conns[slot].state = State::Ending { id: Some(id) };
                    }
                }
                Output::PauseReading(until) => self.conns.set_due(slot, Some(self.instant(until))),
                Output::StopReading => self.conns[slot].is_stopped = true,
                Output::ResumeReading => {
                    self.conns[slot].is_stopped = false;
                    self.unread.push(slot);
                }
                Output::Abort => self.remove(slot),
                // `ProbeProgress` is for servers that ask the kernel what it has not sent, `PairingEnded` for logs.
                _ => {}
            }
        }
    }

    fn resume_reading(&mut self, slot: usize) {
        if self.conns[slot].is_paused() {
            self.conns.set_due(slot, None);
            self.unread.push(slot);
        }
    }

    fn reject(&mut self, slot: usize, refusal: Refusal) {
        self.conns[slot].state = State::Ending { id: None };
        self.conns.set_due(slot, Some(self.now + REJECT_TIMEOUT));
        self.conns.queue(slot, &refusal.to_bytes());
    }

    /// Handles the end of what a client sends.
    fn handle_end(&mut self, slot: usize) {
        // A client may have closed its sending direction only, and still read its last bytes.
        let conn = &self.conns[slot];
        if !matches!(conn.state, State::Ending { .. }) || !conn.has_outgoing() {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: usize) {
        if let Some(id) = self.conns.remove(slot).id() {
            self.slots.remove(&id);
            self.report(id, Input::Disconnected);
        }
    }

    /// Writes the queued bytes to the sockets.
    fn flush(&mut self) {
        while let Some(slot) = self.conns.pop_unsent() {
            self.write(slot);
        }
    }

    fn write(&mut self, slot: usize) {
        let Some(conn) = self.conns.get_mut(slot) else { return };
        let written = conn.flush();
        if let Some(id) = conn.id() {
            let outputs = self.endpoint.written(self.time(), id, written);
            self.carry_out(outputs);
        }
    }

    /// Stops listening and begins to close the connections.
    fn shut_down(&mut self) {
        // One signal is enough; further ones change nothing.
        let _ = self.signals.read(&mut [0; 16]);
        if let Some(mut listener) = self.listener.take() {
            // Fails only if the socket is no longer registered.
            let _ = self.poll.registry().deregister(&mut listener);
        }
        self.endpoint.drain(self.time(), self.time());
        for slot in self.conns.requests() {
            self.reject(slot, Refusal::Unavailable);
        }
    }

    fn time(&self) -> Time {
        Time::from_duration(self.now.duration_since(self.epoch))
    }

    fn instant(&self, time: Time) -> Instant {
        self.epoch + time.as_duration()
    }
}

/// Listens on `addr`. The unspecified IPv6 address accepts IPv4 as well.
fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit these.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&addr.into())?;
    socket.listen(ACCEPT_QUEUE)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Returns random bits for a generated key.
fn random() -> Option<u128> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).ok().map(|()| u128::from_ne_bytes(bits))
}
