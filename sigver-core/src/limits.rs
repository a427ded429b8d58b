//! Owns the limits of the core and their defaults. Never enforces one: the hub and the codecs do.

use core::time::Duration;

/// What a [`Hub`](crate::Hub) and the codecs allow. Each limit says what it costs at worst and what a client sees that meets it.
///
/// ```
/// let mut limits = sigver_core::Limits::default();
/// limits.joiners_per_key = 4;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at the same time. Default: no limit but that of the ids, 2^32 - 1.
    ///
    /// A connection that is closed no longer counts, even if its socket still exists. A connection costs about 100 bytes in the hub. One
    /// over the limit is refused with [`ConnectError::TooManyConnections`](crate::ConnectError::TooManyConnections); a server answers HTTP
    /// 503.
    pub connections: u32,
    /// Joiners of one key at the same time. Default: 1,000.
    ///
    /// When an opener leaves, each of its joiners is told in that one step, so this also bounds the longest step. One over
    /// the limit is refused with [`TooManyJoiners`](crate::Refusal::TooManyJoiners): in the plain dialect, closed with 1013.
    pub joiners_per_key: u32,
    /// Length of a key in bytes of UTF-8, after JSON decoding. Default: 256.
    ///
    /// A longer one closes its sender with 1007 [`KeyTooLong`](crate::CloseReason::KeyTooLong). Keys that the server makes are 32
    /// bytes long; where that is too long, there are none.
    pub key_bytes: u32,
    /// Length of a message in bytes. Default: 65,536.
    ///
    /// A longer one closes its sender with 1009 [`TooBig`](crate::CloseReason::TooBig). At most 2^31 - 1 is honoured.
    pub message_bytes: u32,
    /// How deep arrays and objects may nest in a message, the message itself counted. Default: 128.
    ///
    /// The core itself parses without recursion; this protects the recipient's parser. A deeper message closes its sender
    /// with 1007 [`TooDeep`](crate::CloseReason::TooDeep).
    pub depth: u32,
    /// How long a connection may be there before it first asks to open or join a key; `None` for ever. Default: 60 seconds.
    ///
    /// After it the connection is closed with 1008 [`NoRoleInTime`](crate::CloseReason::NoRoleInTime).
    pub role_deadline: Option<Duration>,
}

impl Limits {
    /// [`message_bytes`](Self::message_bytes) as the codecs use it: no more than offsets of 31 bits can address.
    pub(crate) fn message_len(&self) -> usize {
        self.message_bytes.min(i32::MAX as u32) as usize
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: u32::MAX,
            joiners_per_key: 1_000,
            key_bytes: 256,
            message_bytes: 64 * 1024,
            depth: 128,
            role_deadline: Some(Duration::from_secs(60)),
        }
    }
}
