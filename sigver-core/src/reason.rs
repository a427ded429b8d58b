//! Why a connection is closed, a request refused, or a role ended: codes, names and texts.

use core::fmt;

use thiserror::Error;

use crate::{
    id::{Index, InvalidPeerId, Key, KeyError},
    token::InvalidToken,
};

/// Declares [`CloseReason`] from one list, so that no reason is missing in a table.
macro_rules! close_reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal, $text:literal;)*) => {
        /// Why a connection is closed. [`code`](Self::code) is the WebSocket close code (RFC 6455 section 7.4). `Display` is the text of the
        /// close frame: stable, one line, at most 123 bytes (RFC 6455 section 5.5). [`name`](Self::name) is its label in metrics.
        ///
        /// `PROTOCOL.md` lists all of them.
        ///
        /// ```
        /// use sigver_core::CloseReason;
        ///
        /// let reason = CloseReason::KeyTaken;
        /// assert_eq!((reason.code(), reason.name(), &*reason.to_string()), (1008, "key-taken", "key is taken"));
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
        #[non_exhaustive]
        pub enum CloseReason {
            $($(#[$doc])* #[error($text)] $variant,)*
            /// 1007: a member that the server reads occurs more than once.
            #[error("`{0}` given more than once")]
            Duplicate(Member),
        }

        impl CloseReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[
                $(Self::$variant,)*
                Self::Duplicate(Member::Type),
                Self::Duplicate(Member::Key),
                Self::Duplicate(Member::Index),
                Self::Duplicate(Member::Data),
                Self::Duplicate(Member::Id),
                Self::Duplicate(Member::Wait),
                Self::Duplicate(Member::Token),
            ];

            /// Returns the WebSocket close code.
            pub const fn code(self) -> u16 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Duplicate(_) => 1007,
                }
            }

            /// Returns the reason's name in metrics. If `sigver.v1` has an error with the same meaning, it is that error's code.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Duplicate(Member::Type) => "duplicate-type",
                    Self::Duplicate(Member::Key) => "duplicate-key",
                    Self::Duplicate(Member::Index) => "duplicate-index",
                    Self::Duplicate(Member::Data) => "duplicate-data",
                    Self::Duplicate(Member::Id) => "duplicate-id",
                    Self::Duplicate(Member::Wait) => "duplicate-wait",
                    Self::Duplicate(Member::Token) => "duplicate-token",
                }
            }
        }
    };
}

close_reasons! {
    /// 1001: the server shuts down.
    ShuttingDown = 1001, "shutting-down", "server shutting down";

    /// 1002: the bytes are not WebSocket frames as in RFC 6455.
    BrokenFraming = 1002, "broken-framing", "broken WebSocket framing";

    /// 1003: a binary frame.
    Binary = 1003, "binary", "binary frame: only text is understood";

    /// 1007: a text frame that is not UTF-8.
    InvalidUtf8 = 1007, "invalid-utf8", "text is not valid UTF-8";
    /// 1007: a text that is not JSON, or more than one JSON value.
    InvalidJson = 1007, "invalid-json", "text is not one JSON object: invalid JSON";
    /// 1007: a JSON value other than an object.
    NotAnObject = 1007, "not-an-object", "text is not one JSON object: another JSON value";
    /// 1007: arrays and objects nest deeper than [`Limits::depth`](crate::Limits::depth).
    TooDeep = 1007, "too-deep", "nesting over the limit";
    /// 1007: the first message has a `key`, and a `type` other than `open` and `join`.
    UnknownType = 1007, "unknown-type", "first message has a `key` but its `type` is neither open nor join";
    /// 1007: in `sigver.v1`, a message without a `type`, or with an unknown one.
    UnknownMessage = 1007, "unknown-message", "`type` is missing or none of sigver.v1";
    /// 1007: in `sigver.v1`, join or meet without `key`.
    KeyMissing = 1007, "key-missing", "`key` is missing";
    /// 1007: open, join or meet with a `key` that is not a string of Unicode text.
    KeyNotString = 1007, "key-not-string", "`key` is not a string";
    /// 1007: open, join or meet with an empty `key`.
    KeyEmpty = 1007, "key-empty", "`key` is empty";
    /// 1007: open, join or meet with a `key` longer than [`Limits::key_bytes`](crate::Limits::key_bytes).
    KeyTooLong = 1007, "key-too-long", "`key` over the length limit";
    /// 1007: an opener's `index` that is not an integer, written as `0` or without a leading zero or sign.
    IndexMalformed = 1007, "index-malformed", "`index` is not a non-negative integer";
    /// 1007: in `sigver.v1`, kick without `index`.
    IndexMissing = 1007, "index-missing", "`index` is missing";
    /// 1007: in `sigver.v1`, send without `data`.
    DataMissing = 1007, "data-missing", "`data` is missing";
    /// 1007: in `sigver.v1`, join with a `wait` that is not an integer, written as `0` or without a leading zero or sign.
    WaitMalformed = 1007, "wait-malformed", "`wait` is not a non-negative integer";
    /// 1007: in `sigver.v1`, open or meet with a `token` that is not a string of at most [`Token::MAX_BYTES`](crate::Token::MAX_BYTES) bytes.
    TokenMalformed = 1007, "token-malformed", "`token` is not a string of at most 64 bytes";
    /// 1007: in `sigver.v1`, open, join or meet with an `id` that is not a string of 1 to [`PeerId::MAX_BYTES`](crate::PeerId::MAX_BYTES) bytes.
    IdMalformed = 1007, "id-malformed", "`id` is not a string of 1 to 64 bytes";

    /// 1008: no open, join or meet within [`Limits::role_deadline`](crate::Limits::role_deadline).
    NoRoleInTime = 1008, "no-role-in-time", "no open or join in time";
    /// 1008: data before open or join.
    NoRole = 1008, "no-role", "first message must contain `type` and `key`: data before open or join";
    /// 1008: open or join from a connection that has a role.
    HasRole = 1008, "has-role", "second open or join: one role and one key for life";
    /// 1008: open of a key that has an opener.
    KeyTaken = 1008, "key-taken", "key is taken";
    /// 1008: join of a key that has no opener.
    UnknownKey = 1008, "unknown-key", "key is unknown";
    /// 1008: the operator does not allow the client to open or join this key. Says nothing about the key.
    NotAllowed = 1008, "not-allowed", "not allowed";
    /// 1008: an opener's data without `index`.
    NoIndex = 1008, "no-index", "opener's message has no `index`";
    /// 1008: no frame, pongs included, for at least two keep-alive intervals.
    Silent = 1008, "silent", "no sign of life";

    /// 1009: a message longer than [`Limits::message_bytes`](crate::Limits::message_bytes).
    TooBig = 1009, "too-big", "message over the size limit";

    /// 1011: the server failed.
    Internal = 1011, "internal", "internal error";

    /// 1013: the key has [`Limits::joiners_per_key`](crate::Limits::joiners_per_key) joiners.
    TooManyJoiners = 1013, "too-many-joiners", "too many joiners on the key";
    /// 1013: the connection or its source has made too many attempts at keys. Says nothing about the key.
    TooManyAttempts = 1013, "too-many-attempts", "too many attempts at keys";
    /// 1013: a slow consumer. Its write buffer is full, or it reads nothing while joiners wait for it, or the write buffers of all clients
    /// together are full and it has the largest.
    TooSlow = 1013, "too-slow", "reading too slowly";

    /// 4001: the opener of the joined key has left.
    OpenerLeft = 4001, "opener-left", "opener left";
    /// 4003: the opener has kicked this joiner.
    Kicked = 4003, "kicked", "kicked by the opener";
    /// 4004: the time for which the client was admitted is over ([`Endpoint::expire_at`](crate::Endpoint::expire_at)).
    TokenExpired = 4004, "token-expired", "token expired";
    /// 4005: the operator has closed the connection ([`Endpoint::close`](crate::Endpoint::close)).
    ClosedByOperator = 4005, "closed-by-operator", "closed by the operator";
}

impl From<KeyError> for CloseReason {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Empty => Self::KeyEmpty,
            KeyError::TooLong => Self::KeyTooLong,
        }
    }
}

impl From<InvalidToken> for CloseReason {
    fn from(_: InvalidToken) -> Self {
        Self::TokenMalformed
    }
}

impl From<InvalidPeerId> for CloseReason {
    fn from(_: InvalidPeerId) -> Self {
        Self::IdMalformed
    }
}

impl CloseReason {
    /// Whether a connection that is closed for this reason counts as lost, so that the key of an opener is reserved.
    pub(crate) const fn is_loss(self) -> bool {
        matches!(self, Self::TooSlow | Self::Silent)
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
    /// `id`
    Id,
    /// `wait`
    Wait,
    /// `token`
    Token,
}

impl Member {
    /// Every member.
    pub const ALL: &'static [Self] = &[
        Self::Type,
        Self::Key,
        Self::Index,
        Self::Data,
        Self::Id,
        Self::Wait,
        Self::Token,
    ];

    /// Returns the member's name in a message.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Key => "key",
            Self::Index => "index",
            Self::Data => "data",
            Self::Id => "id",
            Self::Wait => "wait",
            Self::Token => "token",
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Declares [`Refusal`] from one list, so that no refusal is missing in a table.
macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident $({ $(#[$field_doc:meta])* $field:ident: $type:ty })? =
        $name:literal, closes $closes:expr, $text:literal;)*) => {
        /// Why a request was refused. Except for the role deadline, a refused request changes nothing. A connection with
        /// [`RoleLifetime::Reusable`](crate::RoleLifetime::Reusable) receives the refusal and stays open; one with
        /// [`RoleLifetime::SingleUse`](crate::RoleLifetime::SingleUse) is closed if [`closes`](Self::closes) returns a reason.
        ///
        /// [`name`](Self::name) is for programs, `Display` is for people. Both are stable. `PROTOCOL.md` lists them.
        #[derive(Clone, Debug, PartialEq, Eq, Error)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[$doc])* #[error($text)] $variant $({ $(#[$field_doc])* $field: $type })?,)*
        }

        impl Refusal {
            /// The name of every refusal, in the order of the variants.
            pub const NAMES: &'static [&'static str] = &[$($name,)*];

            /// Returns the refusal's name: the `code` of an `error` of `sigver.v1`, and its label in metrics.
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $name,)*
                }
            }

            /// Returns the close reason for a connection with a single-use role, or `None` if it stays open.
            pub const fn closes(&self) -> Option<CloseReason> {
                match self {
                    $(Self::$variant { .. } => $closes,)*
                }
            }
        }
    };
}

refusals! {
    /// Open or meet of a key that has an opener, or is reserved, without the token for it. A meet is refused so only if it shows another token.
    KeyTaken {
        /// The requested key.
        key: Key
    } = "key-taken", closes Some(CloseReason::KeyTaken), "`key` is taken: another opener has it";
    /// Join of a key that has no opener, or had none while the join waited; or meet of a reserved key.
    UnknownKey {
        /// The requested key.
        key: Key
    } = "unknown-key", closes Some(CloseReason::UnknownKey), "`key` is unknown: nobody has it open";
    /// Join or meet of a key that has [`Limits::joiners_per_key`](crate::Limits::joiners_per_key) joiners, or as many waiting connections.
    TooManyJoiners {
        /// The requested key.
        key: Key
    } = "too-many-joiners", closes Some(CloseReason::TooManyJoiners), "`key` has as many joiners as it may have";
    /// Open, join or meet of a named key from a connection that, or whose source, has made too many attempts. Says nothing about the key. The hub
    /// does not count attempts: an embedder refuses with [`Hub::refuse_request`](crate::Hub::refuse_request).
    TooManyAttempts {
        /// The requested key.
        key: Key
    } = "too-many-attempts", closes Some(CloseReason::TooManyAttempts),
        "too many attempts at keys: try again in a minute";
    /// Open, join or meet that the embedder does not allow ([`InboundMessage::NotAllowed`](crate::InboundMessage::NotAllowed)). To a
    /// meet with one allowed role, it says whether somebody has the key open; otherwise, it says nothing about the key.
    NotAllowed {
        /// The requested key; `None` if the client has asked for a generated one.
        key: Option<Key>
    } = "not-allowed", closes Some(CloseReason::NotAllowed), "this socket is not allowed to have this role at `key`";
    /// Open, join or meet from a connection that has a role, or waits for one.
    HasRole = "has-role", closes Some(CloseReason::HasRole),
        "this socket has a role already: it has to leave or close that first";
    /// Any other message from a connection without a role.
    NoRole = "no-role", closes Some(CloseReason::NoRole), "this socket has no role: it has to open or join a key first";
    /// A message of the other role, or of connections with reusable roles.
    WrongRole = "wrong-role", closes None,
        "`type` is not for this role: kick and close are an opener's, leave is a joiner's";
    /// An opener's data without an index.
    NoIndex = "no-index", closes Some(CloseReason::NoIndex), "`index` is missing: an opener has to say which joiner it means";
    /// An opener's data or kick for an index that no joiner has. The joiner may have just left.
    UnknownIndex {
        /// The given index. `None` is a number that is too large for any joiner.
        index: Option<Index>
    } = "unknown-index", closes None, "`index` names no joiner that is here";
    /// Data that its recipient does not accept.
    NotAnObject {
        /// The joiner that it was for; `None` if it was for the opener.
        index: Option<Index>
    } = "not-an-object", closes Some(CloseReason::NotAnObject),
        "`data` is not one JSON object with at most one `index`, and a peer of the plain protocol takes nothing else";
}

/// Why a role ended without a message from its connection. A connection with a single-use role is closed with [`reason`](Self::reason); one with
/// reusable roles is notified and stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleEnd {
    /// The opener has disconnected, was closed, or has closed its key.
    OpenerLeft,
    /// The opener has kicked this joiner.
    Kicked,
    /// Another connection has taken over the role of this opener.
    TakenOver,
    /// The time for which the client was admitted is over. Its connection is closed with [`CloseReason::TokenExpired`].
    TokenExpired,
}

impl RoleEnd {
    /// Every end.
    pub const ALL: &'static [Self] = &[Self::OpenerLeft, Self::Kicked, Self::TakenOver, Self::TokenExpired];

    /// Returns the name of the end: the `code` of a `closed` of `sigver.v1`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenerLeft => CloseReason::OpenerLeft.name(),
            Self::Kicked => CloseReason::Kicked.name(),
            Self::TakenOver => "taken-over",
            Self::TokenExpired => CloseReason::TokenExpired.name(),
        }
    }

    /// Returns the close reason for a connection with a single-use role; `None` if its role cannot end so.
    pub const fn reason(self) -> Option<CloseReason> {
        match self {
            Self::OpenerLeft => Some(CloseReason::OpenerLeft),
            Self::Kicked => Some(CloseReason::Kicked),
            Self::TakenOver => None,
            Self::TokenExpired => Some(CloseReason::TokenExpired),
        }
    }
}

/// Why [`Hub::connect`](crate::Hub::connect) accepts no further connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// [`Hub::shutdown`](crate::Hub::shutdown) was called.
    #[error("server shutting down")]
    ShuttingDown,
    /// There are [`Limits::connections`](crate::Limits::connections) connections.
    #[error("too many connections")]
    TooManyConnections,
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::BTreeSet, string::ToString};

    use super::*;

    #[test]
    fn close_texts_are_short_and_unique() {
        let mut texts = BTreeSet::new();
        for reason in CloseReason::ALL {
            let text = reason.to_string();
            assert!(text.len() <= 123, "{text:?} does not fit a close frame");
            assert!(!text.contains('\n'));
            assert!(texts.insert(text), "{reason:?} has another reason's text");
        }
    }

    #[test]
    fn names_are_unique_and_kebab_case() {
        let is_kebab = |name: &str| {
            name.bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        };
        let names: BTreeSet<_> = CloseReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), CloseReason::ALL.len());
        assert!(names.iter().chain(Refusal::NAMES).all(|name| is_kebab(name)));
    }

    #[test]
    fn every_member_has_a_duplicate_reason() {
        for member in Member::ALL {
            let reason = CloseReason::Duplicate(*member);
            assert!(CloseReason::ALL.contains(&reason));
            assert_eq!(reason.name(), std::format!("duplicate-{member}"));
        }
    }
}
