//! The connections of an engine: reads and parses input, dispatches events, and sends.

use std::{io, net::SocketAddr};

use mio::{Registry, Token};
use slab::Slab;

use crate::engine::{
    conn::{Conn, ConnState, Incoming},
    event::{ConnId, DisconnectReason, Event},
    handshake,
};

/// Handles events.
pub trait Handler {
    /// Handles one event of the connection that was created by [`Connections::connect`] with `tag`.
    fn on_event(&mut self, conns: &mut Connections, id: ConnId, tag: u64, event: Event<'_>);
}

/// The connections of an engine.
#[derive(Debug)]
pub struct Connections {
    registry: Registry,
    request: Vec<u8>,
    addr: SocketAddr,
    receive_buffer: Option<usize>,
    pub(super) slots: Slab<Conn>,
    pub(super) resumed: Vec<ConnId>,
    pub(super) closed: Vec<ConnId>,
    last_serial: u64,
}

impl Connections {
    pub(super) fn new(registry: Registry, addr: SocketAddr, request: Vec<u8>) -> Self {
        Self {
            registry,
            request,
            addr,
            receive_buffer: None,
            slots: Slab::new(),
            resumed: Vec::new(),
            closed: Vec::new(),
            last_serial: 0,
        }
    }

    /// Starts to connect. The upgrade request follows.
    ///
    /// # Errors
    /// The error of the system if no socket can be created, for example if descriptors or ports run out.
    pub fn connect(&mut self, tag: u64) -> io::Result<ConnId> {
        let entry = self.slots.vacant_entry();
        self.last_serial += 1;
        let id = ConnId {
            slot: entry.key(),
            serial: self.last_serial,
        };
        entry.insert(Conn::connect(&self.registry, id, self.addr, self.receive_buffer, tag)?);
        Ok(id)
    }

    /// Like [`connect`](Self::connect), with another request path than that of the engine.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    pub fn connect_to(&mut self, tag: u64, path: &str) -> io::Result<ConnId> {
        let id = self.connect(tag)?;
        self.slots[id.slot].request = Some(handshake::request(self.addr, path));
        Ok(id)
    }

    /// Sends encoded, masked frames. Bytes that the socket does not accept are queued.
    pub fn send(&mut self, id: ConnId, frames: &[u8]) {
        if let Some(conn) = self.live_mut(id) {
            conn.send(frames);
        }
    }

    /// Returns the number of queued bytes.
    #[must_use]
    pub fn backlog(&self, id: ConnId) -> usize {
        self.slots
            .get(id.slot)
            .filter(|conn| conn.id == id)
            .map_or(0, Conn::backlog)
    }

    /// Starts the close handshake.
    pub fn close(&mut self, id: ConnId, code: u16) {
        if let Some(conn) = self.live_mut(id) {
            conn.close(&code.to_be_bytes());
        }
    }

    /// Closes the connection immediately, without a close frame and without [`Event::Disconnected`].
    pub fn abort(&mut self, id: ConnId) {
        self.mark_closed(id);
    }

    /// Stops reading, so that the server meets back-pressure.
    pub fn pause(&mut self, id: ConnId) {
        if let Some(conn) = self.live_mut(id) {
            conn.paused = true;
        }
    }

    /// Resumes reading.
    pub fn resume(&mut self, id: ConnId) {
        if let Some(conn) = self.live_mut(id) {
            conn.paused = false;
            self.resumed.push(id);
        }
    }

    /// Gives the connections that are made from now on a receive buffer of this size, in bytes, which the kernel doubles, and segments as on
    /// Ethernet. With the large segments of the loopback device, the window of a small buffer opens in steps that stop the sender.
    pub const fn set_receive_buffer(&mut self, bytes: Option<usize>) {
        self.receive_buffer = bytes;
    }

    /// Allows a connection to read this many more bytes, of which at most `burst` are saved up. The first call limits it; until then it reads
    /// all that arrives.
    pub fn allow_reading(&mut self, id: ConnId, bytes: usize, burst: usize) {
        if let Some(conn) = self.live_mut(id) {
            let is_waiting = conn.allowance == Some(0);
            let allowance = conn.allowance.unwrap_or(0).saturating_add(bytes).min(burst);
            conn.allowance = Some(allowance);
            if is_waiting && allowance > 0 {
                self.resumed.push(id);
            }
        }
    }

    /// Returns the number of connections that are not closed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.closed.len()
    }

    /// Returns whether all connections are closed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn on_writable(&mut self, id: ConnId, handler: &mut impl Handler) {
        let Some(conn) = self
            .slots
            .get_mut(id.slot)
            .filter(|conn| conn.state != ConnState::Closed)
        else {
            return;
        };
        if conn.state == ConnState::Connecting && conn.on_connected() {
            let own = conn.request.take();
            conn.send(own.as_deref().unwrap_or(&self.request));
        }
        if conn.flush() {
            let tag = conn.tag;
            handler.on_event(self, id, tag, Event::Drained);
        }
    }

    fn mark_closed(&mut self, id: ConnId) {
        if let Some(conn) = self.live_mut(id) {
            conn.state = ConnState::Closed;
            self.closed.push(id);
        }
    }

    fn disconnect(&mut self, id: ConnId, reason: DisconnectReason, handler: &mut impl Handler) {
        let Some(tag) = self.live_mut(id).map(|conn| conn.tag) else {
            return;
        };
        self.mark_closed(id);
        handler.on_event(self, id, tag, Event::Disconnected(reason));
    }

    fn live_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.slots
            .get_mut(id.slot)
            .filter(|conn| conn.id == id && conn.state != ConnState::Closed)
    }

    pub(super) fn id_in_slot(&self, token: Token) -> Option<ConnId> {
        self.slots.get(token.0).map(|conn| conn.id)
    }
}

/// Reads a socket once, or until it is empty, and dispatches the events.
pub(super) fn read(
    conns: &mut Connections,
    buffer: &mut [u8],
    id: ConnId,
    until_empty: bool,
    handler: &mut impl Handler,
) {
    loop {
        let Some(conn) = conns.live_mut(id).filter(|conn| conn.may_read()) else {
            return;
        };
        let kept = conn.restore_partial(buffer);
        let room = buffer.len() - kept;
        match conn.read(&mut buffer[kept..]) {
            Ok(0) => return conns.disconnect(id, DisconnectReason::Eof, handler),
            Ok(received) => {
                let filled = kept + received;
                if let Err(reason) = consume(conns, &buffer[..filled], id, handler) {
                    return conns.disconnect(id, reason, handler);
                }
                if received < room && !until_empty {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                conn.save_partial(&buffer[..kept]);
                return;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                conn.save_partial(&buffer[..kept]);
            }
            Err(error) => return conns.disconnect(id, DisconnectReason::Io(error.kind()), handler),
        }
    }
}

/// Parses `bytes` as a response or frames, dispatches the events, and keeps an incomplete rest.
fn consume(
    conns: &mut Connections,
    bytes: &[u8],
    id: ConnId,
    handler: &mut impl Handler,
) -> Result<(), DisconnectReason> {
    let mut used = 0;
    while let Some(conn) = conns.live_mut(id) {
        let rest = &bytes[used..];
        match conn.next_incoming(rest)? {
            Some((taken, incoming)) => {
                used += taken;
                dispatch(&incoming, conns, id, handler);
            }
            None if rest.len() == READ_BUFFER_SIZE => return Err(DisconnectReason::InvalidFrame),
            None => {
                conn.save_partial(rest);
                return Ok(());
            }
        }
    }
    Ok(())
}

fn dispatch(incoming: &Incoming<'_>, conns: &mut Connections, id: ConnId, handler: &mut impl Handler) {
    let Some(tag) = conns.live_mut(id).map(|conn| conn.tag) else {
        return;
    };
    let event = match incoming {
        Incoming::Upgraded => Event::Upgraded,
        Incoming::Message(body) => Event::Message(body),
        Incoming::Assembled(body) => Event::Message(body),
        Incoming::Pong(body) => Event::Pong(body),
        Incoming::Close(code) => Event::Close(*code),
        Incoming::Fragment | Incoming::Ping => return,
    };
    handler.on_event(conns, id, tag, event);
}

/// Size of one read, and the maximum length of a received frame, in bytes.
pub(super) const READ_BUFFER_SIZE: usize = 256 * 1024;
