//! The state of a defective server: the hub, the connections and their roles. Implements the effects of a defect on connections.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Write},
    mem,
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use sigver_core::{
    Addressee, CloseReason, ConnId, Decoder, Dialect, Disconnect, Frame, Hub, InboundMessage, Index, Key, Limits,
    OutboundMessage, Refusal, RoleEnd, Time, Token,
};

use super::{
    defect::{Defect, Effect, Role},
    frame,
};

/// The maximum number of bytes queued for a client.
const BACKLOG: usize = 1024 * 1024;

pub(super) struct World {
    defect: Defect,
    limits: Limits,
    hub: Hub,
    /// By socket number, in the order of connection.
    conns: BTreeMap<u64, Conn>,
    /// The socket of each connection in the hub.
    sockets: BTreeMap<ConnId, u64>,
    /// The sockets that were refused a key but receive its joins.
    stolen: BTreeMap<String, u64>,
    started: Instant,
    /// The number of tokens that were made. They need not be random here.
    made_tokens: u128,
    /// The tokens of each key that is or was open, oldest first.
    tokens: BTreeMap<String, Vec<Token>>,
    is_shut_down: bool,
}

struct Conn {
    stream: TcpStream,
    outgoing: Sender<Vec<u8>>,
    backlog: Arc<Backlog>,
    dialect: Dialect,
    id: ConnId,
    role: Role,
    /// The key that the socket has open.
    key: Option<String>,
    /// Whether the socket waits for a key.
    waits: bool,
    /// Replies that a pong overtakes.
    delayed: Vec<Frame>,
    /// Whether no close frame was sent to the client.
    open: bool,
}

/// The write buffer of a client.
#[derive(Default)]
struct Backlog {
    bytes: AtomicUsize,
    /// Whether the writer thread has ended.
    is_closed: AtomicBool,
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
            started: Instant::now(),
            made_tokens: 0,
            tokens: BTreeMap::new(),
            is_shut_down: false,
        }
    }

    /// Simulates a crash: closes every connection and resets the state.
    fn crash(&mut self) {
        for conn in self.conns.values() {
            // Fails if the connection is closed.
            let _ = conn.stream.shutdown(Shutdown::Both);
        }
        *self = Self::new(self.defect, &self.limits);
    }

    pub(super) fn shut_down(&mut self) {
        self.crash();
        self.is_shut_down = true;
    }

    pub(super) fn is_shut_down(&self) -> bool {
        self.is_shut_down
    }

    fn now(&self) -> Time {
        Time::from_duration(self.started.elapsed())
    }

    /// Ends what has waited for too long.
    pub(super) fn handle_timeout(&mut self) {
        let now = self.now();
        let outputs = self.hub.handle_timeout(now);
        self.deliver(outputs);
        self.send_delayed();
    }

    /// Sends the replies that pongs may have overtaken.
    pub(super) fn send_delayed(&mut self) {
        let delayed: Vec<_> = self
            .conns
            .iter_mut()
            .map(|(socket, conn)| (*socket, mem::take(&mut conn.delayed)))
            .collect();
        for (socket, frames) in delayed {
            frames.iter().for_each(|frame| self.send(socket, frame));
        }
    }

    /// Whether a client is not read: its plain join waits for a key.
    pub(super) fn is_stopped(&self, socket: u64) -> bool {
        let waits = |conn: &Conn| conn.waits && conn.dialect == Dialect::Plain;
        self.defect != Defect::ReadsDuringGrace && self.conns.get(&socket).is_some_and(waits)
    }

    pub(super) fn is_open(&self, socket: u64) -> bool {
        self.conns.get(&socket).is_some_and(|conn| conn.open)
    }

    /// Adds a connection after its handshake.
    pub(super) fn insert(
        &mut self,
        socket: u64,
        dialect: Dialect,
        stream: TcpStream,
        response: Vec<u8>,
    ) -> io::Result<()> {
        let now = self.now();
        let id = self.hub.connect(now, dialect.profile()).map_err(io::Error::other)?;
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
            waits: false,
            delayed: Vec::new(),
            open: true,
        };
        conn.queue(response);
        self.conns.insert(socket, conn);
        Ok(())
    }

    /// Handles a text from a connection.
    pub(super) fn receive(&mut self, socket: u64, text: &str) {
        let Some(conn) = self.conns.get(&socket) else { return };
        let (id, dialect, role) = (conn.id, conn.dialect, conn.role);
        let replacement;
        let text = match self.defect.effect(text, dialect, role) {
            Effect::Nothing => text,
            Effect::Kill => return self.crash(),
            Effect::Close => return self.close(id, CloseReason::UnknownType),
            Effect::Relay(opener) if self.conns.get(&opener).is_some_and(|it| it.dialect == Dialect::Plain) => {
                return self.send(opener, &Frame::Text(text.into()));
            }
            Effect::Relay(_) => text,
            Effect::Replace(other) => {
                replacement = other;
                &replacement
            }
        };
        match self.decode(socket, dialect, text) {
            Ok(message) => self.handle(socket, id, role, message),
            Err(reason) => match (self.defect, reason) {
                (Defect::BrokenJsonKills, CloseReason::InvalidJson)
                | (Defect::NonObjectKills, CloseReason::NotAnObject)
                | (Defect::BrokenFramesKill, CloseReason::TooBig) => self.crash(),
                _ => self.close(id, reason),
            },
        }
    }

    fn handle(&mut self, socket: u64, id: ConnId, role: Role, message: InboundMessage) {
        let message = self.misread(message);
        match (self.defect, role, &message) {
            (Defect::IndexOfNobodyKills, Role::Opener(joined), InboundMessage::Data { to, .. }) => match to {
                Addressee::Index(index) if index.get() < joined => {}
                Addressee::Unnamed => {}
                Addressee::Index(_) | Addressee::OutOfRange | Addressee::Malformed => return self.crash(),
            },
            (Defect::AnswerToGoneKills, Role::Opener(joined), InboundMessage::Data { to, .. }) => {
                let Addressee::Index(index) = to else {
                    return self.pass_to_hub(id, message);
                };
                let its = Role::Joiner(socket, index.get());
                if index.get() < joined && !self.conns.values().any(|conn| conn.role == its) {
                    return self.crash();
                }
            }
            (Defect::JoinWhileClosingKills, _, InboundMessage::Join { key, .. }) => {
                let its = |conn: &Conn| !conn.open && conn.key.as_deref() == Some(key.as_str());
                if self.conns.values().any(its) {
                    return self.crash();
                }
            }
            // An opener with a token may be accepted.
            (Defect::RefusedOpenerTakesTheKey, Role::Nothing, InboundMessage::Open { key, token: None, .. }) => {
                let has = |conn: &Conn| conn.key.as_deref() == Some(key.as_str());
                if self.conns.values().any(has) {
                    self.stolen.insert(key.as_str().into(), socket);
                }
            }
            (Defect::RefusedOpenerTakesTheKey, Role::Nothing, InboundMessage::Join { key, .. })
                if self.stolen.contains_key(key.as_str()) =>
            {
                return;
            }
            (Defect::SecondOpenOrphansTheFirst, Role::Opener(_), InboundMessage::Open { .. }) => {
                // The notices are dropped.
                let now = self.now();
                drop(self.hub.disconnect(now, id, Disconnect::Clean));
                if let Some(id) = self.connect_again(socket) {
                    if let Some(conn) = self.conns.get_mut(&socket) {
                        conn.id = id;
                    }
                    return self.pass_to_hub(id, message);
                }
            }
            (Defect::RolesAddUp, Role::Opener(_) | Role::Joiner(..), InboundMessage::Join { .. }) => {
                if let Some(id) = self.connect_again(socket) {
                    return self.pass_to_hub(id, message);
                }
            }
            (Defect::LeaveDoesNotEndWait, _, InboundMessage::Leave)
                if self.conns.get(&socket).is_some_and(|conn| conn.waits) =>
            {
                return;
            }
            _ => {}
        }
        self.pass_to_hub(id, message);
    }

    /// Returns the message that a defective server handles in place of a `meet`, or of a message with a token.
    fn misread(&self, message: InboundMessage) -> InboundMessage {
        match (self.defect, message) {
            (
                Defect::MeetOnlyOpens | Defect::MeetIsOpenOrJoin,
                InboundMessage::Meet {
                    key,
                    id,
                    token,
                    new_token,
                    ..
                },
            ) => {
                let has = |conn: &Conn| conn.key.as_deref() == Some(key.as_str());
                let is_join = self.defect == Defect::MeetIsOpenOrJoin && self.conns.values().any(has);
                if is_join && token.is_none() {
                    let wait = Duration::ZERO;
                    InboundMessage::Join { key, id, wait }
                } else {
                    InboundMessage::Open {
                        key,
                        id,
                        token,
                        new_token,
                    }
                }
            }
            (Defect::AnyTokenTakesOver | Defect::OldTokenTakesOver, mut message) => {
                if let InboundMessage::Open { key, token, .. } | InboundMessage::Meet { key, token, .. } = &mut message
                {
                    let tokens = self.tokens.get(key.as_str()).map_or(&[][..], Vec::as_slice);
                    let is_accepted =
                        |shown: &Token| self.defect == Defect::AnyTokenTakesOver || tokens.contains(shown);
                    if token.as_ref().is_some_and(is_accepted) {
                        *token = tokens.last().cloned();
                    }
                }
                message
            }
            (_, message) => message,
        }
    }

    /// Adds another connection to the hub for the same socket.
    fn connect_again(&mut self, socket: u64) -> Option<ConnId> {
        let dialect = self.conns.get(&socket)?.dialect;
        let now = self.now();
        let id = self.hub.connect(now, dialect.profile()).ok()?;
        self.sockets.insert(id, socket);
        Some(id)
    }

    fn pass_to_hub(&mut self, id: ConnId, message: InboundMessage) {
        let gives_up_role = matches!(message, InboundMessage::Leave | InboundMessage::CloseKey);
        let now = self.now();
        let outputs = self.hub.handle(now, id, message);
        let is_answer = |(to, _): &(ConnId, OutboundMessage)| *to == id;
        if gives_up_role && !outputs.iter().any(is_answer) {
            self.set_role(id, Role::Nothing);
        }
        self.deliver(outputs);
    }

    fn close(&mut self, id: ConnId, reason: CloseReason) {
        let now = self.now();
        let outputs = self.hub.close(now, id, reason);
        self.deliver(outputs);
    }

    /// Handles invalid frames on a connection.
    pub(super) fn violation(&mut self, socket: u64, reason: CloseReason) {
        let Some(conn) = self.conns.get(&socket) else { return };
        match (self.defect, reason) {
            (Defect::BrokenFramesKill, CloseReason::BrokenFraming | CloseReason::InvalidUtf8 | CloseReason::TooBig) => {
                self.crash();
            }
            _ => self.close(conn.id, reason),
        }
    }

    /// Handles a close frame from a connection.
    pub(super) fn receive_close(&mut self, socket: u64, code: Option<u16>) {
        self.send_delayed();
        self.send(socket, &Frame::CloseReply(code));
        if let Some(conn) = self.conns.get_mut(&socket) {
            conn.open = false;
            conn.finish();
        }
        match self.defect {
            Defect::JoinWhileClosingKills => {}
            Defect::ClosedKeyIsReserved => self.disconnect(socket, Disconnect::Lost),
            _ => self.disconnect(socket, Disconnect::Clean),
        }
    }

    /// Removes a closed connection.
    pub(super) fn remove(&mut self, socket: u64) {
        self.disconnect(
            socket,
            match self.defect {
                Defect::LostKeyIsFree | Defect::WithoutAdditions => Disconnect::Clean,
                _ => Disconnect::Lost,
            },
        );
        self.conns.remove(&socket);
        self.stolen.retain(|_, thief| *thief != socket);
    }

    fn disconnect(&mut self, socket: u64, how: Disconnect) {
        let ids: Vec<ConnId> = self
            .sockets
            .iter()
            .filter(|(_, its)| **its == socket)
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.sockets.remove(&id);
            let now = self.now();
            let outputs = self.hub.disconnect(now, id, how);
            self.deliver(outputs);
        }
        if let Some(conn) = self.conns.get_mut(&socket) {
            (conn.role, conn.key) = (Role::Nothing, None);
        }
    }

    fn deliver(&mut self, mut outputs: Outputs) {
        self.update_roles(&outputs);
        if self.defect == Defect::WaitersJoinInReverse {
            reverse_joiners(&mut outputs);
        }
        let mut outputs = VecDeque::from(outputs);
        while let Some((id, message)) = outputs.pop_front() {
            let Some(socket) = self.sockets.get(&id).copied() else {
                continue;
            };
            let Some(conn) = self.conns.get(&socket).filter(|conn| conn.open) else {
                continue;
            };
            let is_opener_left = matches!(
                message,
                OutboundMessage::Close(CloseReason::OpenerLeft) | OutboundMessage::RoleEnded(RoleEnd::OpenerLeft)
            );
            if is_opener_left && self.defect == Defect::OpenerLeavesInSilence {
                continue;
            }
            let is_overtaken = self.defect == Defect::PongOvertakes
                && conn.dialect == Dialect::V1
                && !matches!(message, OutboundMessage::Pong | OutboundMessage::Data { .. });
            match self.encode(socket, conn.dialect, message) {
                Some(frame @ Frame::Text(_)) if is_overtaken => {
                    if let Some(conn) = self.conns.get_mut(&socket) {
                        conn.delayed.push(frame);
                    }
                }
                Some(Frame::Text(text)) => {
                    if conn.backlog.bytes.load(Ordering::Relaxed) > BACKLOG {
                        let now = self.now();
                        outputs.extend(self.hub.close(now, id, CloseReason::TooSlow));
                    } else {
                        self.send(socket, &Frame::Text(text));
                    }
                }
                Some(Frame::Close(reason)) => {
                    self.send_delayed();
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

    fn make_token(&mut self) -> Token {
        self.made_tokens += 1;
        Token::from_random(self.made_tokens)
    }

    /// Decodes a text, and generates a key if the client requests one, and a token.
    fn decode(&mut self, socket: u64, dialect: Dialect, text: &str) -> Result<InboundMessage, CloseReason> {
        match Decoder::new(dialect, &self.limits).decode(text)? {
            InboundMessage::OpenGenerated { id } => Ok(InboundMessage::Open {
                key: Key::from_random(socket.into(), &self.limits)?,
                id,
                token: None,
                new_token: Some(self.make_token()),
            }),
            mut message => {
                if let InboundMessage::Open { new_token, .. } | InboundMessage::Meet { new_token, .. } = &mut message {
                    *new_token = Some(self.make_token());
                }
                Ok(message)
            }
        }
    }

    /// Encodes a message for a socket.
    fn encode(&self, socket: u64, dialect: Dialect, message: OutboundMessage) -> Option<Frame> {
        /// A number that occurs in no message.
        const MARK: u32 = 4_000_000_001;

        let message = self.garble(message)?;
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

    /// Returns what a defective server sends in place of a message; `None` if it sends nothing.
    fn garble(&self, message: OutboundMessage) -> Option<OutboundMessage> {
        Some(match (self.defect, message) {
            (
                Defect::TakeoverInSilence,
                OutboundMessage::Reopened { .. } | OutboundMessage::RoleEnded(RoleEnd::TakenOver),
            ) => return None,
            (Defect::TakeoverListsNobody, OutboundMessage::Opened { key, token, .. }) => OutboundMessage::Opened {
                key,
                token,
                joiners: Vec::new(),
            },
            (Defect::WithoutAdditions, OutboundMessage::Opened { key, .. }) => OutboundMessage::Opened {
                key,
                token: None,
                joiners: Vec::new(),
            },
            (Defect::IdReachesNobody, OutboundMessage::Joined { index, .. }) => {
                OutboundMessage::Joined { index, id: None }
            }
            (Defect::IdReachesNobody, OutboundMessage::PeerJoined { index, .. }) => {
                OutboundMessage::PeerJoined { index, id: None }
            }
            (_, message) => message,
        })
    }

    /// Updates the roles of sockets.
    fn update_roles(&mut self, outputs: &Outputs) {
        let mut opener = None;
        let mut previous = None;
        for (id, message) in outputs {
            match message {
                OutboundMessage::RoleEnded(RoleEnd::TakenOver) => previous = self.sockets.get(id).copied(),
                OutboundMessage::Opened { joiners, .. } => {
                    let joined = joiners.iter().map(|joiner| joiner.index.get() + 1).max();
                    self.set_role(*id, Role::Opener(joined.unwrap_or(0)));
                    self.move_joiners(previous, *id);
                }
                OutboundMessage::PeerJoined { index, .. } => {
                    opener = self.sockets.get(id).copied();
                    self.set_role(*id, Role::Opener(index.get() + 1));
                }
                _ => {}
            }
        }
        for (id, message) in outputs {
            match message {
                OutboundMessage::Opened { key, token, .. } => {
                    let tokens = self.tokens.entry(key.as_str().into()).or_default();
                    tokens.extend(token.clone());
                    if let Some(conn) = self.sockets.get(id).and_then(|socket| self.conns.get_mut(socket)) {
                        conn.key = Some(key.as_str().into());
                    }
                }
                OutboundMessage::Joined { index, .. } => {
                    self.set_waits(*id, false);
                    if let Some(opener) = opener {
                        self.set_role(*id, Role::Joiner(opener, index.get()));
                    }
                }
                OutboundMessage::RoleEnded(_) | OutboundMessage::Close(_) => {
                    self.set_waits(*id, false);
                    self.set_role(*id, Role::Nothing);
                }
                OutboundMessage::Waiting { .. } => self.set_waits(*id, true),
                OutboundMessage::Refused(Refusal::UnknownKey { .. }) => self.set_waits(*id, false),
                OutboundMessage::Reopened { .. }
                | OutboundMessage::PeerJoined { .. }
                | OutboundMessage::Data { .. }
                | OutboundMessage::PeerLeft { .. }
                | OutboundMessage::Refused(_)
                | OutboundMessage::Pong => {}
            }
        }
    }

    /// After a takeover, moves the joiners of the previous opener to the next one.
    fn move_joiners(&mut self, previous: Option<u64>, next: ConnId) {
        let (Some(previous), Some(&next)) = (previous, self.sockets.get(&next)) else {
            return;
        };
        for conn in self.conns.values_mut() {
            match &mut conn.role {
                Role::Joiner(opener, _) if *opener == previous => *opener = next,
                Role::Joiner(..) | Role::Opener(_) | Role::Nothing => {}
            }
        }
    }

    fn set_waits(&mut self, id: ConnId, waits: bool) {
        if let Some(conn) = self.sockets.get(&id).and_then(|socket| self.conns.get_mut(socket)) {
            conn.waits = waits;
        }
    }

    fn set_role(&mut self, id: ConnId, role: Role) {
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
            // Waits until the client has read everything, while holding the lock.
            let backlog = &conn.backlog;
            while backlog.bytes.load(Ordering::Relaxed) > 0 && !backlog.is_closed.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_micros(50));
            }
        }
        conn.queue(bytes.into());
    }
}

/// Reverses the order of the joiners that one open lets in.
fn reverse_joiners(outputs: &mut Outputs) {
    let is_joined = |message: &OutboundMessage| matches!(message, OutboundMessage::Joined { .. });
    let joined: Vec<ConnId> = outputs
        .iter()
        .filter_map(|(id, message)| is_joined(message).then_some(*id))
        .collect();
    let places = outputs.iter_mut().filter(|(_, message)| is_joined(message));
    for ((id, _), other) in places.zip(joined.into_iter().rev()) {
        *id = other;
    }
}

impl Conn {
    fn queue(&self, bytes: Vec<u8>) {
        self.backlog.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        // Fails if the connection is broken, which the reader detects.
        let _ = self.outgoing.send(bytes);
    }

    /// Ends the queue.
    fn finish(&self) {
        let _ = self.outgoing.send(Vec::new());
    }
}

/// Writes queued bytes until the connection fails. An empty vector ends the queue.
fn write_out(frames: &Receiver<Vec<u8>>, mut sink: &TcpStream, backlog: &Backlog) {
    for bytes in frames {
        if bytes.is_empty() || sink.write_all(&bytes).is_err() {
            break;
        }
        backlog.bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
    }
    backlog.is_closed.store(true, Ordering::Relaxed);
    // Fails where the connection has ended.
    let _ = sink.shutdown(Shutdown::Write);
}
