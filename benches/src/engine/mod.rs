//! A client engine: very many plain connections on one thread.
//!
//! ```text
//!   Engine::poll ──► socket ready ──► read, cut into frames ──► Handler::on_event(&mut Connections, ..)
//!                                                                   │
//!                    socket   ◄── one write, or a backlog ◄── Connections::send
//! ```
//!
//! Owns sockets, partial frames and backlogs. It answers pings and close frames, and puts fragments together; it
//! never reads what a message says, never reconnects, and knows no clock: modes do. Tested against the yardstick by
//! `tests/yardstick.rs`.

pub mod handshake;

mod conn;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mio::{Events, Poll, Registry, Token};
use slab::Slab;

use conn::{Conn, Stage};

/// Where to connect to.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The server's address.
    pub addr: SocketAddr,
    /// The path of the upgrade request.
    pub path: String,
}

/// A connection of one [`Engine`], never used for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    slot: usize,
    serial: u64,
}

/// What a connection has to say.
#[derive(Debug)]
pub enum Event<'a> {
    /// The server agreed: messages may be sent.
    Upgraded,
    /// A whole text (or binary) message.
    Message(&'a [u8]),
    /// The answer to a ping, with its body.
    Pong(&'a [u8]),
    /// The server's close frame. If it came first, it has been answered.
    Close(Option<u16>),
    /// A backlog has been written out: more can be sent.
    Drained,
    /// The connection is no more. Nothing follows.
    Ended(Ending),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The server closed the stream.
    Eof,
    /// The server sent what is no frame, or a frame beyond the engine's buffer.
    Malformed,
    /// The server answered the upgrade with this status.
    Refused(u16),
    /// The stream broke, or was never made.
    Broken(io::ErrorKind),
}

/// What to do about events.
pub trait Handler {
    /// Called once per event. `tag` is what [`Connections::connect`] was given.
    fn on_event(&mut self, conns: &mut Connections, id: ConnId, tag: u64, event: Event<'_>);
}

/// The event loop.
#[derive(Debug)]
pub struct Engine {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    conns: Connections,
    stop: Arc<AtomicBool>,
}

impl Engine {
    /// Makes an engine without connections. Once `stop` is true, [`Engine::poll`] fails: so a signal ends a run
    /// through the ordinary way out.
    ///
    /// # Errors
    /// Those of making an epoll instance or its like.
    pub fn new(endpoint: &Endpoint, stop: Arc<AtomicBool>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            buffer: vec![0; BUFFER],
            conns: Connections {
                registry,
                request: handshake::request(endpoint.addr, &endpoint.path),
                addr: endpoint.addr,
                slots: Slab::new(),
                resumed: Vec::new(),
                finished: Vec::new(),
                connects: 0,
            },
            stop,
        })
    }

    /// The connections, for sending outside of a handler.
    pub fn conns(&mut self) -> &mut Connections {
        &mut self.conns
    }

    /// Waits for events, at most `timeout`, and hands each of them to `handler`.
    ///
    /// # Errors
    /// Those of waiting, and `Interrupted` once the engine's stop flag is set.
    pub fn poll(&mut self, timeout: Duration, handler: &mut impl Handler) -> io::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
        }
        let timeout = if self.conns.resumed.is_empty() {
            timeout
        } else {
            Duration::ZERO
        };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &self.events {
            let Some(id) = self.conns.in_slot(event.token()) else {
                continue;
            };
            if event.is_writable() {
                self.conns.on_writable(id, handler);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                // A short read has emptied the socket, but of an end that was there already no event will come.
                let until_empty = event.is_read_closed() || event.is_error();
                read(&mut self.conns, &mut self.buffer, id, until_empty, handler);
            }
        }
        for id in std::mem::take(&mut self.conns.resumed) {
            read(&mut self.conns, &mut self.buffer, id, true, handler);
        }
        // Slots are freed only now: an event of this batch must not meet a newer connection in an old slot.
        for id in std::mem::take(&mut self.conns.finished) {
            // Closing the descriptor takes it out of the poll as well.
            drop(self.conns.slots.try_remove(id.slot));
        }
        Ok(())
    }
}

/// All connections of an engine.
#[derive(Debug)]
pub struct Connections {
    registry: Registry,
    request: Vec<u8>,
    addr: SocketAddr,
    slots: Slab<Conn>,
    resumed: Vec<ConnId>,
    finished: Vec<ConnId>,
    connects: u64,
}

impl Connections {
    /// Starts to connect and to upgrade.
    ///
    /// # Errors
    /// Those of making a socket: no descriptors or no ports left, mostly.
    pub fn connect(&mut self, tag: u64) -> io::Result<ConnId> {
        let entry = self.slots.vacant_entry();
        self.connects += 1;
        let id = ConnId {
            slot: entry.key(),
            serial: self.connects,
        };
        entry.insert(Conn::connect(&self.registry, id, self.addr, tag)?);
        Ok(id)
    }

    /// Sends frames that are built and masked already. What the socket does not take is kept and sent later.
    pub fn send(&mut self, id: ConnId, frames: &[u8]) {
        if let Some(conn) = self.live(id) {
            conn.send(frames);
        }
    }

    /// Bytes that wait for the socket.
    #[must_use]
    pub fn backlog(&self, id: ConnId) -> usize {
        self.slots
            .get(id.slot)
            .filter(|conn| conn.id == id)
            .map_or(0, Conn::backlog)
    }

    /// Starts the close handshake.
    pub fn close(&mut self, id: ConnId, code: u16) {
        if let Some(conn) = self.live(id) {
            conn.close(&code.to_be_bytes());
        }
    }

    /// Drops the connection without a word: no close frame, and no [`Event::Ended`] either.
    pub fn abandon(&mut self, id: ConnId) {
        self.finish(id);
    }

    /// Stops reading, so that the server's writes run into a full socket.
    pub fn pause(&mut self, id: ConnId) {
        if let Some(conn) = self.live(id) {
            conn.paused = true;
        }
    }

    /// Reads again, starting with what came meanwhile.
    pub fn resume(&mut self, id: ConnId) {
        if let Some(conn) = self.live(id) {
            conn.paused = false;
            self.resumed.push(id);
        }
    }

    /// How many connections are not yet ended.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.finished.len()
    }

    /// Whether every connection has ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn on_writable(&mut self, id: ConnId, handler: &mut impl Handler) {
        let Some(conn) = self.slots.get_mut(id.slot).filter(|conn| conn.stage != Stage::Ended) else {
            return;
        };
        if conn.stage == Stage::Connecting && conn.on_connected() {
            conn.send(&self.request);
        }
        if conn.flush() {
            let tag = conn.tag;
            handler.on_event(self, id, tag, Event::Drained);
        }
    }

    fn finish(&mut self, id: ConnId) {
        if let Some(conn) = self.live(id) {
            conn.stage = Stage::Ended;
            self.finished.push(id);
        }
    }

    fn end(&mut self, id: ConnId, ending: Ending, handler: &mut impl Handler) {
        let Some(tag) = self.live(id).map(|conn| conn.tag) else {
            return;
        };
        self.finish(id);
        handler.on_event(self, id, tag, Event::Ended(ending));
    }

    fn live(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.slots
            .get_mut(id.slot)
            .filter(|conn| conn.id == id && conn.stage != Stage::Ended)
    }

    fn in_slot(&self, token: Token) -> Option<ConnId> {
        self.slots.get(token.0).map(|conn| conn.id)
    }
}

/// Reads a socket and hands out what came: once, or until there is no more.
fn read(conns: &mut Connections, buffer: &mut [u8], id: ConnId, until_empty: bool, handler: &mut impl Handler) {
    loop {
        let Some(conn) = conns.live(id).filter(|conn| !conn.paused) else {
            return;
        };
        let kept = conn.take_partial(buffer);
        let room = buffer.len() - kept;
        match conn.read(&mut buffer[kept..]) {
            Ok(0) => return conns.end(id, Ending::Eof, handler),
            Ok(received) => {
                let filled = kept + received;
                if let Err(ending) = consume(conns, &buffer[..filled], id, handler) {
                    return conns.end(id, ending, handler);
                }
                if received < room && !until_empty {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                conn.keep_partial(&buffer[..kept]);
                return;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                conn.keep_partial(&buffer[..kept]);
            }
            Err(error) => return conns.end(id, Ending::Broken(error.kind()), handler),
        }
    }
}

/// Cuts `bytes` into a response or frames, hands them out, and keeps what is not whole yet.
fn consume(conns: &mut Connections, bytes: &[u8], id: ConnId, handler: &mut impl Handler) -> Result<(), Ending> {
    let mut used = 0;
    while let Some(conn) = conns.live(id) {
        let rest = &bytes[used..];
        match conn.next_item(rest)? {
            Some((taken, item)) => {
                used += taken;
                item.hand_out(conns, id, handler);
            }
            None if rest.len() == BUFFER => return Err(Ending::Malformed),
            None => {
                conn.keep_partial(rest);
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Read at once, and so the largest frame that can be received.
const BUFFER: usize = 256 * 1024;
