//! One connection: its socket, its state and its write buffer.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    mem,
    net::{IpAddr, Shutdown},
    time::Instant,
};

use mio::net::TcpStream;
use sigver_core::{ConnId, Frame};

use crate::frame::{self, Reader};

pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    pub(crate) client: IpAddr,
    pub(crate) state: State,
    /// The beginning of a request head or of a frame that is not complete.
    pub(crate) partial: Vec<u8>,
    /// Whether the client has closed its sending direction. Nothing arrives after the bytes that are in the socket now.
    pub(crate) hung_up: bool,
    /// Whether the endpoint lets the client wait for its opener.
    pub(crate) is_stopped: bool,
    /// The timeout of the state.
    pub(crate) due: Option<Instant>,
    /// Bytes that the kernel has not accepted. Allocated only while there are some, which is rare.
    outgoing: VecDeque<u8>,
    /// The cost of the frames in `outgoing`.
    cost: usize,
}

/// The state of a connection. It only moves forward.
pub(crate) enum State {
    /// The request head is not complete. It is rejected at [`Conn::due`].
    Request,
    /// A WebSocket. The client is not read until [`Conn::due`], if there is one.
    Open { id: ConnId, reader: Reader },
    /// The last bytes were queued: a response that rejects the request, or a close frame of the connection `id`. What the client sends is
    /// read and discarded until it closes: if a socket is closed with unread bytes, the client may lose the last bytes that it was sent. At
    /// [`Conn::due`] a rejected client is dropped.
    Ending { id: Option<ConnId> },
}

impl Conn {
    pub(crate) fn new(stream: TcpStream, client: IpAddr, due: Instant) -> Self {
        Self {
            stream,
            client,
            state: State::Request,
            partial: Vec::new(),
            hung_up: false,
            is_stopped: false,
            due: Some(due),
            outgoing: VecDeque::new(),
            cost: 0,
        }
    }

    /// Returns the id of the connection in the endpoint.
    pub(crate) fn id(&self) -> Option<ConnId> {
        match &self.state {
            State::Request => None,
            State::Open { id, .. } => Some(*id),
            State::Ending { id } => *id,
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        matches!(self.state, State::Open { .. }) && (self.is_stopped || self.due.is_some())
    }

    pub(crate) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        self.outgoing.extend(bytes);
    }

    pub(crate) fn queue_frame(&mut self, frame: &Frame) {
        self.cost += frame.cost();
        frame::write(frame, &mut self.outgoing);
    }

    /// Reads once. Returns `Ok(None)` if there is nothing to read, `Ok(Some(0))` at the end.
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

    /// Writes until everything is written or the kernel's buffer is full, which makes mio report when there is room again. After the last
    /// bytes of an ending connection, the sending direction is closed.
    ///
    /// Returns what to report to [`Endpoint::written`](sigver_core::Endpoint::written).
    pub(crate) fn flush(&mut self) -> usize {
        if self.outgoing.is_empty() {
            return 0;
        }
        // Taken, so that its memory is freed when it is empty.
        let mut outgoing = mem::take(&mut self.outgoing);
        let before = outgoing.len();
        while !outgoing.is_empty() {
            match self.stream.write(outgoing.as_slices().0) {
                Ok(sent) => drop(outgoing.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let written = self.cost.min(before - outgoing.len());
                    self.cost -= written;
                    self.outgoing = outgoing;
                    return written;
                }
                // The connection is broken. The next read reports it.
                Err(_) => break,
            }
        }
        if matches!(self.state, State::Ending { .. }) {
            // Fails only if the connection is closed.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        mem::take(&mut self.cost)
    }
}
