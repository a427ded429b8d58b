//! The core with messages of one's own: no JSON, no sockets, no text. Players of a game are threads of one process, the lobby that
//! introduces them is another, and what goes between them are values in channels.
//!
//! `cargo run --release --example embed_custom`
//!
//! The hub is `Hub<Signal>`: it moves a [`Signal`] from one side to the other and never looks into it, so it needs no trait. What
//! [`Dialect`](sigver_core::Dialect) is for text, [`heard`] and [`said`] are here: between what players say and what the hub understands.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is what the example shows")]

use std::num::NonZeroU32;

use std::{
    collections::BTreeMap,
    error::Error,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use sigver_core::{
    Addressee, CloseReason, ConnId, Hub, InboundMessage, Index, Key, Limits, OutboundMessage, PayloadKind, Profile,
    RoleLifetime, Time,
};

/// What players send each other. Neither `Clone` nor `Debug`: the hub wants nothing of it.
enum Signal {
    Offer { port: u16, nonce: [u8; 16] },
    Answer { port: u16, nonce: [u8; 16] },
}

/// What a player says to the lobby.
enum Request {
    Host(String),
    Enter(String),
    /// For a host: to which guest. For a guest: `None`, to its host.
    Tell(Option<u32>, Signal),
    /// For a guest: it stays in the lobby.
    Leave,
}

/// What the lobby says to a player.
enum Notice {
    Hosting,
    Entered,
    Guest(u32),
    Told(Option<u32>, Signal),
    GuestLeft(u32),
    /// Nothing has changed, and why.
    Refused(String),
    /// The last.
    Out(CloseReason),
}

/// What happens in the lobby.
enum Event {
    /// A player comes, and is reached this way.
    Comes(Sender<Notice>, Sender<ConnId>),
    Says(ConnId, Request),
    Goes(ConnId),
}

/// Players may host or enter again and again, and can be given any signal: there is no kind that one of them does not take.
const PROFILE: Profile = Profile {
    role_lifetime: RoleLifetime::Reusable,
    accepts: PayloadKind::Any,
};

fn main() -> Result<(), Box<dyn Error>> {
    let (events, inbox) = channel();
    let lobby = thread::spawn(move || Lobby::new().run(&inbox));

    let host = Player::new(&events)?;
    host.say(Request::Host("castle".into()))?;
    assert!(matches!(host.hear()?, Notice::Hosting));

    // A guest that finds its host, and one that has the name wrong.
    let guest = Player::new(&events)?;
    guest.say(Request::Enter("cattle".into()))?;
    if let Notice::Refused(why) = guest.hear()? {
        println!("guest is refused: {why}");
    }
    guest.say(Request::Enter("castle".into()))?;
    assert!(matches!(guest.hear()?, Notice::Entered));
    let Notice::Guest(number) = host.hear()? else {
        return Err("the host is not told of its guest".into());
    };
    println!("host has guest {number}");

    guest.say(Request::Tell(
        None,
        Signal::Offer {
            port: 4000,
            nonce: [7; 16],
        },
    ))?;
    let Notice::Told(Some(number), Signal::Offer { port, nonce }) = host.hear()? else {
        return Err("the host hears no offer".into());
    };
    println!("host hears an offer of guest {number}: port {port}");
    host.say(Request::Tell(Some(number), Signal::Answer { port: 4001, nonce }))?;
    let Notice::Told(None, Signal::Answer { port, nonce }) = guest.hear()? else {
        return Err("the guest hears no answer".into());
    };
    println!("guest hears an answer: port {port}, nonce {}", nonce[0]);

    guest.say(Request::Leave)?;
    if let Notice::GuestLeft(number) = host.hear()? {
        println!("guest {number} has left");
    }

    // Somebody who comes and wants nothing has no place for ever.
    let idle = Player::new(&events)?;
    if let Notice::Out(reason) = idle.hear()? {
        println!("who only stands there is out: {reason}");
    }

    // The lobby ends when nobody can come any more.
    drop((host, guest, idle, events));
    let stats = lobby.join().map_err(|_| "the lobby has panicked")?;
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
        let (named, name) = channel();
        events
            .send(Event::Comes(sender, named))
            .map_err(|_| "the lobby is gone")?;
        Ok(Self {
            // Dropped unused if the lobby is full.
            id: name.recv().map_err(|_| "the lobby is full")?,
            events: events.clone(),
            notices,
        })
    }

    fn say(&self, request: Request) -> Result<(), &'static str> {
        let event = Event::Says(self.id, request);
        self.events.send(event).map_err(|_| "the lobby is gone")
    }

    fn hear(&self) -> Result<Notice, RecvTimeoutError> {
        self.notices.recv_timeout(Duration::from_secs(10))
    }
}

/// Whoever is dropped has gone.
impl Drop for Player {
    fn drop(&mut self) {
        // Without a lobby there is nobody to tell.
        let _ = self.events.send(Event::Goes(self.id));
    }
}

/// Owns the hub.
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

    /// Handles what happens until nothing can happen any more.
    fn run(mut self, events: &Receiver<Event>) -> sigver_core::Stats {
        loop {
            let due = self.hub.poll_timeout().map(|due| self.opened + due.as_duration());
            let event = match due {
                None => events.recv().map_err(RecvTimeoutError::from),
                Some(due) => events.recv_timeout(due.saturating_duration_since(Instant::now())),
            };
            let outputs = match event {
                Ok(Event::Comes(notices, named)) => {
                    if let Ok(id) = self.hub.connect(self.now(), PROFILE) {
                        self.players.insert(id, notices);
                        // A player that is gone already will be found out when it is told something.
                        let _ = named.send(id);
                    }
                    vec![]
                }
                Ok(Event::Goes(id)) => {
                    self.players.remove(&id);
                    self.hub.disconnect(id)
                }
                Ok(Event::Says(id, request)) => match heard(request, self.hub.limits()) {
                    Ok(message) => self.hub.handle(id, message),
                    Err(reason) => self.hub.close(id, reason),
                },
                Err(RecvTimeoutError::Timeout) => self.hub.handle_timeout(self.now()),
                Err(RecvTimeoutError::Disconnected) => return self.hub.stats(),
            };
            self.deliver(outputs);
        }
    }

    /// Tells players what follows. One that is not there any more will say that it goes, or has.
    fn deliver(&mut self, outputs: Vec<(ConnId, OutboundMessage<Signal>)>) {
        for (to, message) in outputs {
            let is_last = matches!(message, OutboundMessage::Close(_));
            if let Some(player) = self.players.get(&to) {
                let _ = player.send(said(message));
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

/// What a player says, as the hub understands it.
fn heard(request: Request, limits: &Limits) -> Result<InboundMessage<Signal>, CloseReason> {
    Ok(match request {
        Request::Host(name) => InboundMessage::Open {
            key: Key::new(&name, limits)?,
        },
        Request::Enter(name) => InboundMessage::Join {
            key: Key::new(&name, limits)?,
        },
        Request::Tell(to, signal) => InboundMessage::Data {
            to: to.map_or(Addressee::Unnamed, |number| Addressee::Index(Index::new(number))),
            kind: PayloadKind::Any,
            payload: signal,
        },
        Request::Leave => InboundMessage::Leave,
    })
}

/// What the hub says, as a player understands it. A message that is added to the hub's is an error here, and not forgotten.
fn said(message: OutboundMessage<Signal>) -> Notice {
    match message {
        OutboundMessage::Opened { .. } => Notice::Hosting,
        OutboundMessage::Joined { .. } => Notice::Entered,
        OutboundMessage::PeerJoined { index } => Notice::Guest(index.get()),
        OutboundMessage::Data { from, payload } => Notice::Told(from.map(Index::get), payload),
        OutboundMessage::PeerLeft { index } => Notice::GuestLeft(index.get()),
        OutboundMessage::Refused(refusal) => Notice::Refused(refusal.to_string()),
        OutboundMessage::RoleEnded(end) => Notice::Refused(end.name().into()),
        OutboundMessage::Close(reason) => Notice::Out(reason),
    }
}
