//! Compares [`Endpoint`](sigver_core::Endpoint) with the naive model of its laws, for any calls in any order.
//!
//! A script is a sequence of calls. Each is a letter and its operands, of one byte each. `0` to `9` and `a` to `z` are the numbers from 0 to
//! 35; any other byte is its own number. A number is taken modulo the number of choices. Bytes that are not the letter of a call are skipped, so
//! blanks and line ends structure a script, and any bytes are a script.
//!
//! | call | meaning |
//! |---|---|
//! | `Lcjt` | at the beginning: limits. `c` connections, `j` joiners of a key, `t` × 10 ms role deadline; `-`: no limit |
//! | `Pkxbmyad` | at the beginning, or after `L`: policy. `k` × 10 ms keep-alive, `x` × 10 ms close time-out, `b` × 10 bytes of write buffer, `m` messages and `y` × 10 bytes per second, `a` failed attempts per minute, `d` × 10 ms drain; `-`: no limit |
//! | `Bt` | at the beginning, or after `L` and `P`: `t` × 10 bytes of all write buffers together; `-`: no limit |
//! | `Sm` | at the beginning, or after these: `m` messages per second of all clients with one address |
//! | `cp` | a client connects: `p` plain, `v` v1. Three clients in turn have three addresses |
//! | `owk`, `jwk`, `mwk` | client `w`, counted from the first, opens, joins or meets at key `k` of four; `o` with `*`: a generated key. Every other client has an id |
//! | `Owkn`, `Mwkn` | `w` opens or meets at key `k` and shows the string that the server made `n`-th, counted from 0 |
//! | `Jwks` | `w` joins key `k` and waits for `s` seconds |
//! | `dwts` | `w` sends data to index `t`; `-`: no index, `!`: a malformed one, `~`: 2³² - 1. `s` is `a` for an array, else an object |
//! | `lwts` | `w` sends a control message of an unknown type; `t` and `s` are ignored |
//! | `kwi`, `vw`, `xw` | `w` kicks index `i`, leaves, closes its key |
//! | `hw` | `w` sends the message `ping` |
//! | `iw`, `bw` | `w` sends invalid JSON, a binary message |
//! | `gwn`, `nw` | `w` sends a ping of `n` bytes, a pong |
//! | `ewc` | `w` sends a close frame with code 1000 + `c`; `-`: without a code |
//! | `rwc` | `w` commits a violation with reason `c` |
//! | `qw` | the socket of `w` disconnects |
//! | `fwn`, `F` | `n` × 10 bytes to `w` were written; all frames to all clients |
//! | `wt`, `Wt` | `t` × 10 ms, `t` seconds pass |
//! | `t`, `T` | `handle_timeout` now, when it is due |
//! | `Dt`, `s` | the server drains, and accepts connections for `t` × 10 ms; it closes every connection |
//! | `Cc`, `Kc` | the operator closes the connection of client `c`, kicks it |

use std::num::{NonZeroU32, NonZeroU64};

use core::time::Duration;

use sigver_core::{CloseReason, Dialect, EndpointConfig};

use crate::{
    endpoint_model::EndpointModel,
    endpoint_run::{Driver, Record, assert_last_frame, assert_order, finish, play},
    endpoint_steps::{Event, MADE, Step, To},
};

/// The model is slower the more calls there were.
const MAX_CALLS: usize = 400;

/// Fewer than an endpoint pings in one call.
const MAX_CLIENTS: usize = 60;

const KEYS: usize = 4;

/// Plays the script on the endpoint and on the model, and compares outputs and all observable state after every call. Then disconnects
/// every socket, after which nothing is left.
///
/// # Panics
///
/// If they differ.
pub(crate) fn check(script: &[u8]) {
    let mut script = Script {
        bytes: script.iter(),
        clients: 0,
    };
    let config = script.config();
    let (mut driver, mut model) = (Driver::new(&config), EndpointModel::new(&config));
    let mut record = Vec::new();
    for call in script.take(MAX_CALLS) {
        for step in steps(call, &model) {
            let answer = play(&mut driver, &mut model, step);
            record.push(Record {
                step,
                now: model.now,
                answer,
            });
        }
    }
    finish(&mut driver, &mut model);
    assert_last_frame(&record);
    assert_order(&record);
}

#[derive(Clone, Copy)]
enum Call {
    Step(Step),
    WrittenAll,
    OnTime,
}

/// The steps of a call.
fn steps(call: Call, model: &EndpointModel) -> Vec<Step> {
    match call {
        Call::Step(step) => vec![step],
        Call::WrittenAll => {
            let bytes = usize::MAX;
            model.open().map(|who| Step::Written { who, bytes }).collect()
        }
        Call::OnTime => {
            let next = model.next_timeout().unwrap_or_default();
            let time = next.saturating_sub(model.now);
            vec![Step::Wait { time }, Step::Timeout]
        }
    }
}

struct Script<'a> {
    bytes: core::slice::Iter<'a, u8>,
    /// How many clients have connected so far.
    clients: usize,
}

impl Script<'_> {
    fn config(&mut self) -> EndpointConfig {
        let mut config = EndpointConfig::default();
        config.limits.joiners_per_key = 3;
        config.limits.role_deadline = Some(Duration::from_millis(100));
        if self.starts_with(b'L') {
            config.limits.connections = self.optional_limit(1);
            config.limits.joiners_per_key = self.limit(1);
            config.limits.role_deadline = Some(self.time()).filter(|time| *time < Duration::MAX);
        }
        if self.starts_with(b'P') {
            config.keep_alive = self.time();
            config.close_timeout = self.time();
            config.backlog_bytes = self.limit(10);
            config.messages_per_second = self.optional_limit(1);
            config.bytes_per_second = self.optional_limit(10);
            config.key_attempts_per_minute = self.optional_limit(1);
            config.drain = self.time();
        }
        if self.starts_with(b'B') {
            config.backlog_total_bytes = self.optional_limit(10).map(NonZeroU64::from);
        }
        if self.starts_with(b'S') {
            config.messages_per_second_per_source = self.optional_limit(1);
        }
        config
    }

    fn starts_with(&mut self, letter: u8) -> bool {
        let rest = self.bytes.as_slice().strip_prefix(&[letter]);
        let is_there = rest.is_some();
        self.bytes = rest.unwrap_or(self.bytes.as_slice()).iter();
        is_there
    }

    fn optional_limit(&mut self, factor: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(self.limit(factor)).filter(|limit| *limit < NonZeroU32::MAX)
    }

    fn limit(&mut self, factor: u32) -> u32 {
        match self.byte() {
            Some(b'-') | None => u32::MAX,
            Some(byte) => number(byte) * factor,
        }
    }

    fn time(&mut self) -> Duration {
        match self.byte() {
            Some(b'-') | None => Duration::MAX,
            Some(byte) => tens_of_milliseconds(byte),
        }
    }

    /// Returns the next call; `None` if the letter is unknown, or there is no client.
    fn call(&mut self, letter: u8) -> Option<Call> {
        Some(Call::Step(match letter {
            b'c' => {
                let dialect = match self.byte()? {
                    b'p' => Dialect::Plain,
                    b'v' => Dialect::V1,
                    byte => Dialect::ALL[usize::from(byte % 2)],
                };
                let who = self.clients;
                if who >= MAX_CLIENTS {
                    return None;
                }
                self.clients += 1;
                let source = (who % 3) as u8 + 1;
                Step::Connect { who, dialect, source }
            }
            b'f' => {
                let who = self.who()?;
                let bytes = number(self.byte()?) as usize * 10;
                Step::Written { who, bytes }
            }
            b'F' => return Some(Call::WrittenAll),
            b'w' => Step::Wait {
                time: tens_of_milliseconds(self.byte()?),
            },
            b'W' => Step::Wait {
                time: Duration::from_secs(number(self.byte()?).into()),
            },
            b't' => Step::Timeout,
            b'T' => return Some(Call::OnTime),
            b'D' => Step::Drain {
                accept_for: tens_of_milliseconds(self.byte()?),
            },
            b's' => Step::CloseAll,
            b'C' => Step::Close { who: self.who()? },
            b'K' => Step::Kick { who: self.who()? },
            _ => {
                let is_event = b"oOjJmMdlkvxhibgnerq".contains(&letter);
                let who = is_event.then(|| self.who()).flatten()?;
                let event = self.event(letter, who)?;
                Step::Event { who, event }
            }
        }))
    }

    fn event(&mut self, letter: u8, who: usize) -> Option<Event> {
        let id = (who % 2 == 1).then_some(who);
        Some(match letter {
            b'o' => Event::Open {
                key: self.key()?,
                id,
                shown: None,
            },
            b'O' => Event::Open {
                key: self.key()?,
                id,
                shown: self.token(),
            },
            b'j' => Event::Join {
                key: self.key()?.unwrap_or_default(),
                id,
                wait: 0,
            },
            b'J' => Event::Join {
                key: self.key()?.unwrap_or_default(),
                id,
                wait: number(self.byte()?).into(),
            },
            b'm' => Event::Meet {
                key: self.key()?.unwrap_or_default(),
                id,
                shown: None,
            },
            b'M' => Event::Meet {
                key: self.key()?.unwrap_or_default(),
                id,
                shown: self.token(),
            },
            b'd' => Event::Data {
                to: match self.byte()? {
                    b'-' => To::Unnamed,
                    b'!' => To::Malformed,
                    b'~' => To::Index(u32::MAX),
                    byte => To::Index(number(byte)),
                },
                is_object: self.byte()? != b'a',
            },
            b'l' => {
                let _ = (self.byte()?, self.byte()?);
                Event::UnknownType
            }
            b'k' => Event::Kick {
                index: number(self.byte()?),
            },
            b'v' => Event::Leave,
            b'x' => Event::CloseKey,
            b'h' => Event::PingMessage,
            b'i' => Event::InvalidJson,
            b'b' => Event::Binary,
            b'g' => Event::Ping {
                bytes: number(self.byte()?) as usize % 126,
            },
            b'n' => Event::Pong,
            b'e' => Event::Close {
                code: match self.byte()? {
                    b'-' => None,
                    byte => Some(1000 + number(byte) as u16),
                },
            },
            b'r' => Event::Violation {
                reason: CloseReason::ALL[self.place(CloseReason::ALL.len())?],
            },
            b'q' => Event::Disconnected,
            _ => return None,
        })
    }

    /// Returns a key; `Some(None)` for one that the server generates.
    fn key(&mut self) -> Option<Option<usize>> {
        let byte = self.byte()?;
        Some((byte != b'*').then(|| number(byte) as usize % KEYS))
    }

    /// Returns the number of a string that the server made.
    fn token(&mut self) -> Option<usize> {
        Some(MADE + number(self.byte()?) as usize)
    }

    fn byte(&mut self) -> Option<u8> {
        self.bytes.next().copied()
    }

    fn place(&mut self, count: usize) -> Option<usize> {
        (number(self.byte()?) as usize).checked_rem(count)
    }

    fn who(&mut self) -> Option<usize> {
        self.place(self.clients)
    }
}

impl Iterator for Script<'_> {
    type Item = Call;

    fn next(&mut self) -> Option<Call> {
        loop {
            let letter = self.byte()?;
            if let Some(call) = self.call(letter) {
                return Some(call);
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
