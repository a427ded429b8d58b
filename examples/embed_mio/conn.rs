//! One connection: its socket, what it is waiting for, and the bytes on their way to its client. Decides nothing.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    mem,
    net::Shutdown,
    time::Instant,
};

use mio::net::TcpStream;
use sigver_core::{ConnId, Dialect};

use crate::frame::Reader;

pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    pub(crate) stage: Stage,
    /// The beginning of a request head, or of a frame, whose end has not come.
    pub(crate) partial: Vec<u8>,
    /// Whether the client has closed its side, so that what is in the socket now is all there will be.
    pub(crate) hung_up: bool,
    /// When the last whole message came.
    pub(crate) heard: Instant,
    /// When something is to be done if nothing happens before: refuse a slow head, ping, cut.
    pub(crate) due: Instant,
    /// What the kernel has not been given, or has not taken. Without memory while it is empty, which it nearly always
    /// is.
    pub(crate) outgoing: VecDeque<u8>,
}

/// How far a connection has come. It never goes back.
pub(crate) enum Stage {
    /// Its request head has not come whole.
    Head,
    /// It is a WebSocket, and the hub knows it.
    Open {
        id: ConnId,
        dialect: Dialect,
        reader: Reader,
    },
    /// Its last bytes are on their way. Until the client closes its side, or [`Conn::due`], what it sends is read and
    /// discarded: a socket that is closed with unread bytes resets the connection, and the client may never see those
    /// last bytes.
    Ending,
}

impl Conn {
    pub(crate) fn new(stream: TcpStream, now: Instant, due: Instant) -> Self {
        Self {
            stream,
            stage: Stage::Head,
            partial: Vec::new(),
            hung_up: false,
            heard: now,
            due,
            outgoing: VecDeque::new(),
        }
    }

    /// Reads once. `Ok(None)` when there is nothing to read, `Ok(Some(0))` at the end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.stream.read(buffer) {
                Ok(read) => return Ok(Some(read)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what is outgoing, until the kernel refuses; only then does it tell when it takes more. The end of the
    /// stream follows the last bytes.
    pub(crate) fn flush(&mut self) {
        if self.outgoing.is_empty() {
            return;
        }
        // Taken out, so that its memory is given back with the last byte.
        let mut outgoing = mem::take(&mut self.outgoing);
        while !outgoing.is_empty() {
            match self.stream.write(outgoing.as_slices().0) {
                Ok(sent) => drop(outgoing.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.outgoing = outgoing;
                    return;
                }
                // The connection is broken, which reading finds out. There is nobody to keep the bytes for.
                Err(_) => break,
            }
        }
        if matches!(self.stage, Stage::Ending) {
            // Fails only where the connection is gone already.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }
}
