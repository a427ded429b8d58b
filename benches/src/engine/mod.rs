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

use connections::{BUFFER, Connections, Handler, read};

/// Where to connect to.
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
    /// Makes an engine without connections. Once `stop` is true, [`Engine::poll`] fails: so a signal ends a run
    /// through the ordinary way out.
    ///
    /// # Errors
    /// Those of making an epoll instance or its like.
    pub fn new(endpoint: &Endpoint, stop: Arc<AtomicBool>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let request = handshake::request(endpoint.addr, &endpoint.path);
        Ok(Self {
            poll,
            events: Events::with_capacity(1024),
            buffer: vec![0; BUFFER],
            conns: Connections::new(registry, endpoint.addr, request),
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
