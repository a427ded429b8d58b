//! Messages to and from a [`Hub`](crate::Hub).
//!
//! The message enums are exhaustive: a new message is a compile error in every codec.

use alloc::vec::Vec;
use core::time::Duration;

use crate::{
    id::{Index, Key, PeerId},
    payload::Payload,
    profile::PayloadKind,
    reason::{CloseReason, Refusal, RoleEnd},
    token::Token,
};

/// A message from a connection to the [`Hub`](crate::Hub). The hub moves the payload `P` and does not read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InboundMessage<P = Payload> {
    /// Become the opener of `key`.
    Open {
        /// The key to open.
        key: Key,
        /// The sender's name for itself, which each of its joiners gets.
        id: Option<PeerId>,
        /// If the key has an opener with this token, the sender takes its role over. If the key is reserved for this token, the sender opens it.
        /// If the key is free, the token is ignored.
        token: Option<Token>,
        /// The token that the sender gets with its role: fresh, from a secure source of randomness. `None`: the role cannot be taken over.
        ///
        /// A [`Decoder`](crate::Decoder) leaves it out and an [`Endpoint`](crate::Endpoint) fills it in: the hub has no randomness. It is
        /// ignored if the sender has a [`RoleLifetime::SingleUse`](crate::RoleLifetime::SingleUse).
        new_token: Option<Token>,
    },
    /// Become the opener of a key that the server generates.
    ///
    /// An [`Endpoint`](crate::Endpoint) generates the key. The hub has no randomness: an embedder that calls it replaces this message by
    /// [`Open`](Self::Open) with [`Key::from_random`]. The hub itself closes the sender with [`CloseReason::Internal`].
    OpenGenerated {
        /// As in [`Open`](Self::Open).
        id: Option<PeerId>,
    },
    /// Become a joiner of `key`.
    Join {
        /// The key to join.
        key: Key,
        /// The sender's name for itself, which its opener gets.
        id: Option<PeerId>,
        /// How long to wait for the key if nobody has it open. Zero: the join is refused. The hub does not limit the time; a
        /// [`Decoder`](crate::Decoder) does ([`Limits::join_wait`](crate::Limits::join_wait)).
        wait: Duration,
    },
    /// Become the opener of `key` if nobody has it open, and a joiner otherwise. Of several connections that meet, exactly one becomes the
    /// opener.
    Meet {
        /// The key to open or join.
        key: Key,
        /// The sender's name for itself, which its peers get.
        id: Option<PeerId>,
        /// As in [`Open`](Self::Open). With a token that is not the opener's, the sender does not become a joiner but is refused with
        /// [`Refusal::KeyTaken`].
        token: Option<Token>,
        /// As in [`Open`](Self::Open), if the sender becomes the opener.
        new_token: Option<Token>,
        /// The roles that the sender may get. If it would get another, it is refused with [`Refusal::NotAllowed`]. A
        /// [`Decoder`](crate::Decoder) allows both.
        allowed: AllowedRoles,
    },
    /// A request for a role that the embedder does not allow: it puts this in the place of an [`Open`](Self::Open),
    /// [`OpenGenerated`](Self::OpenGenerated) or [`Join`](Self::Join). The sender is refused with [`Refusal::NotAllowed`], or as for the
    /// request if it has a role. No client can send it.
    NotAllowed {
        /// The requested key; `None` if the client has asked for a generated one.
        key: Option<Key>,
    },
    /// Deliver `payload` to the other side.
    Data {
        /// The joiner that it is for. Only an opener's data needs one: a joiner's data goes to its opener.
        to: Addressee,
        /// The kind of value that the payload is. The hub does not check it.
        kind: PayloadKind,
        /// What to deliver.
        payload: P,
    },
    /// [`Data`](Self::Data) that looks like a control message of an unknown type. From a connection with a role it is data. A connection
    /// without a role is closed with [`CloseReason::UnknownType`].
    UnknownControl {
        /// As in [`Data`](Self::Data).
        to: Addressee,
        /// As in [`Data`](Self::Data).
        kind: PayloadKind,
        /// As in [`Data`](Self::Data).
        payload: P,
    },
    /// End the role of one of the sender's joiners. The sender, an opener, then gets [`OutboundMessage::PeerLeft`].
    Kick {
        /// The joiner. `None` is a number that is too large for any joiner.
        index: Option<Index>,
    },
    /// End the sender's role as a joiner, or its wait for a key, and stay connected. For [`RoleLifetime::Reusable`](crate::RoleLifetime::Reusable).
    Leave,
    /// End the sender's role as an opener and stay connected. For [`RoleLifetime::Reusable`](crate::RoleLifetime::Reusable).
    CloseKey,
    /// Reply with [`OutboundMessage::Pong`]. Allowed in every state, and changes none: it is no request for a role.
    Ping,
}

/// The roles that a client may have at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AllowedRoles {
    /// Whether it may open the key.
    pub opener: bool,
    /// Whether it may join the key.
    pub joiner: bool,
}

impl AllowedRoles {
    /// Both roles.
    pub const BOTH: Self = Self {
        opener: true,
        joiner: true,
    };
}

/// The addressee of data, as its sender wrote it. The sender's role decides what a missing or wrong one means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// The message has no index. An opener that sends it is closed with [`CloseReason::NoIndex`] or gets [`Refusal::NoIndex`].
    Unnamed,
    /// The joiner with this index.
    Index(Index),
    /// The index is a number that is too large for any joiner. An opener that sends it gets [`Refusal::UnknownIndex`].
    OutOfRange,
    /// The index is not a number. An opener that sends it is closed with [`CloseReason::IndexMalformed`].
    Malformed,
}

/// A joiner of a key whose opener has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentJoiner {
    /// Its index, as before.
    pub index: Index,
    /// Its name for itself, if it has one.
    pub id: Option<PeerId>,
}

/// A message from the [`Hub`](crate::Hub) to a connection. A dialect that has no frame for it sends nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboundMessage<P = Payload> {
    /// The recipient is the opener of `key`.
    Opened {
        /// The key.
        key: Key,
        /// The token with which another connection can take the role over, if there is one.
        token: Option<Token>,
        /// The joiners that are there already, after the recipient took the role over. They have got [`Reopened`](Self::Reopened).
        joiners: Vec<PresentJoiner>,
    },
    /// The recipient waits for a key that nobody has open. When somebody opens it, [`Joined`](Self::Joined) follows; if nobody does in time,
    /// [`Refusal::UnknownKey`].
    Waiting {
        /// The key.
        key: Key,
        /// The time after which the join is refused.
        wait: Duration,
    },
    /// The recipient is a joiner.
    Joined {
        /// Its index at the opener.
        index: Index,
        /// The opener's name for itself, if it has one.
        id: Option<PeerId>,
    },
    /// A joiner has joined the recipient's key. The first has index 0, the next 1, without gaps.
    PeerJoined {
        /// The joiner's index.
        index: Index,
        /// The joiner's name for itself, if it has one.
        id: Option<PeerId>,
    },
    /// Data from the other side.
    Data {
        /// The joiner that sent it; `None` if the opener sent it.
        from: Option<Index>,
        /// What was sent.
        payload: P,
    },
    /// A joiner has left the recipient's key. Its index is not assigned again.
    PeerLeft {
        /// The joiner's index.
        index: Index,
    },
    /// A request was refused. Nothing has changed.
    Refused(Refusal),
    /// Another connection has taken over the role of the recipient's opener. Messages that were for the previous connection are lost.
    Reopened {
        /// The opener's name for itself, if it has one.
        id: Option<PeerId>,
    },
    /// The recipient's role has ended. It may take another.
    RoleEnded(RoleEnd),
    /// The reply to [`InboundMessage::Ping`]. Everything that the recipient sent before it has been handled.
    Pong,
    /// The recipient is closed. The last message to this connection; its id is no longer valid.
    Close(CloseReason),
}
