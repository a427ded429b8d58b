//! A WebSocket client engine: many connections of the plain protocol on one thread.
//!
//! ```text
//!   Engine::poll ──► socket ready ──► read, parse frames   ──► Handler::on_event(&mut Connections, ..)
//!                                                                   │
//!                    socket   ◄── one write, or a backlog ◄── Connections::send
//! ```
//!
//! The engine answers pings and close frames and reassembles fragments. It does not interpret messages, reconnect, or
//! keep time; the modes of `load` do. `tests/engine.rs` tests it.

pub mod connections;
pub mod event;
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

use mio::{Events, Poll};

use connections::{Connections, Handler, READ_BUFFER_SIZE, read};

/// Address and path of a server.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The server's address.
    pub addr: SocketAddr,
    /// The path of the upgrade request.
    pub path: String,
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
    /// Creates an engine without connections. If `stop` is set, [`Engine::poll`] fails, so that a signal handler can
    /// end a run.
    ///
    /// # Errors
    /// The error of the system if no event queue (epoll or similar) can be created.
    pub fn new(endpoint: &Endpoint, stop: Arc<AtomicBool>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let request = handshake::request(endpoint.addr, &endpoint.path);
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            buffer: vec![0; READ_BUFFER_SIZE],
            conns: Connections::new(registry, endpoint.addr, request),
            stop,
        })
    }

    /// Returns the connections, for use outside a handler.
    pub fn conns(&mut self) -> &mut Connections {
        &mut self.conns
    }

    /// Waits for events for at most `timeout`, and passes each one to `handler`.
    ///
    /// # Errors
    /// The error of waiting for events, or `Interrupted` if the stop flag is set.
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
            let Some(id) = self.conns.id_in_slot(event.token()) else {
                continue;
            };
            if event.is_writable() {
                self.conns.on_writable(id, handler);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                // After a short read the socket is empty, but if its end is already known, no further event reports it.
                let until_empty = event.is_read_closed() || event.is_error();
                read(&mut self.conns, &mut self.buffer, id, until_empty, handler);
            }
        }
        for id in std::mem::take(&mut self.conns.resumed) {
            read(&mut self.conns, &mut self.buffer, id, true, handler);
        }
        // Slots are freed after the batch, so that none of its events reaches a newer connection in a reused slot.
        for id in std::mem::take(&mut self.conns.closed) {
            // Closing the descriptor also removes it from the poll.
            drop(self.conns.slots.try_remove(id.slot));
        }
        Ok(())
    }
}
