//! Hostile cases, which transcripts cannot express: clients that are broken, slow, flooding or numerous.
//!
//! Each case runs beside a pair of bystanders in each dialect, which must not be affected. After the case, the server must still accept
//! connections and relay data.

mod crowds;
mod frames;
mod heads;
mod openers;
mod overtaking;
mod requests;
mod texts;

use std::{
    process, thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use sigver_transcripts::{
    Seen,
    socket::{Client, Opcode, Piece, Target, frame},
};
use socket2::SockRef;

use crate::{
    dialect::{Dialect, open},
    judge::Mismatch,
    options::Options,
    pair::{self, Pair},
};

/// A hostile case.
#[derive(Clone, Copy)]
pub(crate) struct Hostile {
    pub(crate) name: &'static str,
    /// The section of PROTOCOL.md that the case tests.
    pub(crate) section: &'static str,
    /// The expected behaviour, in a few words.
    pub(crate) expected: &'static str,
    pub(crate) runs: Runs,
    /// Whether the case tests what `--without-additions` skips.
    pub(crate) is_addition: bool,
    /// Whether the case waits for a timeout of the server. Such cases run at the same time as the others.
    pub(crate) waits: bool,
    act: fn(&mut Scene<'_>) -> Result<(), Mismatch>,
}

/// The dialects in which a case runs.
#[derive(Clone, Copy)]
pub(crate) enum Runs {
    InEachDialect,
    /// In the first dialect of the options: the case is about the handshake.
    Once,
    /// In this dialect, which alone has what the case tests.
    Only(Dialect),
}

impl Hostile {
    /// Returns every hostile case.
    pub(crate) fn all() -> impl Iterator<Item = &'static Self> {
        let files = [heads::CASES, frames::CASES, texts::CASES, crowds::CASES];
        let additions = [requests::CASES, openers::CASES, overtaking::CASES];
        files.into_iter().chain(additions).flatten()
    }

    /// Runs the case against a server, with a pair of bystanders in each dialect of the options.
    pub(crate) fn run(&self, target: &Target, dialect: Dialect, options: &Options) -> Result<(), Mismatch> {
        let dialects = options.dialects();
        let wait = if self.waits {
            options.head_deadline
        } else {
            Duration::ZERO
        };
        let mut scene = Scene {
            target,
            dialect,
            until: Instant::now() + options.deadline + wait,
            ordered_pongs: options.ordered_pongs,
            without_additions: options.without_additions,
            keys: 0,
            bystanders: Vec::new(),
        };
        for dialect in dialects {
            let pair = Pair::new(target, *dialect, &scene.key(), scene.until)?;
            scene.bystanders.push(pair);
        }
        // These messages are in flight during the case and must not be lost.
        for pair in &mut scene.bystanders {
            pair.send()?;
        }
        (self.act)(&mut scene)?;
        scene.bystanders_unaffected().map_err(|mismatch| Mismatch {
            expected: format!("bystanders are not affected: {}", mismatch.expected),
            ..mismatch
        })?;
        scene.server_works(dialects).map_err(|mismatch| Mismatch {
            expected: format!("the server still works: {}", mismatch.expected),
            ..mismatch
        })
    }
}

/// What the cases of the additions to `sigver.v1` have in common.
const ADDITION: Hostile = Hostile {
    name: "",
    section: "sigver.v1",
    expected: "",
    runs: Runs::Only(Dialect::V1),
    is_addition: true,
    waits: false,
    act: |_| Ok(()),
};

/// The environment of a hostile case.
struct Scene<'a> {
    target: &'a Target,
    /// The dialect of the hostile clients and their peers.
    dialect: Dialect,
    /// The deadline of all waits.
    until: Instant,
    /// See [`Options::ordered_pongs`].
    ordered_pongs: bool,
    /// See [`Options::without_additions`].
    without_additions: bool,
    /// The number of keys generated so far.
    keys: usize,
    bystanders: Vec<Pair>,
}

impl Scene<'_> {
    /// Generates a key that is unique, even if the server has other clients.
    fn key(&mut self) -> String {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        self.keys += 1;
        format!("conformance-{}-{}-{}", process::id(), now.as_nanos(), self.keys)
    }

    fn client(&self) -> Result<Client, Mismatch> {
        Ok(self.target.connect(self.dialect.offer(), self.until)?)
    }

    fn opener(&self, key: &str) -> Result<Client, Mismatch> {
        pair::opener(self.target, self.dialect, key, self.until)
    }

    fn joiner(&self, key: &str, index: usize) -> Result<Client, Mismatch> {
        pair::joiner(self.target, self.dialect, key, index, self.until)
    }

    fn pair(&mut self) -> Result<Pair, Mismatch> {
        let key = self.key();
        Pair::new(self.target, self.dialect, &key, self.until)
    }

    fn expect(&self, client: &mut Client, expected: &Seen) -> Result<(), Mismatch> {
        pair::expect(client, self.dialect, expected)
    }

    /// Checks that the next frame to a client is a close frame with one of these codes.
    fn expect_close(&self, client: &mut Client, codes: &[u16]) -> Result<(), Mismatch> {
        let seen = if self.ordered_pongs {
            client.receive_before_pong()
        } else {
            client.receive()
        };
        match seen {
            Seen::Close(Some(code), _) if codes.contains(&code) => Ok(()),
            seen => {
                let codes: Vec<String> = codes.iter().map(u16::to_string).collect();
                Err(Mismatch::new(format!("close {}", codes.join(" or ")), seen))
            }
        }
    }

    /// Checks that the opener receives a leave notice for a joiner, or nothing in the plain dialect.
    fn expect_leave_notice(&self, opener: &mut Client, index: usize) -> Result<(), Mismatch> {
        match self.dialect.peer_left(index) {
            Some(notice) => self.expect(opener, &notice),
            None => pair::expect_nothing(opener),
        }
    }

    /// Checks that a key whose opener was lost is free in the plain dialect, and reserved for the opener's token in `sigver.v1`.
    fn expect_key_without_opener(&self, key: &str) -> Result<(), Mismatch> {
        if self.dialect == Dialect::Plain || self.without_additions {
            return self.opener(key).map(drop);
        }
        let mut client = self.client()?;
        client.send_text(&open(key))?;
        self.expect(&mut client, &self.dialect.key_taken(key))
    }

    /// Sends one more message between the bystanders, and checks the message that was in flight.
    fn check_bystanders(&mut self) -> Result<(), Mismatch> {
        for pair in &mut self.bystanders {
            pair.send()?;
            pair.receive(2)?;
        }
        Ok(())
    }

    /// Checks that the bystanders receive the message in flight and a new one, and nothing else.
    fn bystanders_unaffected(&mut self) -> Result<(), Mismatch> {
        for pair in &mut self.bystanders {
            pair.receive(1)?;
            pair.exchange()?;
            pair::expect_nothing(&mut pair.opener)?;
            pair::expect_nothing(&mut pair.joiner)?;
            pair.finish()?;
        }
        Ok(())
    }

    /// Checks that new clients can connect and exchange data.
    fn server_works(&mut self, dialects: &[Dialect]) -> Result<(), Mismatch> {
        for dialect in dialects {
            let mut pair = Pair::new(self.target, *dialect, &self.key(), self.until)?;
            pair.exchange()?;
            pair.finish()?;
        }
        Ok(())
    }
}

/// Returns the bytes of a text message in one frame.
fn text_frame(text: &str) -> Vec<u8> {
    frame(Opcode::Text, Piece::Last, text.as_bytes())
}

/// Returns the error of `sigver.v1` with this code, and with the key of the request if it names one.
fn error(code: &str, key: Option<&str>) -> Seen {
    let key = key.map(|key| format!(r#","key":"{key}""#)).unwrap_or_default();
    Seen::Text(format!(r#"{{"type":"error","code":"{code}","message":""{key}}}"#))
}

/// Receives a JSON object.
fn message(client: &mut Client) -> Result<Value, Mismatch> {
    match client.receive() {
        Seen::Text(text) => serde_json::from_str(&text).map_err(|_| Mismatch::new("a JSON object", text)),
        seen => Err(Mismatch::new("a message", seen)),
    }
}

/// Resets a connection. Data in flight is lost.
fn reset(client: Client) {
    // Fails only if the connection is closed already.
    let _ = SockRef::from(client.stream()).set_linger(Some(Duration::ZERO));
}

fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}
