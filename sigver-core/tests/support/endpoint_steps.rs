//! The calls of an endpoint, and the texts of its clients.

use core::{net::Ipv4Addr, time::Duration};
use std::collections::VecDeque;

use sigver_core::{CloseReason, Dialect};

use crate::model::Sent;

/// A call of an endpoint, or time that passes between two calls. Clients have numbers, in the order in which they connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Connect {
        who: usize,
        dialect: Dialect,
        source: u8,
    },
    Event {
        who: usize,
        event: Event,
    },
    Written {
        who: usize,
        bytes: usize,
    },
    Wait {
        time: Duration,
    },
    Timeout,
    Drain {
        accept_for: Duration,
    },
    CloseAll,
    /// The operator closes the connection.
    Close {
        who: usize,
    },
    /// The operator kicks a joiner.
    Kick {
        who: usize,
    },
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Opens this key, or one that the server generates.
    Open {
        key: Option<usize>,
        id: Option<usize>,
        /// The token that it shows.
        shown: Option<usize>,
    },
    Join {
        key: usize,
        id: Option<usize>,
        /// In seconds.
        wait: u64,
    },
    Meet {
        key: usize,
        id: Option<usize>,
        shown: Option<usize>,
    },
    Data {
        to: To,
        is_object: bool,
    },
    /// Sends a control message of an unknown type.
    UnknownType,
    Kick {
        index: u32,
    },
    Leave,
    CloseKey,
    /// Sends the message `ping`, which is data in the plain dialect.
    PingMessage,
    InvalidJson,
    Binary,
    Ping {
        bytes: usize,
    },
    Pong,
    Close {
        code: Option<u16>,
    },
    Violation {
        reason: CloseReason,
    },
    Disconnected,
}

/// The `index` of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Unnamed,
    Index(u32),
    Malformed,
}

pub(crate) fn address(source: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, source)
}

/// The first number of a key or token that the server generates.
pub(crate) const MADE: usize = 1_000;

/// What call number `call` of the source of randomness returns. One of five calls fails.
pub(crate) fn random(call: usize) -> Option<u128> {
    (call % 5 != 3).then_some((MADE + call) as u128)
}

pub(crate) fn key_text(key: usize) -> String {
    if key < MADE {
        key.to_string()
    } else {
        format!("{key:032x}")
    }
}

/// Returns the member of a message, if there is an id.
pub(crate) fn id_text(id: Option<usize>) -> String {
    id.map(|id| format!(r#","id":"{id}""#)).unwrap_or_default()
}

impl Event {
    /// Returns the text of this event; `None` if it is not a text message. `token` makes data unique.
    pub(crate) fn text(self, dialect: Dialect, token: usize) -> Option<String> {
        let index = |to| match to {
            To::Unnamed => String::new(),
            To::Index(index) => format!(r#""index":{index},"#),
            To::Malformed => r#""index":"x","#.to_owned(),
        };
        let named = |key| format!(r#","key":"{}""#, key_text(key));
        Some(match (self, dialect) {
            (Self::Open { key, id, shown }, _) => {
                let key = key.map(named).unwrap_or_default();
                format!(r#"{{"type":"open"{key}{}{}}}"#, id_text(id), token_text(shown))
            }
            (Self::Join { key, id, wait }, _) => {
                let wait = if wait > 0 {
                    format!(r#","wait":{wait}"#)
                } else {
                    String::new()
                };
                format!(r#"{{"type":"join"{}{}{wait}}}"#, named(key), id_text(id))
            }
            (Self::Meet { key, id, shown }, _) => {
                format!(r#"{{"type":"meet"{}{}{}}}"#, named(key), id_text(id), token_text(shown))
            }
            (Self::Data { to, .. }, Dialect::Plain) => format!(r#"{{{}"token":{token}}}"#, index(to)),
            (Self::Data { to, is_object }, Dialect::V1) => {
                format!(r#"{{"type":"send",{}"data":{}}}"#, index(to), v1_data(is_object, token))
            }
            (Self::UnknownType, _) => format!(r#"{{"type":"x","key":"x","token":{token}}}"#),
            (Self::Kick { index }, _) => format!(r#"{{"type":"kick","index":{index}}}"#),
            (Self::Leave, _) => r#"{"type":"leave"}"#.to_owned(),
            (Self::CloseKey, _) => r#"{"type":"close"}"#.to_owned(),
            (Self::PingMessage, _) => r#"{"type":"ping"}"#.to_owned(),
            (Self::InvalidJson, _) => "{".to_owned(),
            _ => return None,
        })
    }
}

/// Returns the member of a message, if there is a token.
pub(crate) fn token_text(token: Option<usize>) -> String {
    token
        .map(|token| format!(r#","token":"{token:032x}""#))
        .unwrap_or_default()
}

pub(crate) fn v1_data(is_object: bool, token: usize) -> String {
    let (open, close) = if is_object { (r#"{"token":"#, "}") } else { ("[", "]") };
    format!("{open}{token}{close}")
}

/// A plain joiner's payload as its plain opener receives it.
pub(crate) fn with_index(payload: &str, index: u32) -> String {
    match payload.split_once(r#""index":"#) {
        Some((before, after)) => {
            let rest = after.find([',', '}']).map_or("", |end| &after[end..]);
            format!(r#"{before}"index":{index}{rest}"#)
        }
        None => format!(r#"{},"index":{index}}}"#, payload.trim_end_matches('}')),
    }
}

/// Adds the joiners that follow `opened` in the queue to its text.
pub(crate) fn add_present(text: &mut String, queue: &mut VecDeque<(usize, Sent)>) {
    let mut joiners = Vec::new();
    while let Some((_, Sent::Present { index, id })) = queue.front() {
        joiners.push(format!(r#"{{"index":{index}{}}}"#, id_text(*id)));
        queue.pop_front();
    }
    if !joiners.is_empty() {
        text.pop();
        *text += &format!(r#","joiners":[{}]}}"#, joiners.join(","));
    }
}
