//! One connection: its non-blocking socket, incomplete input and queued output.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
};

use mio::{Interest, Registry, Token, net::TcpStream};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use crate::{
    engine::{
        event::{ConnId, DisconnectReason},
        handshake,
    },
    frame::{self, Opcode},
};

/// State of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnState {
    Connecting,
    Upgrading,
    Open,
    Closed,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) stream: TcpStream,
    pub(super) tag: u64,
    pub(super) state: ConnState,
    pub(super) paused: bool,
    /// Bytes that may still be read. Unlimited if `None`.
    pub(super) allowance: Option<usize>,
    /// Its own upgrade request, until it is sent.
    pub(super) request: Option<Vec<u8>>,
    close_sent: bool,
    /// The start of an incomplete frame or response.
    partial: Vec<u8>,
    /// The fragments of an incomplete message.
    fragments: Vec<u8>,
    backlog: Vec<u8>,
    /// Bytes of the backlog that have been written.
    written: usize,
}

/// Starts to connect with a limited receive buffer and the segments of an Ethernet. Both must be known before.
fn connect_as_remote(addr: SocketAddr, receive_buffer: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(receive_buffer)?;
    socket.set_tcp_mss(ETHERNET_SEGMENT)?;
    match socket.connect(&addr.into()) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

const ETHERNET_SEGMENT: u32 = 1448;

/// A parsed part of the input.
pub(super) enum Incoming<'a> {
    Upgraded,
    Fragment,
    Message(&'a [u8]),
    Assembled(Vec<u8>),
    Pong(&'a [u8]),
    Ping,
    Close(Option<u16>),
}

impl Conn {
    pub(super) fn connect(
        registry: &Registry,
        id: ConnId,
        addr: SocketAddr,
        receive_buffer: Option<usize>,
        tag: u64,
    ) -> io::Result<Self> {
        let mut stream = match receive_buffer {
            None => TcpStream::connect(addr)?,
            Some(bytes) => connect_as_remote(addr, bytes)?,
        };
        stream.set_nodelay(true)?;
        registry.register(&mut stream, Token(id.slot), Interest::READABLE.add(Interest::WRITABLE))?;
        Ok(Self {
            id,
            stream,
            tag,
            state: ConnState::Connecting,
            paused: false,
            allowance: None,
            request: None,
            close_sent: false,
            partial: Vec::new(),
            fragments: Vec::new(),
            backlog: Vec::new(),
            written: 0,
        })
    }

    /// Returns whether the connect has succeeded. If it has failed, the next read returns the error.
    pub(super) fn on_connected(&mut self) -> bool {
        let connected = self.stream.peer_addr().is_ok();
        if connected {
            self.state = ConnState::Upgrading;
        }
        connected
    }

    /// Writes what the socket accepts and queues the rest. Errors are ignored: the next read returns them.
    pub(super) fn send(&mut self, frames: &[u8]) {
        let written = if self.backlog.is_empty() && self.state != ConnState::Connecting {
            self.stream.write(frames).unwrap_or(0)
        } else {
            0
        };
        if written < frames.len() {
            self.backlog.extend_from_slice(&frames[written..]);
        }
    }

    pub(super) fn backlog(&self) -> usize {
        self.backlog.len() - self.written
    }

    /// Writes queued bytes. Returns whether the backlog has become empty.
    pub(super) fn flush(&mut self) -> bool {
        if self.backlog.is_empty() {
            return false;
        }
        while let Ok(written @ 1..) = self.stream.write(&self.backlog[self.written..]) {
            self.written += written;
        }
        let drained = self.written == self.backlog.len();
        if drained {
            self.backlog = Vec::new();
            self.written = 0;
        }
        drained
    }

    pub(super) fn close(&mut self, body: &[u8]) {
        if !self.close_sent && self.state == ConnState::Open {
            self.close_sent = true;
            self.send_control(Opcode::Close, body);
        }
    }

    pub(super) fn may_read(&self) -> bool {
        !self.paused && self.allowance != Some(0)
    }

    /// Reads at most as much as is allowed.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let allowed = self.allowance.unwrap_or(usize::MAX).min(buffer.len());
        let received = self.stream.read(&mut buffer[..allowed])?;
        if let Some(allowance) = &mut self.allowance {
            *allowance -= received;
        }
        Ok(received)
    }

    /// Moves an incomplete rest of an earlier read to the start of `buffer`.
    pub(super) fn restore_partial(&mut self, buffer: &mut [u8]) -> usize {
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        self.partial.clear();
        kept
    }

    pub(super) fn save_partial(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            // Frees the buffer of the handshake, which idle connections do not need.
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// Parses the start of `bytes`. Returns the length with the result, or `None` if it is incomplete.
    pub(super) fn next_incoming<'a>(
        &mut self,
        bytes: &'a [u8],
    ) -> Result<Option<(usize, Incoming<'a>)>, DisconnectReason> {
        if self.state != ConnState::Open {
            return match handshake::parse_response(bytes) {
                None => Ok(None),
                Some(handshake::Response::Rejected(status)) => Err(DisconnectReason::UpgradeRejected(status)),
                Some(handshake::Response::Upgraded(taken)) => {
                    self.state = ConnState::Open;
                    Ok(Some((taken, Incoming::Upgraded)))
                }
            };
        }
        let header = frame::parse_header(bytes).map_err(|_| DisconnectReason::InvalidFrame)?;
        let Some(header) = header.filter(|header| header.frame_len() <= bytes.len()) else {
            return Ok(None);
        };
        let body = &bytes[header.header_len..header.frame_len()];
        let incoming = match header.opcode {
            Opcode::Text | Opcode::Binary if header.fin => Incoming::Message(body),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                self.fragments.extend_from_slice(body);
                if header.fin {
                    Incoming::Assembled(std::mem::take(&mut self.fragments))
                } else {
                    Incoming::Fragment
                }
            }
            Opcode::Pong => Incoming::Pong(body),
            Opcode::Ping => {
                self.send_control(Opcode::Pong, body);
                Incoming::Ping
            }
            Opcode::Close => {
                self.close(body);
                Incoming::Close(body.first_chunk().copied().map(u16::from_be_bytes))
            }
        };
        Ok(Some((header.frame_len(), incoming)))
    }

    fn send_control(&mut self, opcode: Opcode, body: &[u8]) {
        let mut out = Vec::with_capacity(body.len() + 6);
        frame::push_client_frame(&mut out, opcode, body);
        self.send(&out);
    }
}
