//! Owns every way in which a peer can be refused or closed, and what each is on the wire. Never decides when.

use core::fmt;

use thiserror::Error;

use crate::{Index, Key};

/// Why a connection is closed. [`code`](Self::code) is the WebSocket close code (RFC 6455 section 7.4); `Display` is the text of
/// the close frame, stable, on one line, and at most 123 bytes long (RFC 6455 section 5.5).
///
/// The table of all codes is in the project's `PROTOCOL.md`.
///
/// ```
/// use sigver_core::CloseReason;
///
/// let reason = CloseReason::KeyTaken;
/// assert_eq!((reason.code(), reason.to_string().as_str()), (1008, "key is taken"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// 1001: the server ends.
    #[error("server shutting down")]
    ShuttingDown,

    /// 1002: the bytes are not WebSocket frames as RFC 6455 wants them.
    #[error("broken WebSocket framing")]
    BrokenFraming,

    /// 1003: a binary frame; the protocol is text.
    #[error("binary frame: only text is understood")]
    Binary,

    /// 1007: a text frame that is not UTF-8.
    #[error("text is not valid UTF-8")]
    InvalidUtf8,
    /// 1007: a text that is not JSON, or more than one JSON value.
    #[error("text is not one JSON object: invalid JSON")]
    InvalidJson,
    /// 1007: a JSON value other than an object.
    #[error("text is not one JSON object: another JSON value")]
    NotAnObject,
    /// 1007: arrays and objects nest deeper than [`Limits::depth`](crate::Limits::depth).
    #[error("nesting over the limit")]
    TooDeep,
    /// 1007: a member that the server reads is there more than once.
    #[error("`{0}` given more than once")]
    Duplicate(Member),
    /// 1007: the first message has a `key`, and a `type` that is neither `open` nor `join`.
    #[error("first message has a `key` but its `type` is neither open nor join")]
    UnknownType,
    /// 1007: in `sigver.v1`, a message without a `type`, or with one that is none of the dialect's.
    #[error("`type` is missing or none of sigver.v1")]
    UnknownMessage,
    /// 1007: in `sigver.v1`, join without `key`.
    #[error("`key` is missing")]
    KeyMissing,
    /// 1007: open or join with a `key` that is not a string of Unicode text.
    #[error("`key` is not a string")]
    KeyNotString,
    /// 1007: open or join with an empty `key`.
    #[error("`key` is empty")]
    KeyEmpty,
    /// 1007: open or join with a `key` longer than [`Limits::key_bytes`](crate::Limits::key_bytes).
    #[error("`key` over the length limit")]
    KeyTooLong,
    /// 1007: an opener's `index` that is not an integer, written as `0` or without a leading zero or sign.
    #[error("`index` is not a non-negative integer")]
    IndexMalformed,
    /// 1007: in `sigver.v1`, kick without `index`.
    #[error("`index` is missing")]
    IndexMissing,
    /// 1007: in `sigver.v1`, send without `data`.
    #[error("`data` is missing")]
    DataMissing,

    /// 1008: neither open nor join within [`Limits::role_deadline`](crate::Limits::role_deadline).
    #[error("no open or join in time")]
    NoRoleInTime,
    /// 1008: data before open or join.
    #[error("first message must contain `type` and `key`: data before open or join")]
    NoRole,
    /// 1008: open or join from a connection that already has a role.
    #[error("second open or join: one role and one key for life")]
    HasRole,
    /// 1008: open of a key that has an opener.
    #[error("key is taken")]
    KeyTaken,
    /// 1008: join of a key that nobody has open.
    #[error("key is unknown")]
    KeyUnknown,
    /// 1008: an opener's data without `index`.
    #[error("opener's message has no `index`")]
    NoIndex,
    /// 1008: no whole frame, pongs included, for two keep-alive intervals at least.
    #[error("no sign of life")]
    Silent,

    /// 1009: a message longer than [`Limits::message_bytes`](crate::Limits::message_bytes).
    #[error("message over the size limit")]
    TooBig,

    /// 1011: a fault of the server's own.
    #[error("internal error")]
    Internal,

    /// 1013: the key has [`Limits::joiners_per_key`](crate::Limits::joiners_per_key) joiners.
    #[error("too many joiners on the key")]
    TooManyJoiners,
    /// 1013: the connection does not read as fast as it is written to, and its backlog is full.
    #[error("reading too slowly")]
    TooSlow,

    /// 4001: the opener of the joined key is gone.
    #[error("opener left")]
    OpenerLeft,
    /// 4003: the opener has sent this joiner away.
    #[error("kicked by the opener")]
    Kicked,
}

impl CloseReason {
    /// Every reason there is, in the order of their codes.
    pub const ALL: &'static [Self] = &[
        Self::ShuttingDown,
        Self::BrokenFraming,
        Self::Binary,
        Self::InvalidUtf8,
        Self::InvalidJson,
        Self::NotAnObject,
        Self::TooDeep,
        Self::Duplicate(Member::Type),
        Self::Duplicate(Member::Key),
        Self::Duplicate(Member::Index),
        Self::Duplicate(Member::Data),
        Self::UnknownType,
        Self::UnknownMessage,
        Self::KeyMissing,
        Self::KeyNotString,
        Self::KeyEmpty,
        Self::KeyTooLong,
        Self::IndexMalformed,
        Self::IndexMissing,
        Self::DataMissing,
        Self::NoRoleInTime,
        Self::NoRole,
        Self::HasRole,
        Self::KeyTaken,
        Self::KeyUnknown,
        Self::NoIndex,
        Self::Silent,
        Self::TooBig,
        Self::Internal,
        Self::TooManyJoiners,
        Self::TooSlow,
        Self::OpenerLeft,
        Self::Kicked,
    ];

    /// The WebSocket close code.
    pub const fn code(self) -> u16 {
        match self {
            Self::ShuttingDown => 1001,
            Self::BrokenFraming => 1002,
            Self::Binary => 1003,
            Self::InvalidUtf8
            | Self::InvalidJson
            | Self::NotAnObject
            | Self::TooDeep
            | Self::Duplicate(_)
            | Self::UnknownType
            | Self::UnknownMessage
            | Self::KeyMissing
            | Self::KeyNotString
            | Self::KeyEmpty
            | Self::KeyTooLong
            | Self::IndexMalformed
            | Self::IndexMissing
            | Self::DataMissing => 1007,
            Self::NoRoleInTime
            | Self::NoRole
            | Self::HasRole
            | Self::KeyTaken
            | Self::KeyUnknown
            | Self::NoIndex
            | Self::Silent => 1008,
            Self::TooBig => 1009,
            Self::Internal => 1011,
            Self::TooManyJoiners | Self::TooSlow => 1013,
            Self::OpenerLeft => 4001,
            Self::Kicked => 4003,
        }
    }
}

/// A member of a message that the server reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// `type`
    Type,
    /// `key`
    Key,
    /// `index`
    Index,
    /// `data`
    Data,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Type => "type",
            Self::Key => "key",
            Self::Index => "index",
            Self::Data => "data",
        })
    }
}

/// Why something is not done that a connection asked for. Nothing has changed, and it harms nobody: a connection of
/// [`Tenure::Renewable`](crate::Tenure::Renewable) is told and goes on, one of [`Tenure::OneRole`](crate::Tenure::OneRole) is closed
/// where [`closes`](Self::closes) says so.
///
/// [`code`](Self::code) is for programs, `Display` is for people. Both are stable, and are listed in the project's `PROTOCOL.md`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Open of a key that has an opener.
    #[error("`key` is taken: another opener has it")]
    KeyTaken {
        /// The key that was asked for.
        key: Key,
    },
    /// Join of a key that nobody has open.
    #[error("`key` is unknown: nobody has it open")]
    UnknownKey {
        /// The key that was asked for.
        key: Key,
    },
    /// Join of a key that has [`Limits::joiners_per_key`](crate::Limits::joiners_per_key) joiners.
    #[error("`key` has as many joiners as it may have")]
    TooManyJoiners {
        /// The key that was asked for.
        key: Key,
    },
    /// Open or join from a connection that has a role.
    #[error("this socket has a role already: it has to leave or close that first")]
    HasRole,
    /// Anything else from a connection that has none.
    #[error("this socket has no role: it has to open or join a key first")]
    NoRole,
    /// Something that is for the other role, or for connections whose role is renewable.
    #[error("`type` is not for this role: kick and close are an opener's, leave is a joiner's")]
    WrongRole,
    /// An opener's data that names no joiner.
    #[error("`index` is missing: an opener has to say which joiner it means")]
    NoIndex,
    /// An opener's data or kick for a joiner that is gone, or never came. An ordinary race.
    #[error("`index` names no joiner that is here")]
    UnknownIndex {
        /// The index that was given.
        index: Index,
    },
    /// Data that its recipient cannot be given.
    #[error(
        "`data` is not one JSON object with at most one `index`, and a peer of the plain protocol takes nothing else"
    )]
    NotAnObject {
        /// The joiner that it was for; `None` when it was for the opener.
        index: Option<Index>,
    },
}

impl Refusal {
    /// The code of every refusal, in the order of the variants.
    pub const CODES: &'static [&'static str] = &[
        "key-taken",
        "unknown-key",
        "too-many-joiners",
        "has-role",
        "no-role",
        "wrong-role",
        "no-index",
        "unknown-index",
        "not-an-object",
    ];

    /// The name of the refusal on the wire, the `code` of an `error` of `sigver.v1`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::KeyTaken { .. } => "key-taken",
            Self::UnknownKey { .. } => "unknown-key",
            Self::TooManyJoiners { .. } => "too-many-joiners",
            Self::HasRole => "has-role",
            Self::NoRole => "no-role",
            Self::WrongRole => "wrong-role",
            Self::NoIndex => "no-index",
            Self::UnknownIndex { .. } => "unknown-index",
            Self::NotAnObject { .. } => "not-an-object",
        }
    }

    /// What a connection of one role is closed with; `None` where it goes on.
    pub const fn closes(&self) -> Option<CloseReason> {
        match self {
            Self::KeyTaken { .. } => Some(CloseReason::KeyTaken),
            Self::UnknownKey { .. } => Some(CloseReason::KeyUnknown),
            Self::TooManyJoiners { .. } => Some(CloseReason::TooManyJoiners),
            Self::HasRole => Some(CloseReason::HasRole),
            Self::NoRole => Some(CloseReason::NoRole),
            Self::NoIndex => Some(CloseReason::NoIndex),
            Self::NotAnObject { .. } => Some(CloseReason::NotAnObject),
            Self::WrongRole | Self::UnknownIndex { .. } => None,
        }
    }
}

/// Why a joiner's role has ended without its doing. A connection of one role is closed with [`reason`](Self::reason); one whose role is
/// renewable is told, and stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleEnd {
    /// The opener has gone, or given its key up.
    OpenerLeft,
    /// The opener has sent this joiner away.
    Kicked,
}

impl RoleEnd {
    /// The name of the end on the wire, the `code` of a `closed` of `sigver.v1`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::OpenerLeft => "opener-left",
            Self::Kicked => "kicked",
        }
    }

    /// What a connection of one role is closed with.
    pub const fn reason(self) -> CloseReason {
        match self {
            Self::OpenerLeft => CloseReason::OpenerLeft,
            Self::Kicked => CloseReason::Kicked,
        }
    }
}

/// Why [`Hub::connect`](crate::Hub::connect) takes no further connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// [`Hub::shutdown`](crate::Hub::shutdown) was called.
    #[error("server shutting down")]
    ShuttingDown,
    /// There are [`Limits::connections`](crate::Limits::connections) of them.
    #[error("too many connections")]
    TooManyConnections,
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::BTreeSet, string::ToString};

    use super::*;

    #[test]
    fn every_reason_is_one_short_line_of_its_own() {
        let mut texts = BTreeSet::new();
        for reason in CloseReason::ALL {
            let text = reason.to_string();
            assert!(text.len() <= 123, "{text:?} does not fit a close frame");
            assert!(!text.contains('\n'));
            assert!(texts.insert(text), "{reason:?} has another reason's text");
        }
    }

    #[test]
    fn all_is_in_the_order_of_codes() {
        assert!(CloseReason::ALL.is_sorted_by_key(|reason| reason.code()));
    }
}
