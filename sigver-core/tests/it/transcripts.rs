//! Plays every transcript against [`Endpoint`], in virtual time. Raw bytes are read by a naive reader of frames.

use core::{net::Ipv4Addr, time::Duration};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
};

use sigver_core::{ConnId, Dialect, Endpoint, EndpointConfig, Frame, Input, Output, Phase, Time};
use sigver_transcripts::{Frame as Sent, Limit, Seen, Stage, Transcript, all, play};

use crate::frames::{Event, FrameReader};

/// An endpoint and its clients.
struct Server {
    endpoint: Endpoint,
    now: Time,
    names: BTreeMap<ConnId, char>,
    clients: BTreeMap<char, Client>,
}

struct Client {
    id: ConnId,
    reader: FrameReader,
    /// Text and close frames that it received.
    inbox: VecDeque<Seen>,
    pongs: usize,
    is_disconnected: bool,
}

impl Server {
    fn new(transcript: &Transcript) -> Self {
        let mut config = EndpointConfig::default();
        let limits = &mut config.limits;
        for (limit, value) in &transcript.limits {
            match limit {
                Limit::Depth => limits.depth = *value,
                Limit::JoinersPerKey => limits.joiners_per_key = *value,
                Limit::KeyBytes => limits.key_bytes = *value,
                Limit::MessageBytes => limits.message_bytes = *value,
            }
        }
        Self {
            endpoint: Endpoint::new(config, || Some(0x1234_5678)),
            now: Time::ZERO,
            names: BTreeMap::new(),
            clients: BTreeMap::new(),
        }
    }

    fn client(&mut self, who: char) -> &mut Client {
        let client = self.clients.get_mut(&who);
        client.expect("a client connects before anything else")
    }

    fn input(&mut self, who: char, input: Input<'_>) {
        let id = self.client(who).id;
        let outputs = self.endpoint.handle(self.now, id, input);
        self.carry_out(outputs);
    }

    fn carry_out(&mut self, outputs: Vec<(ConnId, Output)>) {
        self.endpoint.assert_invariants();
        for (to, output) in outputs {
            let who = self.names[&to];
            match output {
                Output::Send(frame) => {
                    self.endpoint.written(to, frame.cost());
                    self.receive_frame(who, frame);
                }
                Output::Abort => {
                    self.client(who).is_disconnected = true;
                    self.input(who, Input::Disconnected);
                }
                Output::PairingEnded(_) => {}
                unexpected => panic!("{who}: {unexpected:?}"),
            }
        }
    }

    fn receive_frame(&mut self, who: char, frame: Frame) {
        let client = self.client(who);
        match frame {
            Frame::Text(text) => client.inbox.push_back(Seen::Text(text)),
            Frame::Close(reason) => {
                let close = Seen::Close(Some(reason.code()), reason.to_string());
                client.inbox.push_back(close);
            }
            Frame::CloseReply(code) => client.inbox.push_back(Seen::Close(code, String::new())),
            Frame::Ping => self.input(who, Input::Pong),
            Frame::Pong(_) => client.pongs += 1,
        }
    }
}

impl Stage for Server {
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
                for event in self.client(who).reader.read(bytes) {
                    self.input(who, event.as_input());
                }
            }
            Sent::Pieces(pieces) => {
                // The last ping follows the whole text, which may close the connection.
                for _ in 1..pieces.len() {
                    let pongs = self.client(who).pongs;
                    self.input(who, Input::Ping(b""));
                    assert_eq!(self.client(who).pongs, pongs + 1, "{who}: each ping is answered");
                }
                self.input(who, Event::text(pieces.concat().as_bytes()).as_input());
                self.input(who, Input::Ping(b""));
            }
        }
        Ok(())
    }

    fn receive(&mut self, who: char) -> io::Result<Seen> {
        let client = self.client(who);
        let nothing = if client.is_disconnected {
            Seen::Lost
        } else {
            Seen::Nothing
        };
        Ok(client.inbox.pop_front().unwrap_or(nothing))
    }

    fn leftover(&mut self, who: char) -> io::Result<Seen> {
        self.receive(who)
    }

    fn close(&mut self, who: char, code: Option<u16>) -> io::Result<()> {
        self.input(who, Input::Close(code));
        self.vanish(who)
    }

    fn vanish(&mut self, who: char) -> io::Result<()> {
        self.client(who).is_disconnected = true;
        self.input(who, Input::Disconnected);
        Ok(())
    }

    fn wait_role_deadline(&mut self) -> io::Result<()> {
        let deadline = self.endpoint.config().limits.role_deadline;
        let end = self.now.saturating_add(deadline.unwrap_or(Duration::ZERO));
        while let Some(due) = self.endpoint.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let outputs = self.endpoint.handle_timeout(self.now);
            self.carry_out(outputs);
        }
        self.now = end;
        Ok(())
    }
}

#[test]
fn endpoint_plays_every_transcript_and_keeps_no_socket() -> Result<(), Box<dyn std::error::Error>> {
    let mut played = 0;
    for transcript in all()? {
        let mut server = Server::new(&transcript);
        play(&transcript, &mut server)?;
        played += 1;

        let outputs = server.endpoint.close_all(server.now);
        server.carry_out(outputs);
        server.wait_role_deadline()?;
        let is_empty = server.endpoint.sockets() == 0 && server.endpoint.poll_timeout().is_none();
        assert!(
            is_empty && server.endpoint.phase() == Phase::Closed,
            "{}",
            transcript.name
        );
    }
    assert!(played >= 60, "only {played} transcripts were found");
    Ok(())
}
