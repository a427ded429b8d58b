//! One connection: its socket, and the bytes that are not whole yet in either direction.
//!
//! It never waits and it tells nobody: [`super::Engine`] calls it and hands out what it finds.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
};

use mio::{Interest, Registry, Token, net::TcpStream};

use crate::{
    engine::{
        event::{ConnId, Ending},
        handshake,
    },
    frame::{self, Opcode},
};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    Upgrading,
    Open,
    Ended,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) stream: TcpStream,
    pub(super) tag: u64,
    pub(super) stage: Stage,
    pub(super) paused: bool,
    close_sent: bool,
    /// The start of a frame (or of the response) whose end has not come.
    partial: Vec<u8>,
    /// The start of a message whose last fragment has not come.
    fragments: Vec<u8>,
    backlog: Vec<u8>,
    /// How much of the backlog is written.
    written: usize,
}

/// What was found at the front of the bytes received.
pub(super) enum Item<'a> {
    Upgraded,
    Fragment,
    Message(&'a [u8]),
    Assembled(Vec<u8>),
    Pong(&'a [u8]),
    Ping,
    Close(Option<u16>),
}

impl Conn {
    pub(super) fn connect(registry: &Registry, id: ConnId, addr: SocketAddr, tag: u64) -> io::Result<Self> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        registry.register(&mut stream, Token(id.slot), Interest::READABLE.add(Interest::WRITABLE))?;
        Ok(Self {
            id,
            stream,
            tag,
            stage: Stage::Connecting,
            paused: false,
            close_sent: false,
            partial: Vec::new(),
            fragments: Vec::new(),
            backlog: Vec::new(),
            written: 0,
        })
    }

    /// Looks whether the connect has succeeded. If it has failed, the next read says how.
    pub(super) fn on_connected(&mut self) -> bool {
        let connected = self.stream.peer_addr().is_ok();
        if connected {
            self.stage = Stage::Upgrading;
        }
        connected
    }

    /// Writes what the socket takes. An error is not reported: the same socket's next read has it too.
    pub(super) fn send(&mut self, frames: &[u8]) {
        let written = if self.backlog.is_empty() && self.stage != Stage::Connecting {
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

    /// Writes more of the backlog; true when that was the last of it.
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
        if !self.close_sent && self.stage == Stage::Open {
            self.close_sent = true;
            self.send_control(Opcode::Close, body);
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }

    /// Moves what an earlier read left over to the front of `buffer`.
    pub(super) fn take_partial(&mut self, buffer: &mut [u8]) -> usize {
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        self.partial.clear();
        kept
    }

    pub(super) fn keep_partial(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            // Ten thousand idle connections need not keep the buffers of their handshakes.
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// Finds what is at the front of `bytes`, and how long it is; `None` if it is not whole.
    pub(super) fn next_item<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(usize, Item<'a>)>, Ending> {
        if self.stage != Stage::Open {
            return match handshake::parse_response(bytes) {
                None => Ok(None),
                Some(handshake::Response::Refused(status)) => Err(Ending::Refused(status)),
                Some(handshake::Response::Upgraded(taken)) => {
                    self.stage = Stage::Open;
                    Ok(Some((taken, Item::Upgraded)))
                }
            };
        }
        let header = frame::parse_header(bytes).map_err(|_| Ending::Malformed)?;
        let Some(header) = header.filter(|header| header.frame_len() <= bytes.len()) else {
            return Ok(None);
        };
        let body = &bytes[header.header_len..header.frame_len()];
        let item = match header.opcode {
            Opcode::Text | Opcode::Binary if header.fin => Item::Message(body),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                self.fragments.extend_from_slice(body);
                if header.fin {
                    Item::Assembled(std::mem::take(&mut self.fragments))
                } else {
                    Item::Fragment
                }
            }
            Opcode::Pong => Item::Pong(body),
            Opcode::Ping => {
                self.send_control(Opcode::Pong, body);
                Item::Ping
            }
            Opcode::Close => {
                self.close(body);
                Item::Close(body.first_chunk().copied().map(u16::from_be_bytes))
            }
        };
        Ok(Some((header.frame_len(), item)))
    }

    fn send_control(&mut self, opcode: Opcode, body: &[u8]) {
        let mut out = Vec::with_capacity(body.len() + 6);
        frame::push_client_frame(&mut out, opcode, body);
        self.send(&out);
    }
}
