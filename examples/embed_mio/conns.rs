//! All connections, with their timers and their registration in the poll.
//!
//! Bytes are queued first and sent after each read, by [`Server::flush`](crate::server::Server): many small messages that arrive at once
//! cost one system call for each of their recipients.

use std::{
    collections::BTreeSet,
    io, mem,
    net::IpAddr,
    ops::{Index, IndexMut},
    time::Instant,
};

use mio::{Interest, Registry, Token, net::TcpStream};
use sigver_core::Frame;
use slab::Slab;

use crate::conn::{Conn, Stage};

pub(crate) struct Conns {
    registry: Registry,
    /// The position of a connection is its mio token.
    slots: Slab<Conn>,
    /// [`Conn::due`] and the position of each connection that has one.
    timers: BTreeSet<(Instant, usize)>,
    /// Connections with bytes that were not passed to the kernel.
    unsent: Vec<usize>,
}

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

    pub(crate) fn get_mut(&mut self, place: usize) -> Option<&mut Conn> {
        self.slots.get_mut(place)
    }

    /// Returns the connections whose request heads are not complete.
    pub(crate) fn requests(&self) -> Vec<usize> {
        let requests = self
            .slots
            .iter()
            .filter(|(_, conn)| matches!(conn.stage, Stage::Request));
        requests.map(|(place, _)| place).collect()
    }

    /// Adds a connection. It is registered once for both directions: edges that nobody waits for cost nothing.
    pub(crate) fn insert(&mut self, mut stream: TcpStream, client: IpAddr, due: Instant) -> io::Result<()> {
        let entry = self.slots.vacant_entry();
        let place = entry.key();
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut stream, Token(place), both)?;
        entry.insert(Conn::new(stream, client, due));
        self.timers.insert((due, place));
        Ok(())
    }

    pub(crate) fn remove(&mut self, place: usize) -> Conn {
        self.set_due(place, None);
        let mut conn = self.slots.remove(place);
        // Fails only if the poll no longer knows the socket.
        let _ = self.registry.deregister(&mut conn.stream);
        conn
    }

    /// Returns when the next stage times out, and its connection.
    pub(crate) fn next_due(&self) -> Option<(Instant, usize)> {
        self.timers.first().copied()
    }

    pub(crate) fn set_due(&mut self, place: usize, due: Option<Instant>) {
        let before = mem::replace(&mut self[place].due, due);
        if let Some(before) = before {
            self.timers.remove(&(before, place));
        }
        if let Some(due) = due {
            self.timers.insert((due, place));
        }
    }

    pub(crate) fn send(&mut self, place: usize, frame: &Frame) {
        self.mark_unsent(place);
        self[place].put_frame(frame);
    }

    pub(crate) fn put(&mut self, place: usize, bytes: &[u8]) {
        self.mark_unsent(place);
        self[place].put(bytes);
    }

    /// Returns a connection to flush. It may be gone.
    pub(crate) fn pop_unsent(&mut self) -> Option<usize> {
        self.unsent.pop()
    }

    /// If bytes wait already, the connection is marked or waits for the kernel.
    fn mark_unsent(&mut self, place: usize) {
        if !self[place].has_outgoing() {
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
