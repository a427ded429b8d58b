//! Frames that are sent to clients.

use alloc::{
    boxed::Box,
    string::{String, ToString},
};

use crate::reason::CloseReason;

/// A WebSocket frame to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text frame.
    Text(String),
    /// A ping with an empty payload.
    Ping,
    /// A pong with the payload of the client's ping. A driver whose WebSocket library answers pings can ignore it.
    Pong(Box<[u8]>),
    /// A close frame; code and text are the reason's. The last frame of its connection. After sending it, read and discard until the
    /// client closes the socket. With [`TooSlow`](CloseReason::TooSlow), frames not yet sent may be discarded, and must be if there is a
    /// limit on all backlogs together.
    Close(CloseReason),
    /// The reply to the client's close frame, with the same code. The last frame of its connection. A driver whose WebSocket library
    /// replies to close frames can ignore it.
    CloseReply(Option<u16>),
}

impl Frame {
    /// What each frame counts for in a write buffer in addition to its bytes, in bytes.
    pub const OVERHEAD: usize = 4;

    /// Returns the length of the frame on the wire in bytes, header included (RFC 6455 section 5.2, without a mask).
    #[must_use]
    pub fn wire_len(&self) -> usize {
        const CODE: usize = 2;
        let payload = match self {
            Self::Text(text) => text.len(),
            Self::Ping => 0,
            Self::Pong(payload) => payload.len(),
            Self::Close(reason) => CODE + reason.to_string().len(),
            Self::CloseReply(code) => code.map_or(0, |_| CODE),
        };
        let header = match payload {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => 10,
        };
        header + payload
    }

    /// Returns what the frame counts for in the client's write buffer, in bytes: its length on the wire and [`OVERHEAD`](Self::OVERHEAD).
    #[must_use]
    pub fn cost(&self) -> usize {
        self.wire_len() + Self::OVERHEAD
    }
}
