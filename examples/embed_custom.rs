//! The core with custom messages, without JSON or sockets. The players of a game and the lobby that connects them are threads of one process,
//! which exchange values through channels.
//!
//! `cargo run --release --example embed_custom`
//!
//! The hub is a `Hub<Signal>`. It moves each [`Signal`] to its recipient without reading it, so the type needs no trait. [`decode`] and
//! [`encode`] convert between the messages of players and of the hub, as [`Dialect`](sigver_core::Dialect) does for text.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "prints what happens")]

use std::{
    collections::BTreeMap,
    error::Error,
    num::NonZeroU32,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use sigver_core::{
    Addressee, CloseReason, ConnId, Disconnect, Hub, InboundMessage, Index, Key, Limits, OutboundMessage, PayloadKind,
    Profile, RoleLifetime, Time,
};

/// A message between players. It is neither `Clone` nor `Debug`, because the hub needs no trait.
enum Signal {
    Offer { port: u16, nonce: [u8; 16] },
    Answer { port: u16, nonce: [u8; 16] },
}

/// A message from a player to the lobby.
enum Request {
    Host(String),
    Enter(String),
    /// The number is that of a guest, or `None` from a guest to its host.
    Send(Option<u32>, Signal),
    /// From a guest, which stays in the lobby.
    Leave,
}

/// A message from the lobby to a player.
enum Notice {
    Hosting,
    Entered,
    GuestEntered(u32),
    Received(Option<u32>, Signal),
    GuestLeft(u32),
    /// The request was refused, with the reason.
    Refused(String),
    /// The last message.
    Closed(CloseReason),
}

/// An event in the lobby.
enum Event {
    /// A player connects, with channels for notices and for its id.
    Connect(Sender<Notice>, Sender<ConnId>),
    Request(ConnId, Request),
    Disconnect(ConnId),
}

/// Players may take roles repeatedly and accept any signal.
const PROFILE: Profile = Profile {
    role_lifetime: RoleLifetime::Reusable,
    accepts: PayloadKind::Any,
};

fn main() -> Result<(), Box<dyn Error>> {
    let (events, inbox) = channel();
    let lobby = thread::spawn(move || Lobby::new().run(&inbox));

    let host = Player::new(&events)?;
    host.send(Request::Host("castle".into()))?;
    assert!(matches!(host.receive()?, Notice::Hosting));

    // A join with a wrong name is refused.
    let guest = Player::new(&events)?;
    guest.send(Request::Enter("cattle".into()))?;
    if let Notice::Refused(reason) = guest.receive()? {
        println!("guest is refused: {reason}");
    }
    guest.send(Request::Enter("castle".into()))?;
    assert!(matches!(guest.receive()?, Notice::Entered));
    let Notice::GuestEntered(number) = host.receive()? else {
        return Err("the host received no notice of its guest".into());
    };
    println!("host has guest {number}");

    guest.send(Request::Send(
        None,
        Signal::Offer {
            port: 4000,
            nonce: [7; 16],
        },
    ))?;
    let Notice::Received(Some(number), Signal::Offer { port, nonce }) = host.receive()? else {
        return Err("the host received no offer".into());
    };
    println!("host received an offer from guest {number}: port {port}");
    host.send(Request::Send(Some(number), Signal::Answer { port: 4001, nonce }))?;
    let Notice::Received(None, Signal::Answer { port, nonce }) = guest.receive()? else {
        return Err("the guest received no answer".into());
    };
    println!("guest received an answer: port {port}, nonce {}", nonce[0]);

    guest.send(Request::Leave)?;
    if let Notice::GuestLeft(number) = host.receive()? {
        println!("guest {number} has left");
    }

    // A player without a role is closed after the role deadline.
    let idle = Player::new(&events)?;
    if let Notice::Closed(reason) = idle.receive()? {
        println!("idle player is closed: {reason}");
    }

    // The lobby ends when all senders of its channel are dropped.
    drop((host, guest, idle, events));
    let stats = lobby.join().map_err(|_| "the lobby panicked")?;
    println!("{stats:?}");
    Ok(())
}

/// A player's ends of the channels.
struct Player {
    id: ConnId,
    events: Sender<Event>,
    notices: Receiver<Notice>,
}

impl Player {
    fn new(events: &Sender<Event>) -> Result<Self, Box<dyn Error>> {
        let (sender, notices) = channel();
        let (id_sender, id) = channel();
        events
            .send(Event::Connect(sender, id_sender))
            .map_err(|_| "the lobby has ended")?;
        Ok(Self {
            // If the lobby is full, it drops the sender.
            id: id.recv().map_err(|_| "the lobby is full")?,
            events: events.clone(),
            notices,
        })
    }

    fn send(&self, request: Request) -> Result<(), &'static str> {
        let event = Event::Request(self.id, request);
        self.events.send(event).map_err(|_| "the lobby has ended")
    }

    fn receive(&self) -> Result<Notice, RecvTimeoutError> {
        self.notices.recv_timeout(Duration::from_secs(10))
    }
}

/// Dropping a player disconnects it.
impl Drop for Player {
    fn drop(&mut self) {
        // Fails if the lobby has ended.
        let _ = self.events.send(Event::Disconnect(self.id));
    }
}

/// The hub and the channels to the players.
struct Lobby {
    hub: Hub<Signal>,
    players: BTreeMap<ConnId, Sender<Notice>>,
    opened: Instant,
}

impl Lobby {
    fn new() -> Self {
        let mut limits = Limits::default();
        limits.connections = NonZeroU32::new(100);
        limits.role_deadline = Some(Duration::from_millis(500));
        Self {
            hub: Hub::with_payload(limits),
            players: BTreeMap::new(),
            opened: Instant::now(),
        }
    }

    /// Handles events until all senders are dropped, and returns the statistics.
    fn run(mut self, events: &Receiver<Event>) -> sigver_core::Stats {
        loop {
            let due = self.hub.poll_timeout().map(|due| self.opened + due.as_duration());
            let event = match due {
                None => events.recv().map_err(RecvTimeoutError::from),
                Some(due) => events.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let outputs = match event {
                Ok(Event::Connect(notices, id_sender)) => {
                    if let Ok(id) = self.hub.connect(self.now(), PROFILE) {
                        self.players.insert(id, notices);
                        // Fails if the player has been dropped. Its disconnect event follows.
                        let _ = id_sender.send(id);
                    }
                    vec![]
                }
                Ok(Event::Disconnect(id)) => {
                    self.players.remove(&id);
                    self.hub.disconnect(self.now(), id, Disconnect::Clean)
                }
                Ok(Event::Request(id, request)) => match decode(request, self.hub.limits()) {
                    Ok(message) => self.hub.handle(self.now(), id, message),
                    Err(reason) => self.hub.close(self.now(), id, reason),
                },
                Err(RecvTimeoutError::Timeout) => self.hub.handle_timeout(self.now()),
                Err(RecvTimeoutError::Disconnected) => return self.hub.stats(),
            };
            self.deliver(outputs);
        }
    }

    /// Sends the outputs of the hub to the players. Sending fails if a player was dropped, whose disconnect event follows.
    fn deliver(&mut self, outputs: Vec<(ConnId, OutboundMessage<Signal>)>) {
        for (to, message) in outputs {
            let is_last = matches!(message, OutboundMessage::Close(_));
            if let (Some(player), Some(notice)) = (self.players.get(&to), encode(message)) {
                let _ = player.send(notice);
            }
            if is_last {
                self.players.remove(&to);
            }
        }
    }

    fn now(&self) -> Time {
        Time::from_duration(self.opened.elapsed())
    }
}

/// Converts a request of a player for the hub.
fn decode(request: Request, limits: &Limits) -> Result<InboundMessage<Signal>, CloseReason> {
    Ok(match request {
        Request::Host(name) => InboundMessage::Open {
            key: Key::new(&name, limits)?,
            id: None,
            // Players do not come back after a lost connection.
            token: None,
            new_token: None,
        },
        Request::Enter(name) => InboundMessage::Join {
            key: Key::new(&name, limits)?,
            id: None,
            wait: Duration::ZERO,
        },
        Request::Send(to, signal) => InboundMessage::Data {
            to: to.map_or(Addressee::Unnamed, |number| Addressee::Index(Index::new(number))),
            kind: PayloadKind::Any,
            payload: signal,
        },
        Request::Leave => InboundMessage::Leave,
    })
}

/// Converts a message of the hub for a player; `None` for replies to requests that players do not have. The match is exhaustive, so that a
/// new kind of message does not compile.
fn encode(message: OutboundMessage<Signal>) -> Option<Notice> {
    Some(match message {
        OutboundMessage::Opened { .. } => Notice::Hosting,
        OutboundMessage::Joined { .. } => Notice::Entered,
        OutboundMessage::PeerJoined { index, .. } => Notice::GuestEntered(index.get()),
        OutboundMessage::Data { from, payload } => Notice::Received(from.map(Index::get), payload),
        OutboundMessage::PeerLeft { index } => Notice::GuestLeft(index.get()),
        OutboundMessage::Refused(refusal) => Notice::Refused(refusal.to_string()),
        OutboundMessage::RoleEnded(end) => Notice::Refused(end.name().into()),
        OutboundMessage::Waiting { .. } | OutboundMessage::Reopened { .. } | OutboundMessage::Pong => return None,
        OutboundMessage::Close(reason) => Notice::Closed(reason),
    })
}
