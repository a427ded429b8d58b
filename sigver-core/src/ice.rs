//! The ICE servers that clients get.

use alloc::{string::String, vec::Vec};
use core::{fmt, time::Duration};

/// STUN and TURN servers for one side of a pairing, in the shape that `RTCPeerConnection` takes (W3C WebRTC section 4.2.4). `sigver.v1` has
/// them in `ice` of `joined` and of the opener's `join`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IceServers {
    /// The servers. An empty list is not sent.
    pub servers: Vec<IceServer>,
    /// The time for which the credentials are valid, in whole seconds; `None` if they do not expire.
    pub ttl: Option<Duration>,
}

/// A STUN or TURN server, with the credentials for one client. `Debug` does not show the credential.
#[derive(Clone, PartialEq, Eq)]
pub struct IceServer {
    /// The URLs at which it can be reached (RFC 7064, RFC 7065).
    pub urls: Vec<String>,
    /// The user name, for TURN.
    pub username: Option<String>,
    /// The password, for TURN.
    pub credential: Option<String>,
}

impl fmt::Debug for IceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceServer")
            .field("urls", &self.urls)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
