//! All connections of an engine: reading, cutting into frames, sending.

use std::{io, net::SocketAddr};

use mio::{Registry, Token};
use slab::Slab;

use crate::engine::{
    conn::{Conn, Item, Stage},
    event::{ConnId, Ending, Event},
};

/// What to do about events.
pub trait Handler {
    /// Called once per event. `tag` is what [`Connections::connect`] was given.
    fn on_event(&mut self, conns: &mut Connections, id: ConnId, tag: u64, event: Event<'_>);
}

/// All connections of an engine.
#[derive(Debug)]
pub struct Connections {
    registry: Registry,
    request: Vec<u8>,
    addr: SocketAddr,
    pub(super) slots: Slab<Conn>,
    pub(super) resumed: Vec<ConnId>,
    pub(super) finished: Vec<ConnId>,
    connects: u64,
}

impl Connections {
    pub(super) fn new(registry: Registry, addr: SocketAddr, request: Vec<u8>) -> Self {
        Self {
            registry,
            request,
            addr,
            slots: Slab::new(),
            resumed: Vec::new(),
            finished: Vec::new(),
            connects: 0,
        }
    }

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

    pub(super) fn on_writable(&mut self, id: ConnId, handler: &mut impl Handler) {
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

    pub(super) fn in_slot(&self, token: Token) -> Option<ConnId> {
        self.slots.get(token.0).map(|conn| conn.id)
    }
}

/// Reads a socket and hands out what came: once, or until there is no more.
pub(super) fn read(
    conns: &mut Connections,
    buffer: &mut [u8],
    id: ConnId,
    until_empty: bool,
    handler: &mut impl Handler,
) {
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
                hand_out(&item, conns, id, handler);
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

fn hand_out(item: &Item<'_>, conns: &mut Connections, id: ConnId, handler: &mut impl Handler) {
    let Some(tag) = conns.live(id).map(|conn| conn.tag) else {
        return;
    };
    let event = match item {
        Item::Upgraded => Event::Upgraded,
        Item::Message(body) => Event::Message(body),
        Item::Assembled(body) => Event::Message(body),
        Item::Pong(body) => Event::Pong(body),
        Item::Close(code) => Event::Close(*code),
        Item::Fragment | Item::Ping => return,
    };
    handler.on_event(conns, id, tag, event);
}

/// Read at once, and so the largest frame that can be received.
pub(super) const BUFFER: usize = 256 * 1024;
