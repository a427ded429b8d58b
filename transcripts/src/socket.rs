//! A WebSocket client that can send any bytes, valid or not, and a [`Stage`] that plays transcripts against a server with it.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use tungstenite::{
    Error, Message,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use crate::{Frame, Seen, Stage, Wait, kit::retry};

/// The timeout of each wait, unless the client has a deadline.
const TIMEOUT: Duration = crate::kit::DEADLINE;

/// The maximum size of a response head, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The address of a server, and the request that its clients send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The address to connect to.
    pub addr: SocketAddr,
    /// The value of the `Host` header.
    pub host: String,
    /// The request target, such as `/`.
    pub path: String,
}

/// A WebSocket client.
pub struct Client {
    stream: TcpStream,
    reader: WebSocketContext,
    /// Received before an awaited pong, and not consumed.
    inbox: VecDeque<Seen>,
    pings: u32,
    /// The deadline of all waits together. Without it, each wait times out after [`TIMEOUT`].
    until: Option<Instant>,
}

/// An opcode of RFC 6455 section 5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A fragment after the first.
    Continuation = 0,
    /// A text message, or its first fragment.
    Text = 1,
    /// A binary message, or its first fragment.
    Binary = 2,
    /// A close frame.
    Close = 8,
    /// A ping.
    Ping = 9,
}

/// The FIN bit: whether a frame is the last of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The last frame.
    Last,
    /// More fragments follow.
    More,
}

impl Target {
    /// Returns the server at `addr`, with the address as its host and `/` as the path.
    pub fn at(addr: SocketAddr) -> Self {
        Self {
            addr,
            host: addr.to_string(),
            path: "/".into(),
        }
    }

    /// Returns a handshake request with the required headers and these additional header lines.
    pub fn request(&self, headers: &str) -> String {
        let Self { host, path, .. } = self;
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
    }

    /// Opens a TCP connection.
    ///
    /// # Errors
    ///
    /// If it fails, or is not established before `until`.
    pub fn dial(&self, until: Instant) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.addr, time_left(until)?)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Connects a client, which offers this subprotocol or none. All its waits together end at `until`.
    ///
    /// # Errors
    ///
    /// If the connection fails, or the response is not 101.
    pub fn connect(&self, subprotocol: Option<&str>, until: Instant) -> io::Result<Client> {
        let header = subprotocol.map(|offer| format!("Sec-WebSocket-Protocol: {offer}\r\n"));
        let mut stream = self.dial(until)?;
        stream.write_all(self.request(&header.unwrap_or_default()).as_bytes())?;
        Ok(Client::upgraded(stream, Some(until))?.0)
    }
}

impl Client {
    /// Connects with `path` as the request target, and offers no subprotocol.
    ///
    /// # Errors
    ///
    /// If the connection fails, or the response is not 101.
    pub fn connect(addr: SocketAddr, path: &str) -> io::Result<Self> {
        let target = Target {
            path: path.into(),
            ..Target::at(addr)
        };
        let mut client = target.connect(None, Instant::now() + TIMEOUT)?;
        client.wait_each(TIMEOUT)?;
        Ok(client)
    }

    /// Continues on a connection on which a handshake request was sent. Returns the client and the response head.
    ///
    /// # Errors
    ///
    /// If the response is not 101.
    pub fn after_request(stream: TcpStream) -> io::Result<(Self, String)> {
        Self::upgraded(stream, None)
    }

    /// Like [`after_request`](Self::after_request), with a deadline for all waits of the client.
    ///
    /// # Errors
    ///
    /// If the response is not 101, or does not arrive before `until`.
    pub fn after_request_until(stream: TcpStream, until: Instant) -> io::Result<(Self, String)> {
        Self::upgraded(stream, Some(until))
    }

    fn upgraded(mut stream: TcpStream, until: Option<Instant>) -> io::Result<(Self, String)> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let head = read_head(&mut stream, until)?;
        if !head.starts_with("HTTP/1.1 101 ") {
            return Err(io::Error::other(format!(
                "handshake rejected: {}",
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
            until,
        };
        Ok((client, head))
    }

    /// Removes the deadline and sets a timeout for each wait.
    fn wait_each(&mut self, timeout: Duration) -> io::Result<()> {
        self.until = None;
        self.stream.set_read_timeout(Some(timeout))?;
        self.stream.set_write_timeout(Some(timeout))
    }

    /// Sets the deadline of all further waits.
    pub fn wait_until(&mut self, until: Instant) {
        self.until = Some(until);
    }

    /// Sends bytes unchanged.
    ///
    /// # Errors
    ///
    /// The errors of the socket.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(until) = self.until {
            self.stream.set_write_timeout(Some(time_left(until)?))?;
        }
        self.stream.write_all(bytes)
    }

    /// Sends one masked frame.
    ///
    /// # Errors
    ///
    /// The errors of the socket.
    pub fn send_frame(&mut self, opcode: Opcode, piece: Piece, payload: &[u8]) -> io::Result<()> {
        self.send_raw(&frame(opcode, piece, payload))
    }

    /// Sends a text message in one frame.
    ///
    /// # Errors
    ///
    /// The errors of the socket.
    pub fn send_text(&mut self, text: &str) -> io::Result<()> {
        self.send_frame(Opcode::Text, Piece::Last, text.as_bytes())
    }

    /// Waits like [`handled`](Self::handled). A timeout counts as the end of the connection.
    pub fn sync(&mut self) {
        if self.handled().is_err() {
            self.inbox.push_back(Seen::Lost);
        }
    }

    /// Waits until the server has handled everything sent so far: sends a ping and waits for its pong, or for the end of the connection.
    ///
    /// # Errors
    ///
    /// If neither arrives in time.
    pub fn handled(&mut self) -> io::Result<()> {
        self.pings += 1;
        let payload = self.pings.to_be_bytes();
        // Sending fails if the connection is closed, which reading reports.
        let _ = self.send_frame(Opcode::Ping, Piece::Last, &payload);
        loop {
            match self.read() {
                Ok(Message::Pong(pong)) if pong[..] == payload => return Ok(()),
                Ok(message) => self.inbox.extend(seen(message)),
                Err(error) if is_timeout(&error) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no pong in time"));
                }
                Err(_) => {
                    self.inbox.push_back(Seen::Lost);
                    return Ok(());
                }
            }
        }
    }

    /// Waits for the next frame. Returns [`Seen::Nothing`] on a timeout. After the end of the connection, every call returns [`Seen::Lost`].
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
                    Err(error) if is_timeout(&error) => return Seen::Nothing,
                    Err(_) => self.inbox.push_back(Seen::Lost),
                },
            }
        }
    }

    /// Sends a ping and returns the next frame before its pong; [`Seen::Nothing`] if there is none.
    ///
    /// A server whose WebSocket library answers pings may send the pong before the expected frame. Use [`receive`](Self::receive) for such
    /// servers.
    pub fn receive_before_pong(&mut self) -> Seen {
        match self.leftover() {
            Seen::Nothing => Seen::Nothing,
            _ => self.receive(),
        }
    }

    /// Returns the next frame received so far, without consuming it; [`Seen::Nothing`] if there is none and the connection is open.
    pub fn leftover(&mut self) -> Seen {
        if self.inbox.is_empty() {
            self.sync();
        }
        self.inbox.front().cloned().unwrap_or(Seen::Nothing)
    }

    /// Closes the sending direction without a close frame.
    pub fn hang_up(&mut self) {
        // Fails if the server has already closed the connection.
        let _ = self.stream.shutdown(Shutdown::Write);
        self.inbox.clear();
        self.inbox.push_back(Seen::Lost);
    }

    /// Disconnects without a close frame, and waits until the server closes the connection.
    ///
    /// # Errors
    ///
    /// If the server does not close it in time.
    pub fn vanish(&mut self) -> io::Result<()> {
        self.hang_up();
        let mut sink = [0; 4096];
        loop {
            if let Some(until) = self.until {
                self.stream.set_read_timeout(Some(time_left(until)?))?;
            }
            match retry(|| self.stream.read(&mut sink)) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if is_late(&error) => {
                    return Err(io::Error::new(error.kind(), "the server does not close the connection"));
                }
                // A reset also ends the connection.
                Err(_) => return Ok(()),
            }
        }
    }

    /// Returns the socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn read(&mut self) -> Result<Message, Error> {
        loop {
            if let Some(until) = self.until {
                self.stream.set_read_timeout(Some(time_left(until)?))?;
            }
            match self.reader.read(&mut self.stream) {
                // See `retry`.
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }
}

/// Returns the time left until `until`, or an error if it has passed.
fn time_left(until: Instant) -> io::Result<Duration> {
    let time_left = until.saturating_duration_since(Instant::now());
    if time_left.is_zero() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "deadline exceeded"));
    }
    Ok(time_left)
}

fn is_late(error: &io::Error) -> bool {
    // The kind depends on the operating system.
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn is_timeout(error: &Error) -> bool {
    matches!(error, Error::Io(error) if is_late(error))
}

/// Converts a message. Returns `None` for pings and pongs.
fn seen(message: Message) -> Option<Seen> {
    match message {
        Message::Text(text) => Some(Seen::Text(text.as_str().to_owned())),
        Message::Binary(bytes) => Some(Seen::Binary(bytes.into())),
        Message::Close(None) => Some(Seen::Close(None, String::new())),
        Message::Close(Some(close)) => Some(Seen::Close(Some(close.code.into()), close.reason.as_str().to_owned())),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
    }
}

/// Returns the bytes of one masked frame (RFC 6455 section 5.2).
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
    let start = bytes.len();
    bytes.extend(payload);
    // Masks eight bytes at a time: some transcripts send megabytes.
    let [a, b, c, d] = MASK;
    let mask = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut blocks = bytes[start..].chunks_exact_mut(8);
    for block in &mut blocks {
        let mut eight = [0; 8];
        eight.copy_from_slice(block);
        block.copy_from_slice(&(u64::from_ne_bytes(eight) ^ mask).to_ne_bytes());
    }
    let rest = blocks.into_remainder().iter_mut();
    rest.zip(MASK.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    bytes
}

/// Reads an HTTP head, without the bytes that follow it.
fn read_head(stream: &mut TcpStream, until: Option<Instant>) -> io::Result<String> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = Vec::new();
    let mut ahead = [0; 1024];
    while head.len() < MAX_HEAD_BYTES {
        if let Some(until) = until {
            stream.set_read_timeout(Some(time_left(until)?))?;
        }
        let peeked = retry(|| stream.peek(&mut ahead))?;
        if peeked == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "connection closed before a response",
            ));
        }
        let before = head.len();
        head.extend(&ahead[..peeked]);
        let from = before.saturating_sub(END.len() - 1);
        let end = head[from..].windows(END.len()).position(|four| four == END);
        if let Some(end) = end {
            head.truncate(from + end + END.len());
        }
        stream.read_exact(&mut ahead[..head.len() - before])?;
        if end.is_some() {
            return Ok(String::from_utf8_lossy(&head).into_owned());
        }
    }
    Err(io::Error::other("response head too large"))
}

/// A [`Stage`] for a server, with a socket per client.
pub struct Sockets {
    target: Target,
    role_deadline: Duration,
    /// The deadline of all waits together. Without it, each wait times out after [`TIMEOUT`].
    until: Option<Instant>,
    clients: BTreeMap<char, Client>,
    /// Whether a pong follows all frames that result from frames before its ping.
    relies_on_pongs: bool,
    pending: Pending,
}

/// Work that the server may not have completed although every frame was followed by a ping and its pong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// The reply to a close frame of this client.
    CloseOf(char),
    /// The results of raw bytes, which no ping can follow, or of a deadline.
    Unknown,
}

impl Sockets {
    /// Returns a stage for the server at `addr`, which has this role deadline.
    pub fn new(addr: SocketAddr, role_deadline: Duration) -> Self {
        Self {
            target: Target::at(addr),
            role_deadline,
            until: None,
            clients: BTreeMap::new(),
            relies_on_pongs: false,
            pending: Pending::Nothing,
        }
    }

    /// Returns a stage whose waits all end at `until`.
    pub fn until(target: Target, role_deadline: Duration, until: Instant) -> Self {
        Self {
            target,
            role_deadline,
            until: Some(until),
            clients: BTreeMap::new(),
            relies_on_pongs: false,
            pending: Pending::Nothing,
        }
    }

    /// Reports an expected frame as missing as soon as a pong arrives, without waiting for the timeout.
    ///
    /// Requires a server that sends a pong after all frames, to any client, that result from frames before the ping. A server whose
    /// WebSocket library answers pings may send the pong first, and would fail although it is correct.
    pub fn rely_on_pongs(&mut self) {
        self.relies_on_pongs = true;
    }

    /// Closes all connections, and waits until the server has closed them too and so freed their keys.
    ///
    /// # Errors
    ///
    /// If the server does not close them in time.
    pub fn finish(&mut self) -> io::Result<()> {
        for client in self.clients.values_mut() {
            // Without a close frame, keys may be reserved. Fails if the server has already closed the connection.
            let _ = client.send_frame(Opcode::Close, Piece::Last, &1000_u16.to_be_bytes());
            client.hang_up();
        }
        let mut ended = self.clients.values_mut().map(Client::vanish);
        let outcome = ended.try_for_each(|ended| ended);
        self.clients.clear();
        outcome
    }

    fn client(&mut self, who: char) -> io::Result<&mut Client> {
        let client = self.clients.get_mut(&who);
        client.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, format!("{who} has not connected")))
    }
}

impl Stage for Sockets {
    fn connect(&mut self, who: char, subprotocol: Option<&str>) -> io::Result<()> {
        let until = self.until.unwrap_or_else(|| Instant::now() + TIMEOUT);
        let mut client = self.target.connect(subprotocol, until)?;
        if self.until.is_none() {
            client.wait_each(TIMEOUT)?;
        }
        self.clients.insert(who, client);
        Ok(())
    }

    fn send(&mut self, who: char, frame: &Frame) -> io::Result<()> {
        let client = self.client(who)?;
        // Sending fails if the server has closed the connection, which receiving reports.
        let _ = match frame {
            Frame::Text(text) => client.send_frame(Opcode::Text, Piece::Last, text),
            Frame::Binary(bytes) => client.send_frame(Opcode::Binary, Piece::Last, bytes),
            Frame::Pieces(pieces) => send_pieces(client, pieces),
            // A ping after an incomplete frame could be parsed as part of it.
            Frame::Raw(bytes) => {
                let _ = client.send_raw(bytes);
                self.pending = Pending::Unknown;
                return Ok(());
            }
        };
        client.handled()
    }

    fn receive(&mut self, who: char) -> io::Result<Seen> {
        let is_settled = self.relies_on_pongs && self.pending == Pending::Nothing;
        let client = self.client(who)?;
        let seen = if is_settled {
            client.receive_before_pong()
        } else {
            client.receive()
        };
        if self.pending == Pending::CloseOf(who) {
            self.pending = Pending::Nothing;
        }
        Ok(seen)
    }

    fn leftover(&mut self, who: char) -> io::Result<Seen> {
        let client = self.client(who)?;
        if client.inbox.is_empty() {
            client.handled()?;
        }
        Ok(client.inbox.front().cloned().unwrap_or(Seen::Nothing))
    }

    fn close(&mut self, who: char, code: Option<u16>) -> io::Result<()> {
        let payload = code.map(u16::to_be_bytes);
        let payload = payload.as_ref().map_or(&[][..], |code| code);
        // As above.
        let _ = self.client(who)?.send_frame(Opcode::Close, Piece::Last, payload);
        if self.pending == Pending::Nothing {
            self.pending = Pending::CloseOf(who);
        }
        Ok(())
    }

    fn vanish(&mut self, who: char) -> io::Result<()> {
        self.client(who)?.vanish()
    }

    fn wait(&mut self, time: Wait) -> io::Result<()> {
        self.pending = Pending::Unknown;
        thread::sleep(match time {
            Wait::RoleDeadline => self.role_deadline,
            Wait::Seconds(seconds) => Duration::from_secs(seconds.into()),
        });
        Ok(())
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
