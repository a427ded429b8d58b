//! What no transcript can say: clients that are broken, slow, greedy or many. Owns the list of these cases and what they have in
//! common: a pair of bystanders in each dialect, connected before, that must not notice; and a server that must live.

mod crowds;
mod frames;
mod heads;
mod texts;

use std::{
    process, thread,
    time::{Duration, Instant, SystemTime},
};

use sigver_transcripts::{
    Seen,
    socket::{Client, Target},
};
use socket2::SockRef;

use crate::{
    dialect::Dialect,
    judge::Mismatch,
    options::Options,
    pair::{self, Pair},
};

/// A hostile case.
#[derive(Clone, Copy)]
pub(crate) struct Hostile {
    pub(crate) name: &'static str,
    /// The section of PROTOCOL.md that it is about.
    pub(crate) section: &'static str,
    /// What is expected, in a few words.
    pub(crate) expected: &'static str,
    /// Whether it is played in each dialect; otherwise it is about what comes before one is spoken.
    pub(crate) in_dialects: bool,
    /// Whether it waits for the server's head deadline. It runs beside the other cases then.
    pub(crate) waits: bool,
    act: fn(&mut Scene<'_>) -> Result<(), Mismatch>,
}

impl Hostile {
    /// Every hostile case.
    pub(crate) fn all() -> impl Iterator<Item = &'static Self> {
        [heads::CASES, frames::CASES, texts::CASES, crowds::CASES]
            .into_iter()
            .flatten()
    }

    /// Plays it against a server, between bystanders of these dialects.
    pub(crate) fn run(&self, target: &Target, dialect: Dialect, options: &Options) -> Result<(), Mismatch> {
        let beside = options.dialects();
        let waited = if self.waits {
            options.head_deadline
        } else {
            Duration::ZERO
        };
        let mut scene = Scene {
            target,
            dialect,
            until: Instant::now() + options.deadline + waited,
            ordered_pongs: options.ordered_pongs,
            keys: 0,
            bystanders: Vec::new(),
        };
        for dialect in beside {
            let pair = Pair::new(target, *dialect, &scene.key(), scene.until)?;
            scene.bystanders.push(pair);
        }
        // On its way, not read yet: it must not be lost.
        for pair in &mut scene.bystanders {
            pair.say()?;
        }
        (self.act)(&mut scene)?;
        scene.nobody_noticed().map_err(|mismatch| Mismatch {
            expected: format!("bystanders notice nothing: {}", mismatch.expected),
            ..mismatch
        })?;
        scene.server_lives(beside).map_err(|mismatch| Mismatch {
            expected: format!("the server lives: {}", mismatch.expected),
            ..mismatch
        })
    }
}

/// Where a hostile case plays.
struct Scene<'a> {
    target: &'a Target,
    /// What the hostile clients and their peers speak.
    dialect: Dialect,
    /// When all waiting ends.
    until: Instant,
    /// Whether the server keeps the promise of [`Options::ordered_pongs`].
    ordered_pongs: bool,
    /// How many keys were made.
    keys: usize,
    bystanders: Vec<Pair>,
}

impl Scene<'_> {
    /// A key that nobody else uses, on a server that others may be using.
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

    fn sees(&self, client: &mut Client, expected: &Seen) -> Result<(), Mismatch> {
        pair::sees(client, self.dialect, expected)
    }

    /// Checks that a client is closed next, with one of these codes.
    fn is_closed(&self, client: &mut Client, codes: &[u16]) -> Result<(), Mismatch> {
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

    /// Checks that the opener hears that a joiner is gone, where it hears of that, and of nothing else.
    fn hears_of_leaving(&self, opener: &mut Client, index: usize) -> Result<(), Mismatch> {
        match self.dialect.gone(index) {
            Some(gone) => self.sees(opener, &gone),
            None => pair::sees_nothing(opener),
        }
    }

    /// The bystanders talk, with the message that was on its way before.
    fn bystanders_talk(&mut self) -> Result<(), Mismatch> {
        for pair in &mut self.bystanders {
            pair.say()?;
            pair.hear(2)?;
        }
        Ok(())
    }

    /// The bystanders get what was on its way, talk on, and have got nothing else.
    fn nobody_noticed(&mut self) -> Result<(), Mismatch> {
        for pair in &mut self.bystanders {
            pair.hear(1)?;
            pair.talk()?;
            pair::sees_nothing(&mut pair.opener)?;
            pair::sees_nothing(&mut pair.joiner)?;
            pair.finish()?;
        }
        Ok(())
    }

    /// New connections find each other.
    fn server_lives(&mut self, dialects: &[Dialect]) -> Result<(), Mismatch> {
        for dialect in dialects {
            let mut pair = Pair::new(self.target, *dialect, &self.key(), self.until)?;
            pair.talk()?;
            pair.finish()?;
        }
        Ok(())
    }
}

/// Ends a connection by a reset, with all that is on its way.
fn reset(client: Client) {
    // Fails where the connection has ended, which comes to the same.
    let _ = SockRef::from(client.stream()).set_linger(Some(Duration::ZERO));
}

fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}
