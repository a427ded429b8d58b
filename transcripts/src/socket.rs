//! Owns a WebSocket client that can say anything, also what no client should: for playing transcripts over sockets, and for tests
//! that need a frame cut in two.

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

use crate::{Frame, Seen, Stage};

/// How long a server may take for each thing that is waited for. Only a failure waits for it.
const PATIENCE: Duration = crate::kit::DEADLINE;

/// The longest head of an answer.
const HEAD_MAX: usize = 64 * 1024;

/// Where a server is, and what its clients ask it for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its address.
    pub addr: SocketAddr,
    /// What the clients' `Host` says.
    pub host: String,
    /// The target of the clients' requests.
    pub path: String,
}

/// A client of a server.
pub struct Client {
    stream: TcpStream,
    reader: WebSocketContext,
    /// What came while a pong was waited for.
    inbox: VecDeque<Seen>,
    pings: u32,
    /// When all waiting ends; otherwise, each for itself after [`PATIENCE`].
    until: Option<Instant>,
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

impl Target {
    /// The server at `addr`, by that name.
    pub fn at(addr: SocketAddr) -> Self {
        Self {
            addr,
            host: addr.to_string(),
            path: "/".into(),
        }
    }

    /// A request for a WebSocket, with these header lines beside those that have to be there.
    pub fn request(&self, headers: &str) -> String {
        let Self { host, path, .. } = self;
        format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
    }

    /// A TCP connection.
    ///
    /// # Errors
    ///
    /// When there is none before `until`.
    pub fn dial(&self, until: Instant) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.addr, left(until)?)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A client that offers this subprotocol, or none; it waits for nothing beyond `until`.
    ///
    /// # Errors
    ///
    /// When there is no connection, or the answer is not 101.
    pub fn connect(&self, subprotocol: Option<&str>, until: Instant) -> io::Result<Client> {
        let header = subprotocol.map(|offer| format!("Sec-WebSocket-Protocol: {offer}\r\n"));
        let mut stream = self.dial(until)?;
        stream.write_all(self.request(&header.unwrap_or_default()).as_bytes())?;
        Ok(Client::upgraded(stream, Some(until))?.0)
    }
}

impl Client {
    /// Connects, with `path` as the request's target, offering no subprotocol.
    ///
    /// # Errors
    ///
    /// When there is no connection, or the answer is not 101.
    pub fn connect(addr: SocketAddr, path: &str) -> io::Result<Self> {
        let target = Target {
            path: path.into(),
            ..Target::at(addr)
        };
        let mut client = target.connect(None, Instant::now() + PATIENCE)?;
        client.wait_each(PATIENCE)?;
        Ok(client)
    }

    /// Takes over a connection on which a request was sent, and returns the head of its answer as well.
    ///
    /// # Errors
    ///
    /// When the answer is not 101.
    pub fn after_request(stream: TcpStream) -> io::Result<(Self, String)> {
        Self::upgraded(stream, None)
    }

    /// [`after_request`](Self::after_request), waiting for nothing beyond `until`.
    ///
    /// # Errors
    ///
    /// When the answer is not 101, or does not come in time.
    pub fn after_request_until(stream: TcpStream, until: Instant) -> io::Result<(Self, String)> {
        Self::upgraded(stream, Some(until))
    }

    fn upgraded(mut stream: TcpStream, until: Option<Instant>) -> io::Result<(Self, String)> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let head = read_head(&mut stream, until)?;
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
            until,
        };
        Ok((client, head))
    }

    /// From here on each wait may take so long.
    fn wait_each(&mut self, patience: Duration) -> io::Result<()> {
        self.until = None;
        self.stream.set_read_timeout(Some(patience))?;
        self.stream.set_write_timeout(Some(patience))
    }

    /// From here on nothing is waited for beyond `until`.
    pub fn wait_until(&mut self, until: Instant) {
        self.until = Some(until);
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(until) = self.until {
            self.stream.set_write_timeout(Some(left(until)?))?;
        }
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

    /// Waits until all that was sent has been handled, as [`handled`](Self::handled) does. No pong in time is the connection's end.
    pub fn sync(&mut self) {
        if self.handled().is_err() {
            self.inbox.push_back(Seen::Lost);
        }
    }

    /// Waits until all that was sent has been handled: until the pong of a ping behind it has come, or the connection has ended.
    ///
    /// # Errors
    ///
    /// When there is neither in time.
    pub fn handled(&mut self) -> io::Result<()> {
        self.pings += 1;
        let payload = self.pings.to_be_bytes();
        // On a connection that has ended there is nothing to wait for but its end.
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

    /// Waits for what comes next: [`Seen::Nothing`] where nothing comes in time. The end of the connection comes again and again.
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

    /// Returns what comes before the pong of a ping that is sent now; [`Seen::Nothing`] if nothing does.
    ///
    /// A server that answers pings in another place than messages may send what was expected behind the pong. If it has to be found right,
    /// use [`receive`](Self::receive).
    pub fn receive_before_pong(&mut self) -> Seen {
        match self.leftover() {
            Seen::Nothing => Seen::Nothing,
            _ => self.receive(),
        }
    }

    /// What has come by now; [`Seen::Nothing`] if nothing has, and the connection is alive.
    pub fn leftover(&mut self) -> Seen {
        if self.inbox.is_empty() {
            self.sync();
        }
        self.inbox.front().cloned().unwrap_or(Seen::Nothing)
    }

    /// Ends the connection without a close frame.
    pub fn hang_up(&mut self) {
        // It fails where the server was first, which comes to the same.
        let _ = self.stream.shutdown(Shutdown::Write);
        self.inbox.clear();
        self.inbox.push_back(Seen::Lost);
    }

    /// Ends the connection without a close frame, and waits for the server to have noticed.
    ///
    /// # Errors
    ///
    /// When the server does not end its side in time.
    pub fn vanish(&mut self) -> io::Result<()> {
        self.hang_up();
        let mut sink = [0; 4096];
        loop {
            if let Some(until) = self.until {
                self.stream.set_read_timeout(Some(left(until)?))?;
            }
            match self.stream.read(&mut sink) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if is_late(&error) => {
                    return Err(io::Error::new(error.kind(), "the server does not end its side"));
                }
                // The end in its other form: a reset.
                Err(_) => return Ok(()),
            }
        }
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn read(&mut self) -> Result<Message, Error> {
        if let Some(until) = self.until {
            self.stream.set_read_timeout(Some(left(until)?))?;
        }
        self.reader.read(&mut self.stream)
    }
}

/// What is left until `until`.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "not in time"));
    }
    Ok(left)
}

fn is_late(error: &io::Error) -> bool {
    // Which of them it is depends on the system.
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn is_timeout(error: &Error) -> bool {
    matches!(error, Error::Io(error) if is_late(error))
}

/// What a message is to a transcript: pings and pongs are nothing.
fn seen(message: Message) -> Option<Seen> {
    match message {
        Message::Text(text) => Some(Seen::Text(text.as_str().to_owned())),
        Message::Binary(bytes) => Some(Seen::Binary(bytes.into())),
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
    let start = bytes.len();
    bytes.extend(payload);
    // Eight bytes at a time: a transcript has millions of them.
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

/// Reads an HTTP head, and not a byte of what follows it.
fn read_head(stream: &mut TcpStream, until: Option<Instant>) -> io::Result<String> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = Vec::new();
    let mut ahead = [0; 1024];
    while head.len() < HEAD_MAX {
        if let Some(until) = until {
            stream.set_read_timeout(Some(left(until)?))?;
        }
        let peeked = stream.peek(&mut ahead)?;
        if peeked == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the end, instead of an answer",
            ));
        }
        let known = head.len();
        head.extend(&ahead[..peeked]);
        let from = known.saturating_sub(END.len() - 1);
        let end = head[from..].windows(END.len()).position(|four| four == END);
        if let Some(end) = end {
            head.truncate(from + end + END.len());
        }
        stream.read_exact(&mut ahead[..head.len() - known])?;
        if end.is_some() {
            return Ok(String::from_utf8_lossy(&head).into_owned());
        }
    }
    Err(io::Error::other("the answer's head has no end"))
}

/// A server, as a stage for transcripts.
pub struct Sockets {
    target: Target,
    role_deadline: Duration,
    /// When all waiting ends; otherwise, each for itself after [`PATIENCE`].
    until: Option<Instant>,
    clients: BTreeMap<char, Client>,
    /// Whether a client's pong follows everything that was caused before its ping.
    relies_on_pongs: bool,
    pending: Pending,
}

/// What a server may still be doing, though every frame was followed by a ping and a pong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Nothing,
    /// It answers this client's close frame.
    CloseOf(char),
    /// It handles bytes that no ping could follow, or a deadline.
    Unknown,
}

impl Sockets {
    /// The server at `addr`, whose role deadline is known.
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

    /// A server that gets until `until` for all of it.
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

    /// From here on, a message that has not come before a pong is taken for missing, without waiting for it.
    ///
    /// Only for servers that send a pong behind everything, to any client, that follows from frames before the ping. One whose WebSocket
    /// library answers pings may send a pong first, and would be found wrong where it is right.
    pub fn rely_on_pongs(&mut self) {
        self.relies_on_pongs = true;
    }

    /// Ends all connections, and waits for the server to have noticed: it has then forgotten every key of theirs.
    ///
    /// # Errors
    ///
    /// When it does not end its side in time.
    pub fn finish(&mut self) -> io::Result<()> {
        self.clients.values_mut().for_each(Client::hang_up);
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
        let until = self.until.unwrap_or_else(|| Instant::now() + PATIENCE);
        let mut client = self.target.connect(subprotocol, until)?;
        if self.until.is_none() {
            client.wait_each(PATIENCE)?;
        }
        self.clients.insert(who, client);
        Ok(())
    }

    fn send(&mut self, who: char, frame: &Frame) -> io::Result<()> {
        let client = self.client(who)?;
        // What is sent to a server that has closed the connection may fail, and what comes of it is seen by receiving.
        let _ = match frame {
            Frame::Text(text) => client.send_frame(Opcode::Text, Piece::Last, text),
            Frame::Binary(bytes) => client.send_frame(Opcode::Binary, Piece::Last, bytes),
            Frame::Pieces(pieces) => send_pieces(client, pieces),
            // What follows bytes that are no whole frame might be taken for their end.
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
        // As with all that is sent, what comes of it is seen by receiving.
        let _ = self.client(who)?.send_frame(Opcode::Close, Piece::Last, payload);
        if self.pending == Pending::Nothing {
            self.pending = Pending::CloseOf(who);
        }
        Ok(())
    }

    fn vanish(&mut self, who: char) -> io::Result<()> {
        self.client(who)?.vanish()
    }

    fn wait_role_deadline(&mut self) -> io::Result<()> {
        self.pending = Pending::Unknown;
        thread::sleep(self.role_deadline);
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
