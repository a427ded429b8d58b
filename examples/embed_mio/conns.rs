//! All connections, with their timers and their registration in the poll.
//!
//! Bytes are queued first and sent after each read, by [`Server::flush`](crate::server::Server): many small messages that arrive at once
//! cost one system call for each recipient.

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

use crate::conn::{Conn, State};

pub(crate) struct Conns {
    registry: Registry,
    /// The slot of a connection is its mio token.
    slots: Slab<Conn>,
    /// [`Conn::due`] and the slot of each connection that has a timeout.
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

    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut Conn> {
        self.slots.get_mut(slot)
    }

    /// Returns the connections whose request heads are not complete.
    pub(crate) fn requests(&self) -> Vec<usize> {
        let requests = self
            .slots
            .iter()
            .filter(|(_, conn)| matches!(conn.state, State::Request));
        requests.map(|(slot, _)| slot).collect()
    }

    /// Adds a connection and registers it once for both directions. Events that are not needed are ignored.
    pub(crate) fn insert(&mut self, mut stream: TcpStream, client: IpAddr, due: Instant) -> io::Result<()> {
        let entry = self.slots.vacant_entry();
        let slot = entry.key();
        let both = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut stream, Token(slot), both)?;
        entry.insert(Conn::new(stream, client, due));
        self.timers.insert((due, slot));
        Ok(())
    }

    pub(crate) fn remove(&mut self, slot: usize) -> Conn {
        self.set_due(slot, None);
        let mut conn = self.slots.remove(slot);
        // Fails only if the socket is no longer registered.
        let _ = self.registry.deregister(&mut conn.stream);
        conn
    }

    /// Returns the next timeout and its connection.
    pub(crate) fn next_due(&self) -> Option<(Instant, usize)> {
        self.timers.first().copied()
    }

    pub(crate) fn set_due(&mut self, slot: usize, due: Option<Instant>) {
        let before = mem::replace(&mut self[slot].due, due);
        if let Some(before) = before {
            self.timers.remove(&(before, slot));
        }
        if let Some(due) = due {
            self.timers.insert((due, slot));
        }
    }

    pub(crate) fn send(&mut self, slot: usize, frame: &Frame) {
        self.mark_unsent(slot);
        self[slot].queue_frame(frame);
    }

    pub(crate) fn queue(&mut self, slot: usize, bytes: &[u8]) {
        self.mark_unsent(slot);
        self[slot].queue(bytes);
    }

    /// Returns a connection to flush. It may have been removed.
    pub(crate) fn pop_unsent(&mut self) -> Option<usize> {
        self.unsent.pop()
    }

    /// If bytes wait already, the connection is marked or waits for the kernel.
    fn mark_unsent(&mut self, slot: usize) {
        if !self[slot].has_outgoing() {
            self.unsent.push(slot);
        }
    }
}

impl Index<usize> for Conns {
    type Output = Conn;

    fn index(&self, slot: usize) -> &Conn {
        &self.slots[slot]
    }
}

impl IndexMut<usize> for Conns {
    fn index_mut(&mut self, slot: usize) -> &mut Conn {
        &mut self.slots[slot]
    }
}
