//! All connections, with their timers and their places in the poll. Never knows the hub, and never decides to close.
//!
//! Bytes to a client are first put together. They are sent by [`Conns::send_all`], after each read: a client that sends
//! many small messages at once costs one system call for each of its peers, not for each of its messages.

use std::{
    collections::BTreeSet,
    io, mem,
    ops::{Index, IndexMut},
    time::Instant,
};

use mio::{Interest, Registry, Token, net::TcpStream};
use slab::Slab;

use crate::{
    conn::{Conn, Stage},
    frame::Frame,
};

pub(crate) struct Conns {
    registry: Registry,
    /// A connection's place is its mio token.
    slots: Slab<Conn>,
    /// [`Conn::due`] and the place of every connection.
    timers: BTreeSet<(Instant, usize)>,
    /// Connections with bytes that the kernel has not been given.
    unsent: Vec<usize>,
}

/// The client reads too slowly, and its backlog is full. The frame is lost, so the connection has to be closed.
#[derive(Debug)]
pub(crate) struct Overflow;

/// How many bytes wait in memory for a client that does not read, behind those that wait in the kernel.
const BACKLOG_BYTES: usize = 1024 * 1024;

impl Conns {
    pub(crate) fn new(registry: Registry) -> Self {
        Self {
            registry,
            slots: Slab::new(),
            timers: BTreeSet::new(),
            unsent: Vec::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Conn> {
        self.slots.get(place)
    }

    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut Conn> {
        self.slots.get_mut(place)
    }

    /// The connections whose heads have not come.
    pub(crate) fn heads(&self) -> Vec<usize> {
        let heads = self.slots.iter().filter(|(_, conn)| matches!(conn.stage, Stage::Head));
        heads.map(|(place, _)| place).collect()
    }

    /// Takes in a connection. Both directions are registered once and for all: edges that nobody waits for cost
    /// nothing.
    pub(crate) fn insert(&mut self, mut stream: TcpStream, now: Instant, due: Instant) -> io::Result<()> {
        let entry = self.slots.vacant_entry();
        let place = entry.key();
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut stream, Token(place), both)?;
        entry.insert(Conn::new(stream, now, due));
        self.timers.insert((due, place));
        Ok(())
    }

    pub(crate) fn remove(&mut self, place: usize) -> Conn {
        let mut conn = self.slots.remove(place);
        self.timers.remove(&(conn.due, place));
        // Fails only where the poll does not know the socket any more.
        let _ = self.registry.deregister(&mut conn.stream);
        conn
    }

    /// Which connection has something due next, and when.
    pub(crate) fn next_due(&self) -> Option<(Instant, usize)> {
        self.timers.first().copied()
    }

    pub(crate) fn set_due(&mut self, place: usize, due: Instant) {
        let before = mem::replace(&mut self[place].due, due);
        self.timers.remove(&(before, place));
        self.timers.insert((due, place));
    }

    /// Sends a frame, unless too much waits already.
    pub(crate) fn send(&mut self, place: usize, frame: Frame<'_>) -> Result<(), Overflow> {
        if self[place].outgoing.len() > BACKLOG_BYTES {
            return Err(Overflow);
        }
        self.begin_sending(place);
        frame.write(&mut self[place].outgoing);
        Ok(())
    }

    /// Sends bytes, whatever waits.
    pub(crate) fn put(&mut self, place: usize, bytes: &[u8]) {
        self.begin_sending(place);
        self[place].outgoing.extend(bytes);
    }

    /// Sends the last bytes, whatever waits. The client then has until `due` to take them and to close its side.
    pub(crate) fn finish(&mut self, place: usize, last: &[u8], due: Instant) {
        self[place].stage = Stage::Ending;
        self.set_due(place, due);
        self.put(place, last);
    }

    /// Gives the kernel what has come together.
    pub(crate) fn send_all(&mut self) {
        while let Some(place) = self.unsent.pop() {
            // It may be gone; then another one in its place, if there is one, is flushed for nothing, which does no
            // harm.
            if let Some(conn) = self.slots.get_mut(place) {
                conn.flush();
            }
        }
    }

    /// Sees to it that what is about to be outgoing is sent. What waits already waits for the kernel, or has been seen
    /// to.
    fn begin_sending(&mut self, place: usize) {
        if self[place].outgoing.is_empty() {
            self.unsent.push(place);
        }
    }
}

impl Index<usize> for Conns {
    type Output = Conn;

    fn index(&self, place: usize) -> &Conn {
        &self.slots[place]
    }
}

impl IndexMut<usize> for Conns {
    fn index_mut(&mut self, place: usize) -> &mut Conn {
        &mut self.slots[place]
    }
}
