//! The messages of each dialect, as clients send and receive them.

use sigver_transcripts::Seen;

/// A dialect of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dialect {
    Plain,
    V1,
}

impl Dialect {
    /// Returns the dialect that a server must select for these offered subprotocols.
    pub(crate) fn of_offer(offer: Option<&str>) -> Self {
        let mut names = offer.unwrap_or_default().split(',').map(str::trim);
        match names.find(|name| ["sigver.v1", "sigver.plain"].contains(name)) {
            Some("sigver.v1") => Self::V1,
            Some(_) | None => Self::Plain,
        }
    }

    /// Returns the subprotocol that a client offers to select this dialect.
    pub(crate) fn offer(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::V1 => Some("sigver.v1"),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::V1 => "v1",
        }
    }

    /// Returns the frame with which a joiner sends `data`, a JSON object that is not empty.
    pub(crate) fn joiner_sends(self, data: &str) -> String {
        match self {
            Self::Plain => data.to_owned(),
            Self::V1 => format!(r#"{{"type":"send","data":{data}}}"#),
        }
    }

    /// Returns the frame with which the opener receives this data.
    pub(crate) fn opener_receives(self, index: usize, data: &str) -> Seen {
        Seen::Text(match self {
            Self::Plain => with_index(index, data),
            Self::V1 => format!(r#"{{"type":"data","index":{index},"data":{data}}}"#),
        })
    }

    /// Returns the frame with which an opener sends `data` to a joiner.
    pub(crate) fn opener_sends(self, index: usize, data: &str) -> String {
        match self {
            Self::Plain => with_index(index, data),
            Self::V1 => format!(r#"{{"type":"send","index":{index},"data":{data}}}"#),
        }
    }

    /// Returns the frame with which the joiner receives this data.
    pub(crate) fn joiner_receives(self, index: usize, data: &str) -> Seen {
        Seen::Text(match self {
            Self::Plain => with_index(index, data),
            Self::V1 => format!(r#"{{"type":"data","data":{data}}}"#),
        })
    }

    /// Returns the acknowledgement of an open; `None` if the dialect has none.
    pub(crate) fn opened(self, key: &str) -> Option<Seen> {
        match self {
            Self::Plain => None,
            Self::V1 => Some(Seen::Text(format!(r#"{{"type":"opened","key":"{key}"}}"#))),
        }
    }

    /// Returns the refusal of an open if the key is taken.
    pub(crate) fn key_taken(self, key: &str) -> Seen {
        match self {
            Self::Plain => Seen::Close(Some(1008), "key is taken".into()),
            Self::V1 => Seen::Text(format!(
                r#"{{"type":"error","code":"key-taken","message":"","key":"{key}"}}"#
            )),
        }
    }

    /// Returns the acknowledgement of a join; `None` if the dialect has none.
    pub(crate) fn joined(self, index: usize) -> Option<Seen> {
        match self {
            Self::Plain => None,
            Self::V1 => Some(Seen::Text(format!(r#"{{"type":"joined","index":{index}}}"#))),
        }
    }

    /// Returns the notice to an opener that a joiner has joined.
    pub(crate) fn peer_joined(self, index: usize) -> Seen {
        Seen::Text(match self {
            Self::Plain => r#"{"type":"join"}"#.into(),
            Self::V1 => format!(r#"{{"type":"join","index":{index}}}"#),
        })
    }

    /// Returns the notice to an opener that a joiner has left; `None` if the dialect has none.
    pub(crate) fn peer_left(self, index: usize) -> Option<Seen> {
        match self {
            Self::Plain => None,
            Self::V1 => Some(Seen::Text(format!(r#"{{"type":"leave","index":{index}}}"#))),
        }
    }

    /// Returns the notice to a joiner that its opener has left.
    pub(crate) fn opener_left(self) -> Seen {
        match self {
            Self::Plain => Seen::Close(Some(4001), "opener left".into()),
            Self::V1 => Seen::Text(r#"{"type":"closed","code":"opener-left"}"#.into()),
        }
    }
}

pub(crate) fn open(key: &str) -> String {
    format!(r#"{{"type":"open","key":"{key}"}}"#)
}

pub(crate) fn join(key: &str) -> String {
    format!(r#"{{"type":"join","key":"{key}"}}"#)
}

/// Appends an `index` to an object that is not empty.
fn with_index(index: usize, data: &str) -> String {
    let inner = data.strip_suffix('}').unwrap_or(data);
    format!(r#"{inner},"index":{index}}}"#)
}
