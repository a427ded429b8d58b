//! Plays every transcript that is not about frames against the bare core: no socket, and time is a number.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
};

use sigver_core::{CloseReason, ConnId, Dialect, Encoded, Hub, Limits, OutboundMessage, Time};
use sigver_transcripts::{Frame, Limit, Seen, Stage, Transcript, all, play};

/// The core, and what each client has received.
struct Core {
    hub: Hub,
    limits: Limits,
    now: Time,
    names: BTreeMap<ConnId, (char, Dialect)>,
    clients: BTreeMap<char, (ConnId, VecDeque<Seen>)>,
}

impl Core {
    fn new(transcript: &Transcript) -> Self {
        let mut limits = Limits::default();
        for (limit, value) in &transcript.limits {
            match limit {
                Limit::Depth => limits.depth = *value,
                Limit::JoinersPerKey => limits.joiners_per_key = *value,
                Limit::KeyBytes => limits.key_bytes = *value,
                Limit::MessageBytes => limits.message_bytes = *value,
            }
        }
        Self {
            hub: Hub::new(limits.clone()),
            limits,
            now: Time::ZERO,
            names: BTreeMap::new(),
            clients: BTreeMap::new(),
        }
    }

    fn deliver(&mut self, outputs: Vec<(ConnId, OutboundMessage)>) {
        self.hub.assert_invariants();
        for (to, message) in outputs {
            let mut text = String::new();
            let (who, dialect) = self.names[&to];
            let seen = match dialect.encode(&message, &mut text) {
                Encoded::Nothing => continue,
                Encoded::Text => Seen::Text(text),
                Encoded::Close(reason) => Seen::Close(Some(reason.code()), reason.to_string()),
            };
            self.inbox(who).push_back(seen);
        }
    }

    fn inbox(&mut self, who: char) -> &mut VecDeque<Seen> {
        &mut self
            .clients
            .get_mut(&who)
            .expect("a client connects before anything else")
            .1
    }

    fn say(&mut self, from: ConnId, text: &[u8]) -> Vec<(ConnId, OutboundMessage)> {
        let decoded = match std::str::from_utf8(text) {
            Ok(text) => self.names[&from].1.decode(text, &self.limits, || Some(0x1234_5678)),
            Err(_) => Err(CloseReason::InvalidUtf8),
        };
        match decoded {
            Ok(message) => self.hub.handle(from, message),
            Err(reason) => self.hub.close(from, reason),
        }
    }
}

impl Stage for Core {
    fn connect(&mut self, who: char, subprotocol: Option<&str>) -> io::Result<()> {
        let (dialect, _) = Dialect::negotiate(subprotocol);
        let id = self
            .hub
            .connect(self.now, dialect.profile())
            .map_err(io::Error::other)?;
        self.names.insert(id, (who, dialect));
        self.clients.insert(who, (id, VecDeque::new()));
        Ok(())
    }

    fn send(&mut self, who: char, frame: &Frame) -> io::Result<()> {
        let from = self.clients[&who].0;
        let outputs = match frame {
            Frame::Text(text) => self.say(from, text),
            Frame::Pieces(pieces) => self.say(from, pieces.concat().as_bytes()),
            Frame::Binary(_) => self.hub.close(from, CloseReason::Binary),
            Frame::Raw(_) => return Err(io::Error::other("a transcript with raw bytes says `only sockets`")),
        };
        self.deliver(outputs);
        Ok(())
    }

    fn receive(&mut self, who: char) -> io::Result<Seen> {
        Ok(self.inbox(who).pop_front().unwrap_or(Seen::Nothing))
    }

    fn leftover(&mut self, who: char) -> io::Result<Seen> {
        self.receive(who)
    }

    fn close(&mut self, who: char, code: Option<u16>) -> io::Result<()> {
        self.vanish(who)?;
        self.inbox(who).push_back(Seen::Close(code, String::new()));
        Ok(())
    }

    fn vanish(&mut self, who: char) -> io::Result<()> {
        let outputs = self.hub.disconnect(self.clients[&who].0);
        self.deliver(outputs);
        Ok(())
    }

    fn wait_role_deadline(&mut self) -> io::Result<()> {
        if let Some(deadline) = self.hub.poll_timeout() {
            self.now = deadline;
        }
        let outputs = self.hub.handle_timeout(self.now);
        self.deliver(outputs);
        Ok(())
    }
}

#[test]
fn the_bare_core_plays_every_transcript() -> Result<(), Box<dyn std::error::Error>> {
    let mut played = 0;
    for transcript in all()?.iter().filter(|transcript| !transcript.only_sockets) {
        play(transcript, &mut Core::new(transcript))?;
        played += 1;
    }
    assert!(played >= 3, "only {played} transcripts were found");
    Ok(())
}
