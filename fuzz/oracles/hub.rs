//! Holds the hub to the naive model of the laws, whatever it is called with and in whatever order. Owns the script that a seed is
//! written in. Never parses a message.
//!
//! A script is a row of calls, each a letter and what it takes, a character each. A character of `0` to `9` and `a` to `z` is a number
//! from 0 to 35, any other is the number of its byte; it is taken modulo how many there are to choose from. What is no such letter means
//! nothing, so blanks and line ends are for the reader, and any bytes are a script.
//!
//! | call | |
//! |---|---|
//! | `Lcjt` | first of all: limits. `c` connections, `j` joiners of a key, `t` tens of milliseconds to ask for a role; `-`: no limit; of `t` `~`: the longest there is |
//! | `cp` | a connection comes: `p` plain, `v` of v1, `a` with one role and any data, `o` renewable and with objects only |
//! | `owk`, `jwk` | connection `w`, counted from the first that ever came, opens or joins key `k` of four |
//! | `dwts`, `lwts` | `w` sends data, or a lookalike, to `t`: an index, `-` nobody, `!` something malformed, `~` the index that nobody has; `s` is `a` for any value, else an object |
//! | `kwi` | `w` kicks index `i` |
//! | `vw`, `xw` | `w` leaves, closes its key |
//! | `rwc` | `w` is closed by the embedder, for reason `c` |
//! | `qw` | `w` is gone |
//! | `wt` | `t` tens of milliseconds pass |
//! | `t`, `s` | the hub is told that time has passed, that the server ends |

use core::time::Duration;

use sigver_core::{Addressee, CloseReason, Index, Limits, Profile, Shape, Time};

use crate::{
    model::{Model, ONE_ROLE_OF_ANY_DATA, PLAIN, RENEWABLE_OF_OBJECTS, Step, V1},
    stage::{Event, Stage, assert_indexes, assert_last_word, assert_order},
};

/// The model takes longer the more has happened.
const MOST_STEPS: usize = 400;

const KEYS: usize = 4;

/// After every call of the script the hub has said what the model says, counts what it counts and waits for what it waits for; a
/// payload has come to its end; and when everybody is gone, nothing is left.
///
/// # Panics
///
/// When that is not so.
pub(crate) fn check(script: &[u8]) {
    let (limits, steps) = read(script);
    let (mut stage, mut model) = (Stage::new(&limits), Model::new(&limits));
    let mut record = Vec::new();
    for step in steps {
        let said = play(&mut stage, &mut model, step);
        if let Step::Data { token, .. } | Step::Lookalike { token, .. } = step {
            assert_eq!(stage.ends_of(token), 1, "after {step:?}");
        }
        record.push(Event { step, said });
    }
    assert_order(&record);
    assert_last_word(&record);
    assert_indexes(&record);

    let living: Vec<usize> = model.living().map(|client| client.name).collect();
    for who in living {
        play(&mut stage, &mut model, Step::Disconnect { who });
    }
    let stats = stage.stats();
    assert_eq!((stats.connections, stats.keys, stats.joiners), (0, 0, 0));
    assert_eq!(stage.hub.poll_timeout(), None);
}

fn play(stage: &mut Stage, model: &mut Model, step: Step) -> Vec<(usize, crate::model::Said)> {
    let said = stage.play(step);
    assert_eq!(said, model.play(step), "{step:?}");
    assert_eq!(stage.stats(), model.stats(), "after {step:?}");
    let next = stage.hub.poll_timeout().map(Time::elapsed);
    assert_eq!(next, model.next_timeout(), "after {step:?}");
    stage.hub.assert_invariants();
    said
}

fn read(script: &[u8]) -> (Limits, Vec<Step>) {
    let mut limits = Limits::default();
    limits.joiners_per_key = 3;
    limits.role_deadline = Some(Duration::from_millis(100));
    let mut script = Script {
        bytes: script.iter(),
        connections: 0,
        number: 0,
    };
    if let Some(rest) = script.bytes.as_slice().strip_prefix(b"L") {
        script.bytes = rest.iter();
        script.set(&mut limits);
    }
    let steps = script.take(MOST_STEPS).collect();
    (limits, steps)
}

struct Script<'a> {
    bytes: core::slice::Iter<'a, u8>,
    /// How many connections have come so far.
    connections: usize,
    /// Of the call that comes next.
    number: usize,
}

impl Script<'_> {
    fn set(&mut self, limits: &mut Limits) -> Option<()> {
        let count = |byte| if byte == b'-' { u32::MAX } else { number(byte) };
        limits.connections = count(self.byte()?);
        limits.joiners_per_key = count(self.byte()?);
        limits.role_deadline = match self.byte()? {
            b'-' => None,
            b'~' => Some(Duration::MAX),
            byte => Some(tens_of_milliseconds(byte)),
        };
        Some(())
    }

    /// The call that comes; `None` where that letter is none, or nobody is there to make it.
    fn step(&mut self, letter: u8) -> Option<Step> {
        Some(match letter {
            b'c' => {
                let profile = profile(self.byte()?);
                let who = self.connections;
                self.connections += 1;
                Step::Connect { who, profile }
            }
            b'o' => Step::Open {
                who: self.who()?,
                key: self.place(KEYS)?,
            },
            b'j' => Step::Join {
                who: self.who()?,
                key: self.place(KEYS)?,
            },
            b'd' => Step::Data {
                who: self.who()?,
                to: addressee(self.byte()?),
                shape: shape(self.byte()?),
                token: self.number,
            },
            b'l' => Step::Lookalike {
                who: self.who()?,
                to: addressee(self.byte()?),
                shape: shape(self.byte()?),
                token: self.number,
            },
            b'k' => Step::Kick {
                who: self.who()?,
                index: number(self.byte()?),
            },
            b'v' => Step::Leave { who: self.who()? },
            b'x' => Step::CloseKey { who: self.who()? },
            b'r' => Step::Close {
                who: self.who()?,
                reason: CloseReason::ALL[self.place(CloseReason::ALL.len())?],
            },
            b'q' => Step::Disconnect { who: self.who()? },
            b'w' => Step::Wait {
                time: tens_of_milliseconds(self.byte()?),
            },
            b't' => Step::Timeout,
            b's' => Step::Shutdown,
            _ => return None,
        })
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes.next().copied()
    }

    /// One of so many.
    fn place(&mut self, of: usize) -> Option<usize> {
        (number(self.byte()?) as usize).checked_rem(of)
    }

    fn who(&mut self) -> Option<usize> {
        self.place(self.connections)
    }
}

impl Iterator for Script<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            let letter = self.byte()?;
            if let Some(step) = self.step(letter) {
                self.number += 1;
                return Some(step);
            }
        }
    }
}

fn number(byte: u8) -> u32 {
    match byte {
        b'0'..=b'9' => (byte - b'0').into(),
        b'a'..=b'z' => (byte - b'a' + 10).into(),
        _ => byte.into(),
    }
}

fn tens_of_milliseconds(byte: u8) -> Duration {
    Duration::from_millis(10) * number(byte)
}

fn profile(byte: u8) -> Profile {
    match byte {
        b'p' => PLAIN,
        b'v' => V1,
        b'a' => ONE_ROLE_OF_ANY_DATA,
        b'o' => RENEWABLE_OF_OBJECTS,
        _ => [PLAIN, V1, ONE_ROLE_OF_ANY_DATA, RENEWABLE_OF_OBJECTS][usize::from(byte % 4)],
    }
}

fn addressee(byte: u8) -> Addressee {
    match byte {
        b'-' => Addressee::Unnamed,
        b'!' => Addressee::Malformed,
        b'~' => Addressee::Index(Index::NOBODY),
        _ => Addressee::Index(Index::new(number(byte))),
    }
}

fn shape(byte: u8) -> Shape {
    match byte {
        b'a' => Shape::Any,
        _ => Shape::Object,
    }
}
