//! The configuration of an endpoint, with defaults.

use core::{
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use crate::limits::Limits;

/// The configuration of an [`Endpoint`](crate::Endpoint). Every field has a default.
///
/// ```
/// use core::time::Duration;
///
/// let mut config = sigver_core::EndpointConfig::default();
/// config.keep_alive = Duration::from_secs(10);
/// config.limits.joiners_per_key = 4;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointConfig {
    /// The limits of the hub and the codecs: connections, joiners, message size, key size, nesting, role deadline.
    pub limits: Limits,
    /// The interval between two pings to a client. Default: 25 seconds; zero or [`Duration::MAX`] for no pings.
    ///
    /// A client that misses two pings is closed with 1008 [`Silent`](crate::CloseReason::Silent) when the third is due. Every message
    /// and control frame from the client counts as an answer, and so does reading, while frames from joiners wait for an opener.
    pub keep_alive: Duration,
    /// The time from a close frame to [`Output::Abort`](crate::Output::Abort). Default: 5 seconds; [`Duration::MAX`] for no limit.
    ///
    /// If the client has read some of what was sent before ([`Endpoint::written`](crate::Endpoint::written),
    /// [`Endpoint::record_progress`](crate::Endpoint::record_progress)), the time begins again when it is over, 12 times in total: with
    /// the default, a slow reader has a minute to receive its close code. The time also limits how long an opener may read nothing while
    /// joiners wait: see [`backlog_bytes`](Self::backlog_bytes).
    pub close_timeout: Duration,
    /// The size of a client's write buffer, in bytes: frames that were returned by the endpoint and not yet reported to
    /// [`Endpoint::written`](crate::Endpoint::written). Default: 1 MiB.
    ///
    /// A frame that does not fit closes the client with 1013 [`TooSlow`](crate::CloseReason::TooSlow). A single frame of any size fits into
    /// an empty buffer.
    ///
    /// Joiners do not fill the buffer of their opener: each may use an eighth of it, or one message, and an eighth is for the opener's
    /// own frames. A joiner for whose next message there is no room is not read ([`Output::StopReading`](crate::Output::StopReading)), and
    /// what it has sent waits. Of such frames the endpoint returns up to an eighth of the buffer, at most 4 KiB, before they are
    /// reported as written; the others wait in the endpoint, where each counts 128 bytes more, and are returned so that each joiner gets the same number of bytes through.
    /// The opener is closed with [`TooSlow`](crate::CloseReason::TooSlow) if it has read nothing for a
    /// [`close_timeout`](Self::close_timeout) while joiners wait.
    pub backlog_bytes: u32,
    /// The size of all write buffers together, in bytes, with what joiners have sent that waits for room in them. Default: `None`, no limit.
    ///
    /// If all clients together exceed it, the one with the largest part is closed with 1013
    /// [`TooSlow`](crate::CloseReason::TooSlow), and the driver must discard its frames; if it is closing already, it is aborted. This repeats until the
    /// others fit. The limit is checked when an event or a timeout is handled, before further frames are returned. Therefore it can be
    /// exceeded by the frames of one call, and frames that the driver reports as written at once count against no client.
    pub backlog_total_bytes: Option<NonZeroU64>,
    /// The messages a client may send per second, pings and pongs included. Default: 1,000; `None` for no limit.
    ///
    /// One second's worth may arrive at once. Beyond that the endpoint returns
    /// [`Output::PauseReading`](crate::Output::PauseReading): rate-limited clients are delayed, not closed.
    pub messages_per_second: Option<NonZeroU32>,
    /// The bytes a client may send per second. Default: 4 MiB; `None` for no limit. Works like
    /// [`messages_per_second`](Self::messages_per_second), but at most a quarter of [`backlog_bytes`](Self::backlog_bytes) may arrive at once.
    pub bytes_per_second: Option<NonZeroU32>,
    /// The messages that all connections of a [`Source`](crate::Source) together may send per second. Default: `None`, no limit. Beyond it,
    /// the connection that has sent is paused, and new ones of the source are paused from the start
    /// ([`Endpoint::paused_until`](crate::Endpoint::paused_until)).
    ///
    /// [`messages_per_second`](Self::messages_per_second) alone does not limit a client with many connections. All clients behind a NAT are
    /// one source. 1,000 is a start. It costs up to 12 MiB, for at most 65,536 sources.
    pub messages_per_second_per_source: Option<NonZeroU32>,
    /// The attempts at keys of a connection per minute. All connections of a [`Source`](crate::Source) together have ten times as many.
    /// Default: `None`, no limit.
    ///
    /// This limits guessing of keys. An attempt is every open or meet that names a key, free or taken, and every join that is not allowed or
    /// of an unknown key, also if it waits for the key. Without attempts left, every open, join and meet that names a key is refused with [`TooManyAttempts`](crate::Refusal::TooManyAttempts), whatever the
    /// key; in the plain dialect, the client is closed with 1013. One minute's worth may be used at once. 30 is a reasonable value for keys
    /// that people type.
    pub key_attempts_per_minute: Option<NonZeroU32>,
    /// The time over which [`Endpoint::drain`](crate::Endpoint::drain) spreads its closes, so that clients do not reconnect all at once.
    /// Default: 5 seconds. With few connections it is shorter: closes are at most 10 milliseconds apart.
    pub drain: Duration,
    /// Whether [`Endpoint::poll_activity`](crate::Endpoint::poll_activity) returns what connections do. Default: false, which costs nothing.
    pub report_activity: bool,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            keep_alive: Duration::from_secs(25),
            close_timeout: Duration::from_secs(5),
            backlog_bytes: 1024 * 1024,
            backlog_total_bytes: None,
            messages_per_second: NonZeroU32::new(1_000),
            bytes_per_second: NonZeroU32::new(4 * 1024 * 1024),
            messages_per_second_per_source: None,
            key_attempts_per_minute: None,
            drain: Duration::from_secs(5),
            report_activity: false,
        }
    }
}
