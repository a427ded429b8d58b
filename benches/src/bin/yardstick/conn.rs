//! One client's socket, and the bytes that are not whole yet in either direction.

use std::io::{self, Read, Write};

use mio::net::TcpStream;
use sigver_benches::frame::{self, Opcode};

/// What the client has become.
#[derive(Debug)]
pub(crate) enum Role {
    /// The upgrade request is not whole yet.
    Handshake,
    /// No open or join yet.
    Unknown,
    /// Owns a key; the place of a joiner that is gone is empty.
    Opener {
        key: Box<[u8]>,
        joiners: Vec<Option<usize>>,
    },
    /// Joined an opener's key.
    Joiner { opener: usize, index: usize },
    /// Has been sent a close frame.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    pub(crate) role: Role,
    /// The start of a request or frame whose end has not come.
    pub(crate) partial: Vec<u8>,
    /// The start of a message whose last fragment has not come.
    pub(crate) fragments: Vec<u8>,
    backlog: Vec<u8>,
    written: usize,
}

impl Conn {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            role: Role::Handshake,
            partial: Vec::new(),
            fragments: Vec::new(),
            backlog: Vec::new(),
            written: 0,
        }
    }

    /// Reads into `buffer`, after what an earlier read left over. `Ok(None)` when there is nothing to read.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let kept = self.partial.len();
        match self.stream.read(&mut buffer[kept..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(received) => {
                buffer[..kept].copy_from_slice(&self.partial);
                self.partial = Vec::new();
                Ok(Some(kept + received))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes at once what the socket takes and keeps the rest. A broken socket is found by the next read.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let written = if self.backlog.is_empty() {
            self.stream.write(bytes).unwrap_or(0)
        } else {
            0
        };
        if written < bytes.len() {
            self.backlog.extend_from_slice(&bytes[written..]);
        }
    }

    /// Writes more of what was kept.
    pub(crate) fn flush(&mut self) {
        while self.written < self.backlog.len() {
            match self.stream.write(&self.backlog[self.written..]) {
                Ok(written @ 1..) => self.written += written,
                _ => return,
            }
        }
        self.backlog = Vec::new();
        self.written = 0;
    }

    pub(crate) fn control(&mut self, opcode: Opcode, body: &[u8]) {
        let mut out = Vec::with_capacity(body.len() + 2);
        frame::push_server_header(&mut out, opcode, body.len());
        out.extend_from_slice(body);
        self.write(&out);
    }

    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        self.control(Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat());
        self.role = Role::Closed;
    }
}
