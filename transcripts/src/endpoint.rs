//! A [`Stage`] that runs an [`Endpoint`] and its clients in one process and in virtual time. A naive frame reader parses raw bytes.

use core::{net::Ipv4Addr, num::NonZeroU32, time::Duration};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
};

use sigver_core::{CloseReason, ConnId, Dialect, Endpoint, EndpointConfig, Frame, Input, Output, Time};

use crate::{
    Frame as Sent, Limit, Seen, Stage, Transcript, Wait,
    frames::{Event, FrameReader},
};

/// Returns the default configuration with the limits that a transcript sets.
pub fn config(transcript: &Transcript) -> EndpointConfig {
    let mut config = EndpointConfig::default();
    for (limit, value) in &transcript.limits {
        set(&mut config, *limit, *value);
    }
    config
}

/// Sets a limit of a transcript.
pub fn set(config: &mut EndpointConfig, limit: Limit, value: u32) {
    match limit {
        Limit::Depth => config.limits.depth = value,
        Limit::JoinersPerKey => config.limits.joiners_per_key = value,
        Limit::KeyAttempts => config.key_attempts_per_minute = NonZeroU32::new(value),
        Limit::KeyBytes => config.limits.key_bytes = value,
        Limit::MessageBytes => config.limits.message_bytes = value,
    }
}

/// An endpoint and its clients, in virtual time.
pub struct InMemory {
    endpoint: Endpoint,
    now: Time,
    names: BTreeMap<ConnId, char>,
    clients: BTreeMap<char, Client>,
}

struct Client {
    id: ConnId,
    reader: FrameReader,
    /// Text and close frames that the player has not consumed.
    inbox: VecDeque<Seen>,
    pongs: usize,
    /// Whether the endpoint does not read from it.
    is_stopped: bool,
    /// Whether a close frame was consumed.
    is_closed: bool,
    is_disconnected: bool,
}

impl InMemory {
    /// Returns an endpoint without clients.
    pub fn new(config: EndpointConfig) -> Self {
        let mut made = 0x1234_5678_u128..;
        Self {
            // As random as a test needs.
            endpoint: Endpoint::new(config, move || made.next()),
            now: Time::ZERO,
            names: BTreeMap::new(),
            clients: BTreeMap::new(),
        }
    }

    /// Returns the endpoint itself.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Closes all clients at once and advances the time by the close timeout.
    ///
    /// # Errors
    ///
    /// If the endpoint returns something unexpected.
    pub fn close_all(&mut self) -> io::Result<()> {
        let outputs = self.endpoint.close_all(self.now);
        self.carry_out(outputs)?;
        self.advance(self.endpoint.config().close_timeout)
    }

    fn client(&mut self, who: char) -> io::Result<&mut Client> {
        let client = self.clients.get_mut(&who);
        client.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, format!("{who} has not connected")))
    }

    fn input(&mut self, who: char, input: Input<'_>) -> io::Result<()> {
        let id = self.client(who)?.id;
        let outputs = self.endpoint.handle(self.now, id, input);
        self.carry_out(outputs)
    }

    fn carry_out(&mut self, outputs: Vec<(ConnId, Output)>) -> io::Result<()> {
        self.endpoint.assert_invariants();
        let mut outputs = VecDeque::from(outputs);
        while let Some((to, output)) = outputs.pop_front() {
            let who = self.names[&to];
            match output {
                Output::Send(frame) => {
                    outputs.extend(self.endpoint.written(self.now, to, frame.cost()));
                    self.receive_frame(who, frame)?;
                }
                Output::StopReading => self.client(who)?.is_stopped = true,
                Output::ResumeReading => self.client(who)?.is_stopped = false,
                Output::Abort => self.vanish(who)?,
                Output::PairingEnded(_) => {}
                unexpected => return Err(io::Error::other(format!("{who}: {unexpected:?}"))),
            }
        }
        Ok(())
    }

    fn receive_frame(&mut self, who: char, frame: Frame) -> io::Result<()> {
        let client = self.client(who)?;
        match frame {
            Frame::Text(text) => client.inbox.push_back(Seen::Text(text)),
            Frame::Close(reason) => client.inbox.push_back(seen_close(reason)),
            Frame::CloseReply(code) => client.inbox.push_back(Seen::Close(code, String::new())),
            Frame::Ping => self.input(who, Input::Pong)?,
            Frame::Pong(_) => client.pongs += 1,
        }
        Ok(())
    }

    fn advance(&mut self, time: Duration) -> io::Result<()> {
        let end = self.now.saturating_add(time);
        while let Some(due) = self.endpoint.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let outputs = self.endpoint.handle_timeout(self.now);
            self.carry_out(outputs)?;
        }
        self.now = end;
        Ok(())
    }
}

fn seen_close(reason: CloseReason) -> Seen {
    Seen::Close(Some(reason.code()), reason.to_string())
}

impl Stage for InMemory {
    fn connect(&mut self, who: char, subprotocol: Option<&str>) -> io::Result<()> {
        let header = subprotocol.map(str::as_bytes);
        let offers = Dialect::parse_offers(header).map_err(io::Error::other)?;
        let (dialect, _) = Dialect::negotiate(offers);
        let connected = self.endpoint.connect(self.now, dialect, Ipv4Addr::LOCALHOST.into());
        let id = connected.map_err(io::Error::other)?;
        let client = Client {
            id,
            reader: FrameReader::default(),
            inbox: VecDeque::new(),
            pongs: 0,
            is_stopped: false,
            is_closed: false,
            is_disconnected: false,
        };
        self.names.insert(id, who);
        self.clients.insert(who, client);
        Ok(())
    }

    fn send(&mut self, who: char, frame: &Sent) -> io::Result<()> {
        match frame {
            Sent::Text(text) => self.input(who, Event::text(text).as_input()),
            Sent::Binary(_) => self.input(who, Input::Binary),
            Sent::Raw(bytes) => {
                let events = self.client(who)?.reader.read(bytes);
                events.iter().try_for_each(|event| self.input(who, event.as_input()))
            }
            Sent::Pieces(pieces) => {
                // The last ping follows the complete message, which may close the connection.
                for _ in 1..pieces.len() {
                    let pongs = self.client(who)?.pongs;
                    self.input(who, Input::Ping(b""))?;
                    if self.client(who)?.pongs != pongs + 1 {
                        return Err(io::Error::other("no pong for a ping"));
                    }
                }
                self.input(who, Event::text(pieces.concat().as_bytes()).as_input())?;
                self.input(who, Input::Ping(b""))
            }
        }
    }

    /// A client whose close frame was consumed disconnects on the next call. For one whose plain join waits, the grace passes.
    fn receive(&mut self, who: char) -> io::Result<Seen> {
        let client = self.client(who)?;
        if client.inbox.is_empty() && client.is_stopped {
            self.advance(self.endpoint.config().limits.plain_join_grace)?;
        }
        let client = self.client(who)?;
        if let Some(seen) = client.inbox.pop_front() {
            client.is_closed |= matches!(seen, Seen::Close(..));
            return Ok(seen);
        }
        if client.is_closed && !client.is_disconnected {
            self.vanish(who)?;
        }
        let is_disconnected = self.client(who)?.is_disconnected;
        Ok(if is_disconnected { Seen::Lost } else { Seen::Nothing })
    }

    fn leftover(&mut self, who: char) -> io::Result<Seen> {
        match self.client(who)?.inbox.front() {
            Some(seen) => Ok(seen.clone()),
            None => self.receive(who),
        }
    }

    fn close(&mut self, who: char, code: Option<u16>) -> io::Result<()> {
        self.input(who, Input::Close(code))
    }

    fn vanish(&mut self, who: char) -> io::Result<()> {
        let client = self.client(who)?;
        client.is_disconnected = true;
        self.input(who, Input::Disconnected)
    }

    fn wait(&mut self, time: Wait) -> io::Result<()> {
        let role_deadline = self.endpoint.config().limits.role_deadline;
        self.advance(match time {
            Wait::RoleDeadline => role_deadline.unwrap_or_default(),
            Wait::Seconds(seconds) => Duration::from_secs(seconds.into()),
        })
    }
}
