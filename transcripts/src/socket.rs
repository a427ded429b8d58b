//! Owns a WebSocket client that can say anything, also what no client should: for playing transcripts over sockets, and for tests
//! that need a frame cut in two.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use tungstenite::{
    Error, Message,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use crate::{Frame, Seen, Stage};

/// How long a server may take to answer. Only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client of a server.
pub struct Client {
    stream: TcpStream,
    reader: WebSocketContext,
    /// What came while a pong was waited for.
    inbox: VecDeque<Seen>,
    pings: u32,
}

/// An opcode of RFC 6455 section 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further piece of a message.
    Continuation = 0,
    /// A text message, or its first piece.
    Text = 1,
    /// A binary message, or its first piece.
    Binary = 2,
    /// A close frame.
    Close = 8,
    /// A ping.
    Ping = 9,
}

/// Whether a frame is the last of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// It is.
    Last,
    /// More follow.
    More,
}

impl Client {
    /// Connects, with `path` as the request's target, offering no subprotocol.
    ///
    /// # Errors
    ///
    /// When there is no connection, or the answer is not 101.
    pub fn connect(addr: SocketAddr, path: &str) -> io::Result<Self> {
        Self::request(addr, path, "")
    }

    /// Connects, offering this subprotocol.
    ///
    /// # Errors
    ///
    /// When there is no connection, or the answer is not 101.
    pub fn speaking(addr: SocketAddr, subprotocol: &str) -> io::Result<Self> {
        Self::request(addr, "/", &format!("Sec-WebSocket-Protocol: {subprotocol}\r\n"))
    }

    fn request(addr: SocketAddr, path: &str, headers: &str) -> io::Result<Self> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )?;
        Ok(Self::after_request(stream)?.0)
    }

    /// Takes over a connection on which a request was sent, and returns the head of its answer as well.
    ///
    /// # Errors
    ///
    /// When the answer is not 101.
    pub fn after_request(mut stream: TcpStream) -> io::Result<(Self, String)> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let head = read_head(&mut stream)?;
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(io::Error::other(format!(
                "refused: {}",
                head.lines().next().unwrap_or_default()
            )));
        }
        let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
        let reader = WebSocketContext::new(Role::Client, Some(config));
        let client = Self {
            stream,
            reader,
            inbox: VecDeque::new(),
            pings: 0,
        };
        Ok((client, head))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends one masked frame.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub fn send_frame(&mut self, opcode: Opcode, piece: Piece, payload: &[u8]) -> io::Result<()> {
        self.send_raw(&frame(opcode, piece, payload))
    }

    /// Sends a text message in one frame.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub fn send_text(&mut self, text: &str) -> io::Result<()> {
        self.send_frame(Opcode::Text, Piece::Last, text.as_bytes())
    }

    /// Waits until all that was sent has been handled: until the pong of a ping behind it has come, or the connection has ended.
    pub fn sync(&mut self) {
        self.pings += 1;
        let payload = self.pings.to_be_bytes();
        // On a connection that has ended there is nothing to wait for but its end.
        let _ = self.send_frame(Opcode::Ping, Piece::Last, &payload);
        loop {
            match self.read() {
                Ok(Message::Pong(pong)) if pong[..] == payload => return,
                Ok(message) => self.inbox.extend(seen(message)),
                Err(_) => {
                    self.inbox.push_back(Seen::Lost);
                    return;
                }
            }
        }
    }

    /// Waits for what comes next. The end of the connection comes again and again.
    pub fn receive(&mut self) -> Seen {
        loop {
            match self.inbox.pop_front() {
                Some(Seen::Lost) => {
                    self.inbox.push_front(Seen::Lost);
                    return Seen::Lost;
                }
                Some(seen) => return seen,
                None => match self.read() {
                    Ok(message) => self.inbox.extend(seen(message)),
                    Err(_) => self.inbox.push_back(Seen::Lost),
                },
            }
        }
    }

    /// What has come by now; [`Seen::Nothing`] if nothing has, and the connection is alive.
    pub fn leftover(&mut self) -> Seen {
        if self.inbox.is_empty() {
            self.sync();
        }
        self.inbox.front().cloned().unwrap_or(Seen::Nothing)
    }

    /// Ends the connection without a close frame, and waits for the server to have noticed.
    pub fn vanish(&mut self) {
        // It fails where the server was first, which comes to the same.
        let _ = self.stream.shutdown(Shutdown::Write);
        while self.read().is_ok() {}
        self.inbox.clear();
        self.inbox.push_back(Seen::Lost);
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn read(&mut self) -> Result<Message, Error> {
        self.reader.read(&mut self.stream)
    }
}

/// What a message is to a transcript: pings and pongs are nothing.
fn seen(message: Message) -> Option<Seen> {
    match message {
        Message::Text(text) => Some(Seen::Text(text.as_str().to_owned())),
        Message::Binary(bytes) => Some(Seen::Text(format!("a binary frame: {bytes:?}"))),
        Message::Close(None) => Some(Seen::Close(None, String::new())),
        Message::Close(Some(close)) => Some(Seen::Close(Some(close.code.into()), close.reason.as_str().to_owned())),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
    }
}

/// The bytes of one masked frame (RFC 6455 section 5.2).
pub fn frame(opcode: Opcode, piece: Piece, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x5a, 0x01, 0xfe, 0x80];
    let last = if piece == Piece::Last { 0x80 } else { 0 };
    let mut bytes = vec![last | opcode as u8];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Reads an HTTP head, and not a byte of what follows it.
fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// A server at an address, as a stage for transcripts.
pub struct Sockets {
    addr: SocketAddr,
    role_deadline: Duration,
    clients: BTreeMap<char, Client>,
}

impl Sockets {
    /// The server at `addr`, whose role deadline is known.
    pub fn new(addr: SocketAddr, role_deadline: Duration) -> Self {
        Self {
            addr,
            role_deadline,
            clients: BTreeMap::new(),
        }
    }

    fn client(&mut self, who: char) -> &mut Client {
        self.clients
            .get_mut(&who)
            .unwrap_or_else(|| panic!("{who} has not connected"))
    }
}

impl Stage for Sockets {
    fn connect(&mut self, who: char, subprotocol: Option<&str>) {
        let addr = self.addr;
        let client = match subprotocol {
            None => Client::connect(addr, "/"),
            Some(subprotocol) => Client::speaking(addr, subprotocol),
        };
        let client = client.unwrap_or_else(|error| panic!("{who} cannot connect to {addr}: {error}"));
        self.clients.insert(who, client);
    }

    fn send(&mut self, who: char, frame: &Frame) {
        let client = self.client(who);
        // What is sent to a server that has closed the connection may fail, and what comes of it is seen by receiving.
        let _ = match frame {
            Frame::Text(text) => client.send_frame(Opcode::Text, Piece::Last, text),
            Frame::Binary(bytes) => client.send_frame(Opcode::Binary, Piece::Last, bytes),
            Frame::Pieces(pieces) => send_pieces(client, pieces),
            // What follows bytes that are no whole frame might be taken for their end.
            Frame::Raw(bytes) => {
                let _ = client.send_raw(bytes);
                return;
            }
        };
        client.sync();
    }

    fn receive(&mut self, who: char) -> Seen {
        self.client(who).receive()
    }

    fn leftover(&mut self, who: char) -> Seen {
        self.client(who).leftover()
    }

    fn close(&mut self, who: char, code: Option<u16>) {
        let payload = code.map(u16::to_be_bytes);
        let payload = payload.as_ref().map_or(&[][..], |code| code);
        let _ = self.client(who).send_frame(Opcode::Close, Piece::Last, payload);
    }

    fn vanish(&mut self, who: char) {
        self.client(who).vanish();
    }

    fn wait_role_deadline(&mut self) {
        thread::sleep(self.role_deadline);
    }
}

fn send_pieces(client: &mut Client, pieces: &[String]) -> io::Result<()> {
    for (number, piece) in (1..).zip(pieces) {
        let opcode = if number == 1 {
            Opcode::Text
        } else {
            Opcode::Continuation
        };
        let which = if number == pieces.len() {
            Piece::Last
        } else {
            Piece::More
        };
        client.send_frame(opcode, which, piece.as_bytes())?;
        client.send_frame(Opcode::Ping, Piece::Last, b"between")?;
    }
    Ok(())
}
