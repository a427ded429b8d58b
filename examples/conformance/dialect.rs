//! What clients and servers of each dialect say. Never compares anything: `judge` does.

use sigver_transcripts::Seen;

/// A dialect of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dialect {
    Plain,
    V1,
}

impl Dialect {
    /// What a client is served that offers these subprotocols.
    pub(crate) fn of_offer(offer: Option<&str>) -> Self {
        let mut names = offer.unwrap_or_default().split(',').map(str::trim);
        match names.find(|name| ["sigver.v1", "sigver.plain"].contains(name)) {
            Some("sigver.v1") => Self::V1,
            Some(_) | None => Self::Plain,
        }
    }

    /// What a client offers that wants this dialect.
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

    /// Data of a joiner, which is a JSON object with members, as it is sent.
    pub(crate) fn joiner_says(self, data: &str) -> String {
        match self {
            Self::Plain => data.to_owned(),
            Self::V1 => format!(r#"{{"type":"send","data":{data}}}"#),
        }
    }

    /// The same, as its opener gets it.
    pub(crate) fn opener_hears(self, index: usize, data: &str) -> Seen {
        Seen::Text(match self {
            Self::Plain => with_index(index, data),
            Self::V1 => format!(r#"{{"type":"data","index":{index},"data":{data}}}"#),
        })
    }

    /// Data of an opener to a joiner, as it is sent.
    pub(crate) fn opener_says(self, index: usize, data: &str) -> String {
        match self {
            Self::Plain => with_index(index, data),
            Self::V1 => format!(r#"{{"type":"send","index":{index},"data":{data}}}"#),
        }
    }

    /// The same, as the joiner gets it.
    pub(crate) fn joiner_hears(self, index: usize, data: &str) -> Seen {
        Seen::Text(match self {
            Self::Plain => with_index(index, data),
            Self::V1 => format!(r#"{{"type":"data","data":{data}}}"#),
        })
    }

    /// What says that a key is open.
    pub(crate) fn opened(self, key: &str) -> Option<Seen> {
        match self {
            Self::Plain => None,
            Self::V1 => Some(Seen::Text(format!(r#"{{"type":"opened","key":"{key}"}}"#))),
        }
    }

    /// What says that a key is taken.
    pub(crate) fn taken(self, key: &str) -> Seen {
        match self {
            Self::Plain => Seen::Close(Some(1008), "key is taken".into()),
            Self::V1 => Seen::Text(format!(
                r#"{{"type":"error","code":"key-taken","message":"","key":"{key}"}}"#
            )),
        }
    }

    /// What tells a joiner that it is one.
    pub(crate) fn joined(self, index: usize) -> Option<Seen> {
        match self {
            Self::Plain => None,
            Self::V1 => Some(Seen::Text(format!(r#"{{"type":"joined","index":{index}}}"#))),
        }
    }

    /// What tells an opener that a joiner has come.
    pub(crate) fn came(self, index: usize) -> Seen {
        Seen::Text(match self {
            Self::Plain => r#"{"type":"join"}"#.into(),
            Self::V1 => format!(r#"{{"type":"join","index":{index}}}"#),
        })
    }

    /// What tells an opener that a joiner is gone.
    pub(crate) fn gone(self, index: usize) -> Option<Seen> {
        match self {
            Self::Plain => None,
            Self::V1 => Some(Seen::Text(format!(r#"{{"type":"leave","index":{index}}}"#))),
        }
    }

    /// What tells a joiner that its opener is gone.
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

/// An object with members, and an index as its last.
fn with_index(index: usize, data: &str) -> String {
    let inner = data.strip_suffix('}').unwrap_or(data);
    format!(r#"{inner},"index":{index}}}"#)
}
