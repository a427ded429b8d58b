//! One connection: its non-blocking socket, incomplete input and queued output.

use std::io::{self, Read, Write};

use mio::net::TcpStream;
use sigver_benches::frame::{self, Opcode};

/// Role of a client.
#[derive(Debug)]
pub(crate) enum Role {
    /// The upgrade request is incomplete.
    Handshake,
    /// No open or join received yet.
    Unknown,
    /// Has opened a key. The entry of a joiner that has left is `None`.
    Opener {
        key: Box<[u8]>,
        joiners: Vec<Option<usize>>,
    },
    /// Has joined the key of an opener.
    Joiner { opener: usize, index: usize },
    /// A close frame has been sent to it.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) stream: TcpStream,
    pub(crate) role: Role,
    /// The start of an incomplete request or frame.
    pub(crate) partial: Vec<u8>,
    /// The fragments of an incomplete message.
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

    /// Reads into `buffer`, after the incomplete rest of an earlier read. Returns `Ok(None)` if there is nothing to read.
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

    /// Writes what the socket accepts and queues the rest. Errors are ignored: the next read returns them.
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

    /// Writes queued bytes.
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

    pub(crate) fn send_control(&mut self, opcode: Opcode, body: &[u8]) {
        let mut out = Vec::with_capacity(body.len() + 2);
        frame::push_server_header(&mut out, opcode, body.len());
        out.extend_from_slice(body);
        self.write(&out);
    }

    pub(crate) fn close(&mut self, code: u16, reason: &str) {
        self.send_control(Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()].concat());
        self.role = Role::Closed;
    }
}
