//! The limits of the core and their defaults.

use core::{num::NonZeroU32, time::Duration};

/// The limits of a [`Hub`](crate::Hub) and the codecs. Each field states its cost and its effect on a client that exceeds it.
///
/// ```
/// let mut limits = sigver_core::Limits::default();
/// limits.joiners_per_key = 4;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The most open connections. Default: `None`, the limit of ids, which is 2^32 - 1.
    ///
    /// A closed connection does not count, even if its socket still exists. A connection takes about 100 bytes in the hub. One over the limit
    /// is refused with [`ConnectError::TooManyConnections`](crate::ConnectError::TooManyConnections); a server responds with HTTP 503.
    pub connections: Option<NonZeroU32>,
    /// The most joiners of a key at the same time. Default: 1,000.
    ///
    /// When an opener leaves, one call returns a message for each of its joiners, so this limits the longest call. One joiner over the limit is
    /// refused with [`TooManyJoiners`](crate::Refusal::TooManyJoiners); in the plain dialect it is closed with 1013.
    pub joiners_per_key: u32,
    /// The longest key in bytes of UTF-8, after JSON decoding. Default: 256.
    ///
    /// A client that sends a longer one is closed with 1007 [`KeyTooLong`](crate::CloseReason::KeyTooLong). Generated keys are 32 bytes long;
    /// with a lower limit, a client that requests one is closed as well.
    pub key_bytes: u32,
    /// The longest message in bytes. Default: 65,536.
    ///
    /// A client that sends a longer one is closed with 1009 [`TooBig`](crate::CloseReason::TooBig). Values above 2^31 - 1 count as 2^31 - 1.
    pub message_bytes: u32,
    /// The deepest nesting of arrays and objects in a message, including the message itself. Default: 128.
    ///
    /// The core parses without recursion; the limit protects the recipient's parser. A client that sends a deeper message is closed with 1007
    /// [`TooDeep`](crate::CloseReason::TooDeep).
    pub depth: u32,
    /// The time within which a connection must first try to open, join or meet at a key. Default: 60 seconds; `None` for no limit.
    ///
    /// After it, the connection is closed with 1008 [`NoRoleInTime`](crate::CloseReason::NoRoleInTime).
    pub role_deadline: Option<Duration>,
    /// The longest time for which a join of `sigver.v1` waits for its key, in whole seconds: a fraction is ignored. Default: 120 seconds.
    ///
    /// A client that requests more waits for this time; zero disables waiting. For each key, as many connections may wait as
    /// [`joiners_per_key`](Self::joiners_per_key). One more is refused with [`TooManyJoiners`](crate::Refusal::TooManyJoiners). A waiting
    /// connection takes about 400 bytes in addition to its key and id.
    pub join_wait: Duration,
    /// The time for which a join of the plain dialect waits for its key, unnoticed, before it is refused with
    /// [`UnknownKey`](crate::Refusal::UnknownKey). Default: 250 milliseconds; zero disables it.
    ///
    /// Two clients that send an open and a join at the same moment cannot know which of them arrives first. An
    /// [`Endpoint`](crate::Endpoint) does not read from the client meanwhile, and handles what was read already after the outcome. In a bare
    /// [`Hub`](crate::Hub), a further message of the client ends the wait: the join is refused.
    pub plain_join_grace: Duration,
    /// The time for which the key of an opener whose connection was lost is reserved for its token. Default: 30 seconds; zero disables it.
    ///
    /// A connection is lost if its transport ends without a close frame ([`Disconnect::Lost`](crate::Disconnect::Lost)), or if it is closed as
    /// [`Silent`](crate::CloseReason::Silent) or [`TooSlow`](crate::CloseReason::TooSlow). Only an opener with a
    /// [`Token`](crate::Token) that has opened its key, and not met, has a reservation. Without the token, an open of a reserved key is refused
    /// with [`KeyTaken`](crate::Refusal::KeyTaken); a join waits or is refused with [`UnknownKey`](crate::Refusal::UnknownKey), and so is a
    /// meet. Otherwise, a client that ends the connection of an opener, for example by sending more than it reads, could open its key and
    /// receive its joiners.
    pub reserve: Duration,
    /// The most reserved keys at the same time. Default: `None`, as many as [`connections`](Self::connections).
    ///
    /// One more ends the oldest reservation: its key is free. In an [`Endpoint`](crate::Endpoint), a source may have an eighth of them in the time of
    /// a reservation, and at least 16; beyond it, its own keys are free at once. A reservation takes about 300 bytes in addition to its key.
    pub reserved_keys: Option<NonZeroU32>,
}

#[cfg(feature = "json")]
impl Limits {
    /// Returns [`message_bytes`](Self::message_bytes) as the codecs use it: offsets in a message have 31 bits.
    pub(crate) fn message_len(&self) -> usize {
        self.message_bytes.min(i32::MAX as u32) as usize
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            joiners_per_key: 1_000,
            key_bytes: 256,
            message_bytes: 64 * 1024,
            depth: 128,
            role_deadline: Some(Duration::from_secs(60)),
            join_wait: Duration::from_secs(120),
            plain_join_grace: Duration::from_millis(250),
            reserve: Duration::from_secs(30),
            reserved_keys: None,
        }
    }
}
