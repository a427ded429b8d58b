//! Owns what goes into a [`Hub`](crate::Hub) and what comes out of it. Never says how a message looks on a wire: codecs do.
//!
//! The message enums are closed on purpose. A message that is added breaks every codec at compile time, which is where it should.

use crate::{CloseReason, Index, Key, Payload, Refusal, RoleEnd};

/// What a connection says to the [`Hub`](crate::Hub). `P` is what the application wants carried; the hub never looks into it.
#[derive(Debug)]
pub enum InboundMessage<P = Payload> {
    /// Become the opener of `key`.
    Open {
        /// What others will join.
        key: Key,
    },
    /// Become a joiner of `key`.
    Join {
        /// What an opener has opened.
        key: Key,
    },
    /// Carry `payload` to the other side.
    Data {
        /// Which joiner it is for. Matters for an opener only: a joiner's data goes to its opener.
        to: Addressee,
        /// What kind of value the payload is. The hub takes the sender's word for it.
        shape: Shape,
        /// What to carry.
        payload: P,
    },
    /// [`Data`](Self::Data) that has the shape of a control message of an unknown type. From a connection with a role it is
    /// data; one without is closed with [`CloseReason::UnknownType`], since it surely meant something else.
    Lookalike {
        /// As in [`Data`](Self::Data).
        to: Addressee,
        /// As in [`Data`](Self::Data).
        shape: Shape,
        /// As in [`Data`](Self::Data).
        payload: P,
    },
    /// An opener sends one of its joiners away. The opener then gets [`OutboundMessage::PeerLeft`], as for any that leaves.
    Kick {
        /// The joiner.
        index: Index,
    },
    /// A joiner gives its role up and stays connected. For [`Tenure::Renewable`](crate::Tenure::Renewable).
    Leave,
    /// An opener gives its key up and stays connected. For [`Tenure::Renewable`](crate::Tenure::Renewable).
    CloseKey,
}

/// What kind of value is carried, and what kinds a peer can be given: a peer of the plain dialect takes JSON objects only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// One object, to which an index can be added.
    Object,
    /// Any value.
    Any,
}

/// Whom data is addressed to, as far as the sender said. Only the sender's role decides what a missing or odd address means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// The message names nobody. An opener that sends it is closed with [`CloseReason::NoIndex`].
    Unnamed,
    /// The joiner with this index.
    Index(Index),
    /// The message has an index that is not one. An opener that sends it is closed with [`CloseReason::IndexMalformed`].
    Malformed,
}

/// What the [`Hub`](crate::Hub) says to a connection. A dialect that has no words for one of these says nothing.
#[derive(Debug)]
pub enum OutboundMessage<P = Payload> {
    /// You are the opener of `key`.
    Opened {
        /// The key that was opened.
        key: Key,
    },
    /// You are a joiner.
    Joined {
        /// Your number at the opener.
        index: Index,
    },
    /// To an opener: a joiner has come. The first that is sent has index 0, the next 1, without gaps.
    PeerJoined {
        /// The joiner's number.
        index: Index,
    },
    /// Data from the other side.
    Data {
        /// The joiner that it comes from; `None` when it comes from the opener.
        from: Option<Index>,
        /// What was carried, as it was given.
        payload: P,
    },
    /// To an opener: this joiner is gone. Its index will not come again.
    PeerLeft {
        /// The joiner's number.
        index: Index,
    },
    /// What you asked for is not done, and nothing has changed.
    Refused(Refusal),
    /// You have no role any more, and may take another.
    RoleEnded(RoleEnd),
    /// You are closed. The last word: the connection's id is already dead.
    Close(CloseReason),
}
