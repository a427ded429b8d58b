//! The calls of a hub, and what they send.

use core::time::Duration;

use sigver_core::{Addressee, AllowedRoles, CloseReason, ConnectError, Disconnect, PayloadKind, Profile, RoleEnd};

/// A call of a hub, or time that passes between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Connect {
        who: usize,
        profile: Profile,
    },
    Open {
        who: usize,
        key: usize,
        id: Option<usize>,
        tokens: Tokens,
    },
    Join {
        who: usize,
        key: usize,
        id: Option<usize>,
        wait: Duration,
    },
    Meet {
        who: usize,
        key: usize,
        id: Option<usize>,
        tokens: Tokens,
        allowed: AllowedRoles,
    },
    /// A request for this key, or for one that the server generates, that is not allowed.
    NotAllowed {
        who: usize,
        key: Option<usize>,
    },
    Data {
        who: usize,
        to: Addressee,
        kind: PayloadKind,
        token: usize,
    },
    UnknownControl {
        who: usize,
        to: Addressee,
        kind: PayloadKind,
        token: usize,
    },
    Kick {
        who: usize,
        index: u32,
    },
    Leave {
        who: usize,
    },
    CloseKey {
        who: usize,
    },
    Ping {
        who: usize,
    },
    /// The embedder refuses a request for this key.
    Throttle {
        who: usize,
        key: usize,
    },
    Close {
        who: usize,
        reason: CloseReason,
    },
    Disconnect {
        who: usize,
        how: Disconnect,
    },
    Wait {
        time: Duration,
    },
    Timeout,
    Shutdown,
}

impl Step {
    /// Returns the client that sends a message in this step.
    pub(crate) fn sender(self) -> Option<usize> {
        match self {
            Self::Open { who, .. }
            | Self::Join { who, .. }
            | Self::Meet { who, .. }
            | Self::NotAllowed { who, .. }
            | Self::Data { who, .. }
            | Self::UnknownControl { who, .. }
            | Self::Kick { who, .. }
            | Self::Leave { who }
            | Self::CloseKey { who }
            | Self::Ping { who } => Some(who),
            Self::Connect { .. }
            | Self::Throttle { .. }
            | Self::Close { .. }
            | Self::Disconnect { .. }
            | Self::Wait { .. }
            | Self::Timeout
            | Self::Shutdown => None,
        }
    }
}

/// The token that a request shows, and the one that its sender gets as an opener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) shown: Option<usize>,
    pub(crate) new: Option<usize>,
}

/// A message that a hub sends to a connection, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Rejected(ConnectError),
    Opened {
        key: usize,
        token: Option<usize>,
    },
    /// Follows `Opened` for each joiner that it lists.
    Present {
        index: u32,
        id: Option<usize>,
    },
    Reopened {
        id: Option<usize>,
    },
    Waiting {
        key: usize,
        wait: Duration,
    },
    Joined {
        index: u32,
        id: Option<usize>,
    },
    PeerJoined {
        index: u32,
        id: Option<usize>,
    },
    Data {
        from: Option<u32>,
        token: usize,
    },
    PeerLeft {
        index: u32,
    },
    Refused {
        code: &'static str,
        detail: Detail,
    },
    RoleEnded(RoleEnd),
    Pong,
    Close(CloseReason),
}

/// What a refusal has in addition to its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    Nothing,
    Key(usize),
    Index(u32),
}
