use alloc::{
    boxed::Box,
    string::{String, ToString},
};

use crate::{CloseReason, InboundMessage, Pairing, Time};

/// An event on a connection, for [`Endpoint::handle`](crate::Endpoint::handle).
#[derive(Debug)]
pub enum Input<'a> {
    /// A text message arrived.
    Text(&'a str),
    /// A text message arrived and was decoded by the driver with [`Dialect::decode`](crate::Dialect::decode), on another thread for
    /// example. If decoding fails, use [`Violation`](Self::Violation).
    Message {
        /// The decoded message.
        message: InboundMessage,
        /// Bytes of the text, for the counters.
        text_bytes: usize,
        /// Bytes read from the socket for this message, for the rate limit. At least `text_bytes`.
        wire_bytes: usize,
    },
    /// A binary message arrived. The connection is closed with 1003 [`Binary`](CloseReason::Binary).
    Binary,
    /// A ping with this payload arrived. It is answered with a [`Frame::Pong`].
    Ping(&'a [u8]),
    /// A pong arrived.
    Pong,
    /// A close frame with this code arrived. It is answered with a [`Frame::CloseReply`], unless the endpoint has closed the connection.
    Close(Option<u16>),
    /// The client violated the WebSocket protocol or a limit in a way that only the driver sees:
    /// [`BrokenFraming`](CloseReason::BrokenFraming), [`InvalidUtf8`](CloseReason::InvalidUtf8), [`TooBig`](CloseReason::TooBig). Or the
    /// driver failed: [`Internal`](CloseReason::Internal).
    Violation(CloseReason),
    /// The socket is gone. The last event of every connection, also of one that the endpoint has closed or aborted. Report it before you
    /// close the socket: a client that sees the end may open its key again at once.
    Disconnected,
}

/// An instruction to the driver, for one connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Send a frame, after all frames that were returned for this connection before.
    Send(Frame),
    /// Do not read from the connection until this time. A later instruction replaces an earlier one.
    PauseReading(Time),
    /// Drop the socket without a further frame: the close handshake timed out.
    Abort,
    /// For logs: a joiner and its opener no longer communicate through the endpoint. Drivers may ignore it.
    PairingEnded(Box<Pairing>),
}

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
    /// client closes the socket. With [`TooSlow`](CloseReason::TooSlow), frames not yet sent may be discarded.
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
