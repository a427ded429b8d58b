//! The inputs and outputs of an endpoint.

use alloc::boxed::Box;

use crate::{endpoint::pairing::Pairing, frame::Frame, message::InboundMessage, reason::CloseReason, time::Time};

/// An event on a connection, for [`Endpoint::handle`](crate::Endpoint::handle).
#[derive(Debug)]
pub enum Input<'a> {
    /// A text message arrived.
    Text(&'a str),
    /// A text message arrived and was decoded by the driver with a [`Decoder`](crate::Decoder), for example on another thread. If decoding
    /// fails, use [`Violation`](Self::Violation).
    Message {
        /// The decoded message.
        message: InboundMessage,
        /// The length of the text in bytes, for the counters.
        text_bytes: usize,
        /// The bytes read from the socket for this message, for the rate limit. At least `text_bytes`.
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
    /// close the socket: when the client sees the end, it may open its key again at once.
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
    /// Do not read from the connection until [`ResumeReading`](Self::ResumeReading), whatever `PauseReading` says: its opener reads more
    /// slowly than it sends, or the outcome of its join is open. Events that were read already may be reported; they wait in the endpoint.
    /// Report [`Input::Disconnected`] if the socket is gone. If the connection is stopped already, this changes nothing.
    StopReading,
    /// Read from the connection again, unless a [`PauseReading`](Self::PauseReading) is in force. Also returned before the last frame of a
    /// connection that was stopped.
    ResumeReading,
    /// Joiners wait for this opener. If its client has read something since the last probe that was not reported as written, call
    /// [`Endpoint::record_progress`](crate::Endpoint::record_progress). Drivers may ignore it if they cannot know.
    ProbeProgress,
    /// Drop the socket without a further frame: the close handshake timed out.
    Abort,
    /// For logs: a joiner and its opener no longer communicate through the endpoint. Drivers may ignore it.
    PairingEnded(Box<Pairing>),
}
