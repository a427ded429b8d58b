//! What a defective server knows: the hub, the connections, and what each of them is. Owns what a defect does to connections.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use sigver_core::{
    Addressee, CloseReason, ConnId, Decoder, Dialect, Frame, Hub, InboundMessage, Index, Key, Limits, OutboundMessage,
    RoleEnd, Time,
};

use super::{
    defect::{Defect, Role, Twist},
    frame,
};

/// How many bytes wait for a client that does not read.
const BACKLOG: usize = 1024 * 1024;

pub(super) struct World {
    defect: Defect,
    limits: Limits,
    hub: Hub,
    /// By their numbers, in the order in which they came.
    conns: BTreeMap<u64, Conn>,
    /// The socket of each connection of the hub.
    sockets: BTreeMap<ConnId, u64>,
    /// Who has which key by being refused it.
    stolen: BTreeMap<String, u64>,
    over: bool,
}

struct Conn {
    stream: TcpStream,
    outgoing: Sender<Vec<u8>>,
    backlog: Arc<Backlog>,
    dialect: Dialect,
    id: ConnId,
    role: Role,
    /// The key that it has open.
    key: Option<String>,
    /// Whether no close frame was sent to it.
    open: bool,
}

/// What waits for a client to read.
#[derive(Default)]
struct Backlog {
    bytes: AtomicUsize,
    /// Whether nothing is written any more.
    over: AtomicBool,
}

type Outputs = Vec<(ConnId, OutboundMessage)>;

impl World {
    pub(super) fn new(defect: Defect, limits: &Limits) -> Self {
        Self {
            defect,
            limits: limits.clone(),
            hub: Hub::new(limits.clone()),
            conns: BTreeMap::new(),
            sockets: BTreeMap::new(),
            stolen: BTreeMap::new(),
            over: false,
        }
    }

    /// Ends every connection, and forgets everything.
    fn die(&mut self) {
        for conn in self.conns.values() {
            // Fails where it has ended.
            let _ = conn.stream.shutdown(Shutdown::Both);
        }
        *self = Self::new(self.defect, &self.limits);
    }

    pub(super) fn end(&mut self) {
        self.die();
        self.over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    pub(super) fn is_open(&self, socket: u64) -> bool {
        self.conns.get(&socket).is_some_and(|conn| conn.open)
    }

    /// A connection was accepted.
    pub(super) fn arrive(
        &mut self,
        socket: u64,
        dialect: Dialect,
        stream: TcpStream,
        response: Vec<u8>,
    ) -> io::Result<()> {
        let id = self
            .hub
            .connect(Time::ZERO, dialect.profile())
            .map_err(io::Error::other)?;
        let backlog = Arc::new(Backlog::default());
        let (outgoing, frames) = channel();
        let (written, sink) = (Arc::clone(&backlog), stream.try_clone()?);
        thread::spawn(move || write_out(&frames, &sink, &written));
        self.sockets.insert(id, socket);
        let conn = Conn {
            stream,
            outgoing,
            backlog,
            dialect,
            id,
            role: Role::Nothing,
            key: None,
            open: true,
        };
        conn.put(response);
        self.conns.insert(socket, conn);
        Ok(())
    }

    /// A connection says something.
    pub(super) fn hear(&mut self, socket: u64, text: &str) {
        let Some(conn) = self.conns.get(&socket) else { return };
        let (id, dialect, role) = (conn.id, conn.dialect, conn.role);
        let twisted;
        let text = match self.defect.twist(text, dialect, role) {
            Twist::Nothing => text,
            Twist::Kill => return self.die(),
            Twist::Close => return self.close(id, CloseReason::UnknownType),
            Twist::Relay(opener) if self.conns.get(&opener).is_some_and(|it| it.dialect == Dialect::Plain) => {
                return self.send(opener, &Frame::Text(text.into()));
            }
            Twist::Relay(_) => text,
            Twist::As(other) => {
                twisted = other;
                &twisted
            }
        };
        match self.decode(socket, dialect, text) {
            Ok(message) => self.handle(socket, id, role, message),
            Err(reason) => match (self.defect, reason) {
                (Defect::BrokenJsonKills, CloseReason::InvalidJson)
                | (Defect::NonObjectKills, CloseReason::NotAnObject)
                | (Defect::BrokenFramesKill, CloseReason::TooBig) => self.die(),
                _ => self.close(id, reason),
            },
        }
    }

    fn handle(&mut self, socket: u64, id: ConnId, role: Role, message: InboundMessage) {
        match (self.defect, role, &message) {
            (Defect::IndexOfNobodyKills, Role::Opener(joined), InboundMessage::Data { to, .. }) => match to {
                Addressee::Index(index) if index.get() < joined => {}
                Addressee::Unnamed => {}
                Addressee::Index(_) | Addressee::OutOfRange | Addressee::Malformed => return self.die(),
            },
            (Defect::AnswerToGoneKills, Role::Opener(joined), InboundMessage::Data { to, .. }) => {
                let Addressee::Index(index) = to else {
                    return self.tell(id, message);
                };
                let its = Role::Joiner(socket, index.get());
                if index.get() < joined && !self.conns.values().any(|conn| conn.role == its) {
                    return self.die();
                }
            }
            (Defect::JoinWhileClosingKills, _, InboundMessage::Join { key }) => {
                let its = |conn: &Conn| !conn.open && conn.key.as_deref() == Some(key.as_str());
                if self.conns.values().any(its) {
                    return self.die();
                }
            }
            (Defect::RefusedOpenerTakesTheKey, Role::Nothing, InboundMessage::Open { key }) => {
                let has = |conn: &Conn| conn.key.as_deref() == Some(key.as_str());
                if self.conns.values().any(has) {
                    self.stolen.insert(key.as_str().into(), socket);
                }
            }
            (Defect::RefusedOpenerTakesTheKey, Role::Nothing, InboundMessage::Join { key })
                if self.stolen.contains_key(key.as_str()) =>
            {
                return;
            }
            (Defect::SecondOpenOrphansTheFirst, Role::Opener(_), InboundMessage::Open { .. }) => {
                // Nobody is told.
                drop(self.hub.disconnect(id));
                if let Some(id) = self.another(socket) {
                    if let Some(conn) = self.conns.get_mut(&socket) {
                        conn.id = id;
                    }
                    return self.tell(id, message);
                }
            }
            (Defect::RolesAddUp, Role::Opener(_) | Role::Joiner(..), InboundMessage::Join { .. }) => {
                if let Some(id) = self.another(socket) {
                    return self.tell(id, message);
                }
            }
            _ => {}
        }
        self.tell(id, message);
    }

    /// Another connection of the hub, for the same socket.
    fn another(&mut self, socket: u64) -> Option<ConnId> {
        let dialect = self.conns.get(&socket)?.dialect;
        let id = self.hub.connect(Time::ZERO, dialect.profile()).ok()?;
        self.sockets.insert(id, socket);
        Some(id)
    }

    fn tell(&mut self, id: ConnId, message: InboundMessage) {
        let resigns = matches!(message, InboundMessage::Leave | InboundMessage::CloseKey);
        let outputs = self.hub.handle(id, message);
        let is_answer = |(to, _): &(ConnId, OutboundMessage)| *to == id;
        if resigns && !outputs.iter().any(is_answer) {
            self.note(id, Role::Nothing);
        }
        self.deliver(outputs);
    }

    fn close(&mut self, id: ConnId, reason: CloseReason) {
        let outputs = self.hub.close(id, reason);
        self.deliver(outputs);
    }

    /// A connection's frames are broken.
    pub(super) fn break_off(&mut self, socket: u64, reason: CloseReason) {
        let Some(conn) = self.conns.get(&socket) else { return };
        match (self.defect, reason) {
            (Defect::BrokenFramesKill, CloseReason::BrokenFraming | CloseReason::InvalidUtf8 | CloseReason::TooBig) => {
                self.die();
            }
            _ => self.close(conn.id, reason),
        }
    }

    /// A connection has sent its close frame.
    pub(super) fn leave(&mut self, socket: u64, code: Option<u16>) {
        self.send(socket, &Frame::CloseReply(code));
        if let Some(conn) = self.conns.get_mut(&socket) {
            conn.open = false;
            conn.finish();
        }
        if self.defect != Defect::JoinWhileClosingKills {
            self.disconnect(socket);
        }
    }

    /// A connection has ended.
    pub(super) fn lose(&mut self, socket: u64) {
        self.disconnect(socket);
        self.conns.remove(&socket);
        self.stolen.retain(|_, thief| *thief != socket);
    }

    fn disconnect(&mut self, socket: u64) {
        let ids: Vec<ConnId> = self
            .sockets
            .iter()
            .filter(|(_, its)| **its == socket)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.sockets.remove(&id);
            let outputs = self.hub.disconnect(id);
            self.deliver(outputs);
        }
        if let Some(conn) = self.conns.get_mut(&socket) {
            (conn.role, conn.key) = (Role::Nothing, None);
        }
    }

    fn deliver(&mut self, outputs: Outputs) {
        self.take_note(&outputs);
        let mut outputs = VecDeque::from(outputs);
        while let Some((id, message)) = outputs.pop_front() {
            let Some(socket) = self.sockets.get(&id).copied() else {
                continue;
            };
            let Some(conn) = self.conns.get(&socket).filter(|conn| conn.open) else {
                continue;
            };
            let left = matches!(
                message,
                OutboundMessage::Close(CloseReason::OpenerLeft) | OutboundMessage::RoleEnded(RoleEnd::OpenerLeft)
            );
            if left && self.defect == Defect::OpenerLeavesInSilence {
                continue;
            }
            match self.encode(socket, conn.dialect, message) {
                Some(Frame::Text(text)) => {
                    if conn.backlog.bytes.load(Ordering::Relaxed) > BACKLOG {
                        outputs.extend(self.hub.close(id, CloseReason::TooSlow));
                    } else {
                        self.send(socket, &Frame::Text(text));
                    }
                }
                Some(Frame::Close(reason)) => {
                    self.send(socket, &Frame::Close(reason));
                    if let Some(conn) = self.conns.get_mut(&socket) {
                        conn.open = false;
                        conn.finish();
                    }
                }
                Some(Frame::Ping | Frame::Pong(_) | Frame::CloseReply(_)) | None => {}
            }
        }
    }

    /// Decodes a text, and makes a key for a client that wants one.
    fn decode(&self, socket: u64, dialect: Dialect, text: &str) -> Result<InboundMessage, CloseReason> {
        match Decoder::new(dialect, &self.limits).decode(text)? {
            InboundMessage::OpenGenerated => Ok(InboundMessage::Open {
                key: Key::from_random(socket.into(), &self.limits)?,
            }),
            message => Ok(message),
        }
    }

    /// What a message is on the wire of a socket.
    fn encode(&self, socket: u64, dialect: Dialect, message: OutboundMessage) -> Option<Frame> {
        /// Stands out from everything that is sent.
        const MARK: u32 = 4_000_000_001;

        let (message, index) = match message {
            OutboundMessage::Data {
                from: Some(index),
                payload,
            } => {
                let from = match self.defect {
                    Defect::IndexAsString => Index::new(MARK),
                    Defect::IndexIsThePlaceOfTheOpener => Index::new(self.conns.range(..socket).count() as u32),
                    _ => index,
                };
                let message = OutboundMessage::Data {
                    from: Some(from),
                    payload,
                };
                (message, Some(index))
            }
            other => (other, None),
        };
        match (dialect.encode(message), index) {
            (Some(Frame::Text(text)), Some(index)) => {
                let text = text.replace(&MARK.to_string(), &format!("\"{index}\""));
                Some(Frame::Text(text))
            }
            (frame, _) => frame,
        }
    }

    /// Remembers what each socket is.
    fn take_note(&mut self, outputs: &Outputs) {
        let mut opener = None;
        for (id, message) in outputs {
            if let OutboundMessage::PeerJoined { index } = message {
                opener = self.sockets.get(id).copied();
                self.note(*id, Role::Opener(index.get() + 1));
            }
        }
        for (id, message) in outputs {
            match message {
                OutboundMessage::Opened { key } => {
                    self.note(*id, Role::Opener(0));
                    if let Some(conn) = self.sockets.get(id).and_then(|socket| self.conns.get_mut(socket)) {
                        conn.key = Some(key.as_str().into());
                    }
                }
                OutboundMessage::Joined { index } => {
                    if let Some(opener) = opener {
                        self.note(*id, Role::Joiner(opener, index.get()));
                    }
                }
                OutboundMessage::RoleEnded(_) | OutboundMessage::Close(_) => {
                    self.note(*id, Role::Nothing);
                }
                OutboundMessage::PeerJoined { .. }
                | OutboundMessage::Data { .. }
                | OutboundMessage::PeerLeft { .. }
                | OutboundMessage::Refused(_) => {}
            }
        }
    }

    fn note(&mut self, id: ConnId, role: Role) {
        let conn = self.sockets.get(&id).and_then(|socket| self.conns.get_mut(socket));
        if let Some(conn) = conn.filter(|conn| conn.id == id) {
            conn.role = role;
            if role == Role::Nothing {
                conn.key = None;
            }
        }
    }

    pub(super) fn send(&self, socket: u64, frame: &Frame) {
        let Some(conn) = self.conns.get(&socket).filter(|conn| conn.open) else {
            return;
        };
        let mut bytes = VecDeque::new();
        frame::write(frame, &mut bytes);
        if self.defect == Defect::WaitsForReaders {
            // Not before what waits, and with everything locked.
            let backlog = &conn.backlog;
            while backlog.bytes.load(Ordering::Relaxed) > 0 && !backlog.over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_micros(50));
            }
        }
        conn.put(bytes.into());
    }
}

impl Conn {
    fn put(&self, bytes: Vec<u8>) {
        self.backlog.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        // Fails where the connection is broken, which reading finds out.
        let _ = self.outgoing.send(bytes);
    }

    /// Nothing follows what was put.
    fn finish(&self) {
        let _ = self.outgoing.send(Vec::new());
    }
}

/// Writes until there is nothing more to write; no bytes are the end.
fn write_out(frames: &Receiver<Vec<u8>>, mut sink: &TcpStream, backlog: &Backlog) {
    for bytes in frames {
        if bytes.is_empty() || sink.write_all(&bytes).is_err() {
            break;
        }
        backlog.bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
    }
    backlog.over.store(true, Ordering::Relaxed);
    // Fails where the connection has ended.
    let _ = sink.shutdown(Shutdown::Write);
}
