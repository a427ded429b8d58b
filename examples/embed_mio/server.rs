//! The loop: it owns the [`Hub`], tells it what happened, and does what it says. It waits in one place only.
//!
//! mio tells of edges: a change is told once. A read that did not fill its buffer has emptied the socket, and what
//! comes later is told; unless the client has hung up, for then nothing comes later, and the end is still to be read. A
//! read that did fill it is repeated in the next turn, when all others have had theirs ([`Server::unread`]). A write is
//! told of only when the kernel has refused one.

use std::{
    collections::VecDeque,
    io::{self, Read},
    mem,
    net::SocketAddr,
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
use sigver_core::{CloseReason, ConnId, Dialect, Encoded, Hub, OutboundMessage, Time};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    conn::Stage,
    conns::{Conns, Overflow},
    frame::{Frame, Reader, Received},
    handshake::{self, Head, Refusal},
    options::Options,
};

pub(crate) struct Server {
    poll: Poll,
    /// `None` when the server ends.
    listener: Option<TcpListener>,
    /// Readable when a signal has asked for the end.
    signals: UnixStream,
    hub: Hub,
    /// Every connection from its first byte to its last: before the hub knows it, and after.
    conns: Conns,
    /// The place in `conns` of each connection that the hub knows, by its [`ConnId::slot`].
    places: Vec<usize>,
    /// Connections whose sockets may have more to read than was read.
    unread: Vec<usize>,
    /// When to accept again without being told to.
    accept_at: Option<Instant>,
    /// What [`Hub`]'s time counts from.
    epoch: Instant,
    /// When this turn began.
    now: Instant,
    /// Scratch space.
    text: String,
}

const LISTENER: Token = Token(usize::MAX);
const SIGNALS: Token = Token(usize::MAX - 1);

/// How much of one connection is read in a turn, and so for how long it can keep the others waiting.
const READ_BYTES: usize = 16 * 1024;

/// Connections that the kernel completes before they are accepted, and how many of them are accepted in a turn.
const BACKLOG: i32 = 4096;
const ACCEPTS: usize = 64;

/// What the kernel buffers for a client that does not read; it doubles this. Left alone, it may grow to 4 MiB.
const SEND_BUFFER: usize = 128 * 1024;

/// Descriptors for all that is no connection, and for connections that are told that there are too many.
const OTHER_FILES: u64 = 64;

/// How long accepting pauses when descriptors or memory have run out.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// How long a client may take to send its request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a client is pinged. One without a whole message, pongs included, for two of these is closed.
const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// How long a client may take to close its side once it was given its close frame, or its refusal.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

impl Server {
    pub(crate) fn bind(options: Options) -> io::Result<Self> {
        let Options {
            listen: addr,
            mut limits,
        } = options;
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let most = files.saturating_sub(OTHER_FILES).try_into().unwrap_or(u32::MAX);
        limits.connections = limits.connections.min(most);

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
            hub: Hub::new(limits),
            places: Vec::new(),
            unread: Vec::new(),
            accept_at: None,
            epoch: now,
            now,
            text: String::new(),
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.as_ref().ok_or(io::ErrorKind::NotConnected)?.local_addr()
    }

    /// Serves until a signal asks for the end and the last connection is gone.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        // All connections share one buffer, so that one that is idle has none.
        let mut buffer = vec![0; READ_BYTES];
        while self.listener.is_some() || !self.conns.is_empty() {
            match self.poll.poll(&mut events, self.patience()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            self.now = Instant::now();
            let unread = mem::take(&mut self.unread);
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    SIGNALS => self.shut_down(),
                    Token(place) => self.serve(place, event, &mut buffer),
                }
                self.conns.send_all();
            }
            // Where a connection is gone and another has its place, that one is read for nothing, which does no harm.
            for place in unread {
                self.read(place, &mut buffer);
                self.conns.send_all();
            }
            self.handle_time();
            self.conns.send_all();
        }
        Ok(())
    }

    /// How long to wait for events; `None` for ever.
    fn patience(&self) -> Option<Duration> {
        if !self.unread.is_empty() {
            return Some(Duration::ZERO);
        }
        let hub = self.hub.poll_timeout().map(|time| self.epoch + time.elapsed());
        let conns = self.conns.next_due().map(|(due, _)| due);
        let first = [hub, conns, self.accept_at].into_iter().flatten().min()?;
        Some(first.saturating_duration_since(self.now))
    }

    /// Does what is due.
    fn handle_time(&mut self) {
        if self.accept_at.is_some_and(|at| at <= self.now) {
            self.accept();
        }
        let outputs = self.hub.handle_timeout(self.time());
        self.deliver(outputs);
        while let Some((due, place)) = self.conns.next_due() {
            if due > self.now {
                break;
            }
            self.handle_due(place);
        }
    }

    /// Does what is due on a connection, which sets it another time, or removes it.
    fn handle_due(&mut self, place: usize) {
        let conn = &self.conns[place];
        match conn.stage {
            Stage::Head => self.refuse(place, Refusal::TooSlow),
            Stage::Open { id, .. } if self.now.duration_since(conn.heard) >= KEEP_ALIVE * 2 => {
                let outputs = self.hub.close(id, CloseReason::Silent);
                self.deliver(outputs);
            }
            Stage::Open { id, .. } => {
                self.conns.set_due(place, self.now + KEEP_ALIVE);
                self.send_control(place, id, Frame::Ping);
            }
            Stage::Ending => drop(self.conns.remove(place)),
        }
    }

    fn accept(&mut self) {
        self.accept_at = None;
        for _ in 0..ACCEPTS {
            let Some(listener) = &self.listener else { return };
            match listener.accept() {
                Ok((stream, _)) => {
                    // Fails where the poll has no memory for it, and then there is no serving it.
                    let _ = self.conns.insert(stream, self.now, self.now + HEAD_TIMEOUT);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    // The client was gone before it was accepted.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                    // Out of descriptors or memory, which is not told when it is over.
                    _ => {
                        self.accept_at = Some(self.now + EXHAUSTED_PAUSE);
                        return;
                    }
                },
            }
        }
        self.accept_at = Some(self.now);
    }

    /// Does what an event asks for.
    fn serve(&mut self, place: usize, event: &Event, buffer: &mut [u8]) {
        let Some(conn) = self.conns.get_mut(place) else { return };
        conn.hung_up |= event.is_read_closed();
        if event.is_writable() {
            conn.flush();
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(place, buffer);
        } else if conn.hung_up {
            // Its end came before, when there was still something to send.
            self.unread.push(place);
        }
    }

    /// Reads once from a connection, and does what follows.
    fn read(&mut self, place: usize, buffer: &mut [u8]) {
        let Some(conn) = self.conns.get_mut(place) else { return };
        let received = match conn.read(buffer) {
            Ok(None) => return,
            Ok(Some(0)) | Err(_) => return self.lose(place),
            Ok(Some(read)) => &mut buffer[..read],
        };
        if received.len() == READ_BYTES || conn.hung_up {
            self.unread.push(place);
        }
        // Nearly always what comes is whole, and is handled where it lies.
        let mut partial = mem::take(&mut conn.partial);
        if partial.is_empty() {
            let handled = self.handle(place, received, 0);
            self.keep(place, received[handled..].to_vec());
        } else {
            let known = partial.len();
            partial.extend_from_slice(received);
            let handled = self.handle(place, &mut partial, known);
            partial.drain(..handled);
            self.keep(place, partial);
        }
    }

    /// Handles what is whole in `bytes`, of which the first `known` came before, and says how much that is.
    fn handle(&mut self, place: usize, bytes: &mut [u8], known: usize) -> usize {
        match self.conns[place].stage {
            Stage::Head => match handshake::read(bytes, known) {
                Head::Partial => 0,
                Head::Refused(refusal) => {
                    self.refuse(place, refusal);
                    0
                }
                // Whoever does not wait for the answer has sent messages behind the head.
                Head::Upgrade {
                    length,
                    dialect,
                    response,
                } => {
                    self.upgrade(place, dialect, &response);
                    length + self.handle_frames(place, &mut bytes[length..])
                }
            },
            Stage::Open { .. } => self.handle_frames(place, bytes),
            Stage::Ending => 0,
        }
    }

    /// Keeps what is not whole. An empty `rest` is dropped, and the memory that it may have with it.
    fn keep(&mut self, place: usize, rest: Vec<u8>) {
        let conn = &mut self.conns[place];
        if !rest.is_empty() && !matches!(conn.stage, Stage::Ending) {
            conn.partial = rest;
        }
    }

    fn upgrade(&mut self, place: usize, dialect: Dialect, response: &[u8]) {
        let Ok(id) = self.hub.connect(self.time(), dialect.profile()) else {
            return self.refuse(place, Refusal::Unavailable);
        };
        if self.places.len() <= id.slot() {
            self.places.resize(id.slot() + 1, usize::MAX);
        }
        self.places[id.slot()] = place;
        let conn = &mut self.conns[place];
        conn.heard = self.now;
        conn.stage = Stage::Open {
            id,
            dialect,
            reader: Reader::default(),
        };
        self.conns.set_due(place, self.now + KEEP_ALIVE);
        self.conns.put(place, response);
    }

    /// Handles every whole frame in `bytes`, for as long as the connection is open, and says how long they were.
    fn handle_frames(&mut self, place: usize, bytes: &mut [u8]) -> usize {
        let limit = self.hub.limits().message_bytes;
        let mut handled = 0;
        while let Stage::Open { id, dialect, reader } = &mut self.conns[place].stage {
            let (id, dialect) = (*id, *dialect);
            match reader.next(&mut bytes[handled..], limit) {
                Ok(None) => break,
                Ok(Some((length, received))) => {
                    handled += length;
                    self.take_in(place, id, dialect, received);
                }
                Err(reason) => {
                    let outputs = self.hub.close(id, reason);
                    self.deliver(outputs);
                }
            }
        }
        handled
    }

    fn take_in(&mut self, place: usize, id: ConnId, dialect: Dialect, received: Received<'_>) {
        if !matches!(received, Received::Piece) {
            self.conns[place].heard = self.now;
        }
        match received {
            Received::Text(text) => {
                let outputs = match dialect.decode(&text, self.hub.limits(), random) {
                    Ok(message) => self.hub.handle(id, message),
                    Err(reason) => self.hub.close(id, reason),
                };
                self.deliver(outputs);
            }
            Received::Ping(payload) => self.send_control(place, id, Frame::Pong(payload)),
            Received::Piece | Received::Pong => {}
            Received::Close(code) => {
                self.finish(place, Frame::CloseEcho(code));
                let outputs = self.hub.disconnect(id);
                self.deliver(outputs);
            }
        }
    }

    /// Sends everything that follows from one call into the hub, and all that follows from that.
    fn deliver(&mut self, outputs: Vec<(ConnId, OutboundMessage)>) {
        let mut outputs = VecDeque::from(outputs);
        while let Some((to, message)) = outputs.pop_front() {
            // One that was closed as too slow while its messages waited here has no use for them.
            let Some(place) = self.place(to) else { continue };
            let Stage::Open { dialect, .. } = self.conns[place].stage else {
                continue;
            };
            self.text.clear();
            match dialect.encode(&message, &mut self.text) {
                Encoded::Nothing => {}
                Encoded::Text => match self.conns.send(place, Frame::Text(&self.text)) {
                    Ok(()) => {}
                    Err(Overflow) => outputs.extend(self.hub.close(to, CloseReason::TooSlow)),
                },
                Encoded::Close(reason) => self.finish(place, Frame::Close(reason)),
            }
        }
    }

    /// Sends a frame that is not the hub's.
    fn send_control(&mut self, place: usize, id: ConnId, frame: Frame<'_>) {
        if let Err(Overflow) = self.conns.send(place, frame) {
            let outputs = self.hub.close(id, CloseReason::TooSlow);
            self.deliver(outputs);
        }
    }

    fn finish(&mut self, place: usize, last: Frame<'_>) {
        self.conns.finish(place, &last.to_bytes(), self.now + CLOSE_TIMEOUT);
    }

    fn refuse(&mut self, place: usize, refusal: Refusal) {
        self.conns
            .finish(place, &refusal.to_bytes(), self.now + REFUSAL_TIMEOUT);
    }

    /// The socket has ended.
    fn lose(&mut self, place: usize) {
        let conn = &self.conns[place];
        // A client may have closed only its own direction, and still wait for what was sent to it.
        if matches!(conn.stage, Stage::Ending) && !conn.outgoing.is_empty() {
            return;
        }
        if let Stage::Open { id, .. } = self.conns.remove(place).stage {
            let outputs = self.hub.disconnect(id);
            self.deliver(outputs);
        }
    }

    /// Where the connection is that the hub calls `id`, if it is open.
    fn place(&self, id: ConnId) -> Option<usize> {
        let place = *self.places.get(id.slot())?;
        matches!(self.conns.get(place)?.stage, Stage::Open { id: its, .. } if its == id).then_some(place)
    }

    /// Takes no further connection and closes every one there is. The loop ends with the last of them.
    fn shut_down(&mut self) {
        // What was written does not matter, and that there is no more is not waited for: one signal is enough.
        let _ = self.signals.read(&mut [0; 16]);
        if let Some(mut listener) = self.listener.take() {
            // Fails only where the poll does not know the socket any more.
            let _ = self.poll.registry().deregister(&mut listener);
        }
        let outputs = self.hub.shutdown();
        self.deliver(outputs);
        for place in self.conns.heads() {
            self.refuse(place, Refusal::Unavailable);
        }
    }

    fn time(&self) -> Time {
        Time::since_epoch(self.now.duration_since(self.epoch))
    }
}

/// Listens on `addr`; the unspecified IPv6 address takes IPv4 as well.
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
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// 128 bits for a key that nobody can guess.
fn random() -> Option<u128> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).ok().map(|()| u128::from_ne_bytes(bits))
}
