//! One role on one key, on one connection after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    error::Error,
    fmt,
    sync::mpsc::Receiver,
};

use serde_json::Value;
use tungstenite::{Message, http::StatusCode, protocol::CloseFrame};

use super::{
    backoff::{Backoff, Bounds},
    input::{Input, Recipients},
    liveness::Times,
    messages::{Joiner, Received, SUBPROTOCOL, Sent},
    socket::{Reader, connect},
};

/// How long to wait for an opener, in seconds. It is the limit of the server by default. After it, the peer joins again.
const WAIT: u32 = 120;

/// What to connect to, and as what.
pub(crate) struct Options {
    pub(crate) url: String,
    pub(crate) role: Role,
    pub(crate) times: Times,
    pub(crate) backoff: Bounds,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The opener of this key, or of one that the server generates.
    Opener(Option<String>),
    /// A joiner of this key.
    Joiner(String),
}

/// A line for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Received data.
    Data(String),
    /// Anything else.
    Note(String),
}

/// Why a connection is over.
enum End {
    /// Everything was sent, and the connection is closed.
    Done,
    /// Another connection may succeed.
    Lost(Box<dyn Error>),
    /// Another connection would fail as well.
    Final(Box<dyn Error>),
}

impl<E: Into<Box<dyn Error>>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Lost(error.into())
    }
}

/// Takes a role, sends `lines` and shows what happens, until all lines were sent or the role is over. A lost connection is replaced by another
/// one, if there was a role before.
pub(crate) fn run(
    options: &Options,
    lines: Receiver<String>,
    show: &mut dyn FnMut(Line),
) -> Result<(), Box<dyn Error>> {
    let mut session = Session {
        options,
        key: match &options.role {
            Role::Opener(key) => key.clone(),
            Role::Joiner(key) => Some(key.clone()),
        },
        id: random_id()?,
        token: None,
        opener: None,
        joiners: BTreeMap::new(),
        phase: Phase::Requested,
        is_accepted: false,
        backoff: Backoff::new(options.backoff),
        input: Input::default(),
        lines: Some(lines),
        show,
    };
    loop {
        let error = match session.run_connection() {
            Ok(never) => match never {},
            Err(End::Done) => return Ok(()),
            Err(End::Final(error)) => return Err(error),
            Err(End::Lost(error)) => error,
        };
        if session.input.set_writer(None) {
            return Ok(());
        }
        if !session.is_accepted {
            return Err(error);
        }
        session.note(format_args!("{error}; connecting again"));
        if session.pause()? {
            return Ok(());
        }
    }
}

struct Session<'a> {
    options: &'a Options,
    /// The key, once the server has generated it.
    key: Option<String>,
    /// The name by which peers recognize this program after it has reconnected.
    id: String,
    /// Takes the key back after a lost connection.
    token: Option<String>,
    /// The id of a joiner's opener, and whether there was one.
    opener: Option<Option<String>>,
    /// The last index of each joiner with an id.
    joiners: BTreeMap<String, u32>,
    phase: Phase,
    /// Whether the server has ever accepted a request.
    is_accepted: bool,
    backoff: Backoff,
    input: Input,
    /// The lines to send, until the thread that sends them is started.
    lines: Option<Receiver<String>>,
    show: &'a mut dyn FnMut(Line),
}

/// The state of the request for the role.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Requested,
    Waiting,
    Held,
}

impl Session<'_> {
    /// Connects, requests the role and handles messages until the connection is over.
    fn run_connection(&mut self) -> Result<Infallible, End> {
        let Options { url, times, .. } = self.options;
        let (mut reader, writer) = connect(url, SUBPROTOCOL, *times).map_err(|error| {
            match error.downcast_ref() {
                // The origin or the token in the URL is not accepted.
                Some(tungstenite::Error::Http(response))
                    if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&response.status()) =>
                {
                    End::Final(error)
                }
                _ => End::Lost(error),
            }
        })?;
        if self.input.set_writer(Some(writer)) {
            return Err(End::Done);
        }
        self.request_role(&mut reader)?;
        loop {
            match reader.read()? {
                Message::Text(text) => {
                    let message = serde_json::from_str(&text).map_err(|error| End::Final(error.into()))?;
                    self.handle(message, &mut reader)?;
                }
                Message::Close(close) => return Err(self.closed(close)),
                Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
            }
        }
    }

    fn request_role(&mut self, reader: &mut Reader) -> Result<(), End> {
        self.phase = Phase::Requested;
        self.input.set_role(false);
        let id = self.id.clone();
        let request = match (&self.options.role, &self.key) {
            (Role::Joiner(_), Some(key)) => Sent::Join {
                key: key.clone(),
                wait: WAIT,
                id,
            },
            (Role::Opener(_) | Role::Joiner(_), key) => Sent::Open {
                key: key.clone(),
                token: self.token.clone(),
                id,
            },
        };
        Ok(reader.send(&request)?)
    }

    fn handle(&mut self, message: Received, reader: &mut Reader) -> Result<(), End> {
        match message {
            Received::Opened { key, token, joiners } => self.opened(key, token, joiners),
            Received::Waiting { key } => {
                self.note(format_args!("waiting for {key}"));
                self.accepted(Phase::Waiting);
            }
            Received::Joined { index, id } => self.joined(index, id),
            Received::Join(joiner) => self.peer_joined(joiner),
            Received::Leave { index } => {
                self.note(format_args!("{index} left"));
                self.change_joiners(|joiners| _ = joiners.remove(&index));
            }
            Received::Data { index, data } => self.show(index, &data),
            Received::Reopened => {
                self.note("opener has a new connection: what it has not answered may be lost");
            }
            Received::Closed { code } if code == "opener-left" => {
                self.note(code);
                return self.request_role(reader);
            }
            // Kicked, or taken over by a program that has the token.
            Received::Closed { code } => return Err(End::Final(code.into())),
            Received::Error { code, message } => return self.refused(&code, &message, reader),
            Received::Pong | Received::Unknown => {}
        }
        Ok(())
    }

    fn opened(&mut self, key: String, token: Option<String>, joiners: Vec<Joiner>) {
        let again = if self.is_accepted { " again" } else { "" };
        let present = joiners.iter().map(|joiner| joiner.index.to_string());
        let present = match present.collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => none,
            indexes => format!(", with {indexes}"),
        };
        self.note(format_args!("opened {key}{again}{present}"));
        (self.key, self.token) = (Some(key), token);
        let indexes = joiners.iter().map(|joiner| joiner.index).collect();
        self.input
            .change(|recipients| *recipients = Recipients::Joiners(indexes));
        // Ids stay, so that joiners are recognized that come again as well.
        self.joiners
            .extend(joiners.into_iter().filter_map(|it| Some((it.id?, it.index))));
        self.accepted(Phase::Held);
    }

    fn joined(&mut self, index: u32, id: Option<String>) {
        let opener = match &self.opener {
            Some(before) if id.is_some() && *before == id => ", to the same opener",
            Some(_) => ", to another opener",
            None => "",
        };
        self.note(format_args!("joined with index {index}{opener}"));
        self.opener = Some(id);
        self.accepted(Phase::Held);
    }

    fn peer_joined(&mut self, Joiner { index, id }: Joiner) {
        match id.and_then(|id| self.joiners.insert(id, index)) {
            Some(before) => self.note(format_args!("{index} joined, formerly {before}")),
            None => self.note(format_args!("{index} joined")),
        }
        self.change_joiners(|joiners| _ = joiners.insert(index));
    }

    fn change_joiners(&self, change: impl FnOnce(&mut BTreeSet<u32>)) {
        self.input.change(|recipients| match recipients {
            Recipients::Opener => {}
            Recipients::Joiners(joiners) => change(joiners),
        });
    }

    /// The role is held, or waits for its opener.
    fn accepted(&mut self, phase: Phase) {
        self.phase = phase;
        self.is_accepted = true;
        self.backoff.reset();
        self.input.start(&mut self.lines);
        self.input.set_role(phase == Phase::Held);
    }

    fn refused(&mut self, code: &str, message: &str, reader: &mut Reader) -> Result<(), End> {
        let error = format!("{code}: {message}");
        match (self.phase, code) {
            // Of a line.
            (Phase::Held, _) => self.note(error),
            // Nobody has opened the key in time.
            (Phase::Waiting, "unknown-key") => return self.request_role(reader),
            (_, "too-many-joiners" | "too-many-attempts") => return self.request_again(&error, reader),
            // The previous `opened`, with the current token, may be lost, or the server may not have noticed the loss of the opener.
            (_, "key-taken" | "unknown-key") if self.is_accepted => return self.request_again(&error, reader),
            _ => return Err(End::Final(error.into())),
        }
        Ok(())
    }

    fn request_again(&mut self, error: &str, reader: &mut Reader) -> Result<(), End> {
        self.note(format_args!("{error}; trying again"));
        if self.pause()? {
            return Err(End::Done);
        }
        self.request_role(reader)
    }

    /// Returns what a close frame means.
    fn closed(&self, close: Option<CloseFrame>) -> End {
        // The reply to our close frame, after the last line.
        if self.input.is_done() {
            return End::Done;
        }
        let Some(CloseFrame { code, reason }) = close else {
            return End::Lost("closed by the server".into());
        };
        let error = format!("closed by the server: {} {reason}", u16::from(code));
        match u16::from(code) {
            1001 | 1011 | 1012 | 1013 => End::Lost(error.into()),
            1008 if reason.as_str() == "no sign of life" => End::Lost(error.into()),
            _ => End::Final(error.into()),
        }
    }

    /// Waits before the next attempt. Returns whether all lines were sent.
    fn pause(&mut self) -> Result<bool, getrandom::Error> {
        let mut random = [0; 4];
        getrandom::fill(&mut random)?;
        let time = self.backoff.next(u32::from_ne_bytes(random));
        Ok(self.input.sleep(time))
    }

    fn show(&mut self, index: Option<u32>, data: &Value) {
        let text = match data {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        (self.show)(Line::Data(match index {
            Some(index) => format!("{index}: {text}"),
            None => text,
        }));
    }

    fn note(&mut self, note: impl fmt::Display) {
        (self.show)(Line::Note(note.to_string()));
    }
}

/// Returns a random id, which this program keeps.
fn random_id() -> Result<String, getrandom::Error> {
    let mut bits = [0; 8];
    getrandom::fill(&mut bits)?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bits)))
}
