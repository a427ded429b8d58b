//! The event loop: accept, read, unmask, look up the peer, write.
//!
//! Each relayed message takes one write, from one buffer that all connections share. Each turn reads at most one buffer
//! from a connection, so that a flooding client does not starve the others.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::SocketAddr,
    time::Duration,
};

use mio::{Events, Interest, Poll, Token, net::TcpListener};
use sigver_benches::frame::{self, Header, Opcode};
use slab::Slab;
use socket2::{Domain, Socket, Type};
use tungstenite::handshake::derive_accept_key;

use crate::{
    conn::{Conn, Role},
    scan::{self, IndexFinder, Request},
};

#[derive(Debug)]
pub(crate) struct Relay {
    poll: Poll,
    listener: TcpListener,
    hub: Hub,
}

/// Connections and keys.
#[derive(Debug)]
struct Hub {
    conns: Slab<Conn>,
    keys: HashMap<Box<[u8]>, usize>,
    /// Connections whose socket may have more to read.
    unread: Vec<usize>,
    out: Vec<u8>,
    index: IndexFinder,
}

impl Relay {
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        // A long backlog, so that clients of a connection storm need not retransmit.
        socket.listen(4096)?;
        socket.set_nonblocking(true)?;
        let poll = Poll::new()?;
        let mut listener = TcpListener::from_std(socket.into());
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            hub: Hub {
                conns: Slab::new(),
                keys: HashMap::new(),
                unread: Vec::new(),
                out: Vec::new(),
                index: IndexFinder::new(),
            },
        })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Relays until polling or accepting fails.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; READ_BUFFER_SIZE];
        loop {
            let timeout = (!self.hub.unread.is_empty()).then_some(Duration::ZERO);
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let unread = std::mem::take(&mut self.hub.unread);
            for event in &events {
                if event.token() == LISTENER {
                    self.accept()?;
                    continue;
                }
                let Token(id) = event.token();
                if event.is_writable() {
                    if let Some(conn) = self.hub.conns.get_mut(id) {
                        conn.flush();
                    }
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.hub.read(id, &mut buffer, event.is_read_closed());
                }
            }
            for id in unread {
                self.hub.read(id, &mut buffer, true);
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let entry = self.hub.conns.vacant_entry();
            self.poll.registry().register(
                &mut stream,
                Token(entry.key()),
                Interest::READABLE.add(Interest::WRITABLE),
            )?;
            entry.insert(Conn::new(stream));
        }
    }
}

impl Hub {
    /// Reads a connection once. If `may_have_more` is set, a short read does not mean that the socket is empty.
    fn read(&mut self, id: usize, buffer: &mut Vec<u8>, may_have_more: bool) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        if buffer.len() < conn.partial.len() + READ_BUFFER_SIZE {
            buffer.resize(conn.partial.len() + READ_BUFFER_SIZE, 0);
        }
        let filled = match conn.read(buffer) {
            Ok(Some(filled)) => filled,
            Ok(None) => return,
            Err(_) => return self.remove(id),
        };
        if may_have_more || filled == buffer.len() {
            self.unread.push(id);
        }
        let mut used = 0;
        while let Some(taken) = self.handle_next(id, &mut buffer[used..filled]) {
            used += taken;
        }
        if let Some(conn) = self.conns.get_mut(id) {
            conn.partial.extend_from_slice(&buffer[used..filled]);
        }
    }

    /// Handles the request or frame at the start of `bytes` and returns its length, or `None` if it is incomplete.
    fn handle_next(&mut self, id: usize, bytes: &mut [u8]) -> Option<usize> {
        let conn = self.conns.get_mut(id)?;
        if matches!(conn.role, Role::Handshake) {
            let head_len = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
            match upgrade(&bytes[..head_len]) {
                Some(response) => {
                    conn.write(&response);
                    conn.role = Role::Unknown;
                }
                None => self.remove(id),
            }
            return Some(head_len);
        }
        let Ok(header) = frame::parse_header(bytes) else {
            self.remove(id);
            return None;
        };
        let header = header.filter(|header| header.frame_len() <= bytes.len())?;
        let body = &mut bytes[header.header_len..header.frame_len()];
        if let Some(mask) = header.mask {
            frame::apply_mask(body, mask);
        }
        self.handle_frame(id, header, body);
        Some(header.frame_len())
    }

    fn handle_frame(&mut self, id: usize, header: Header, body: &[u8]) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        match header.opcode {
            Opcode::Text | Opcode::Binary if header.fin => self.handle_message(id, body),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                conn.fragments.extend_from_slice(body);
                if header.fin {
                    let message = std::mem::take(&mut conn.fragments);
                    self.handle_message(id, &message);
                }
            }
            Opcode::Ping => conn.send_control(Opcode::Pong, body),
            Opcode::Pong => {}
            Opcode::Close => {
                if !matches!(conn.role, Role::Closed) {
                    conn.send_control(Opcode::Close, body);
                }
                self.remove(id);
            }
        }
    }

    fn handle_message(&mut self, id: usize, text: &[u8]) {
        let Some(conn) = self.conns.get_mut(id) else {
            return;
        };
        match &conn.role {
            Role::Handshake | Role::Closed => {}
            Role::Unknown => self.assign_role(id, text),
            Role::Opener { joiners, .. } => {
                let joiner = self.index.find(text).and_then(|index| *joiners.get(index)?);
                if let Some(joiner) = joiner {
                    self.relay(joiner, [text, &[], &[]]);
                }
            }
            &Role::Joiner { opener, index } => {
                let (head, added, tail) = scan::splice(text, index);
                self.relay(opener, [head, added.as_bytes(), tail]);
            }
        }
    }

    fn assign_role(&mut self, id: usize, text: &[u8]) {
        match scan::request(text) {
            Some(Request::Open(key)) => match self.keys.entry(key.into()) {
                Entry::Occupied(_) => self.conns[id].close(1008, "key taken"),
                Entry::Vacant(vacant) => {
                    vacant.insert(id);
                    self.conns[id].role = Role::Opener {
                        key: key.into(),
                        joiners: Vec::new(),
                    };
                }
            },
            Some(Request::Join(key)) => {
                let Some(&opener) = self.keys.get(key) else {
                    return self.conns[id].close(1008, "key unknown");
                };
                let Role::Opener { joiners, .. } = &mut self.conns[opener].role else {
                    return;
                };
                let index = joiners.len();
                joiners.push(Some(id));
                self.conns[id].role = Role::Joiner { opener, index };
                self.relay(opener, [br#"{"type":"join"}"#, &[], &[]]);
            }
            None => self.conns[id].close(1008, "no role"),
        }
    }

    /// Writes a message, given in parts, to a peer.
    fn relay(&mut self, to: usize, parts: [&[u8]; 3]) {
        let Some(peer) = self.conns.get_mut(to) else {
            return;
        };
        self.out.clear();
        let len = parts.iter().map(|part| part.len()).sum();
        frame::push_server_header(&mut self.out, Opcode::Text, len);
        for part in parts {
            self.out.extend_from_slice(part);
        }
        peer.write(&self.out);
    }

    fn remove(&mut self, id: usize) {
        let Some(conn) = self.conns.try_remove(id) else {
            return;
        };
        match conn.role {
            Role::Opener { key, joiners } => {
                self.keys.remove(&key);
                for joiner in joiners.into_iter().flatten() {
                    self.conns[joiner].close(4001, "opener left");
                }
            }
            Role::Joiner { opener, index } => {
                if let Role::Opener { joiners, .. } = &mut self.conns[opener].role {
                    joiners[index] = None;
                }
            }
            Role::Handshake | Role::Unknown | Role::Closed => {}
        }
    }
}

fn upgrade(head: &[u8]) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(head).ok()?;
    let (_, key) = head
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))?;
    let accept = derive_accept_key(key.trim().as_bytes());
    Some(
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes(),
    )
}

const LISTENER: Token = Token(usize::MAX);

/// Size of one read, in bytes. Longer messages take several reads.
const READ_BUFFER_SIZE: usize = 64 * 1024;
