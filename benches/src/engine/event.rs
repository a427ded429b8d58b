//! What happens on a connection.

use std::io;

/// A connection of one [`Engine`](super::Engine), never used for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    pub(super) slot: usize,
    pub(super) serial: u64,
}

/// What a connection has to say.
#[derive(Debug)]
pub enum Event<'a> {
    /// The server agreed: messages may be sent.
    Upgraded,
    /// A whole text (or binary) message.
    Message(&'a [u8]),
    /// The answer to a ping, with its body.
    Pong(&'a [u8]),
    /// The server's close frame. If it came first, it has been answered.
    Close(Option<u16>),
    /// A backlog has been written out: more can be sent.
    Drained,
    /// The connection is no more. Nothing follows.
    Ended(Ending),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The server closed the stream.
    Eof,
    /// The server sent what is no frame, or a frame beyond the engine's buffer.
    Malformed,
    /// The server answered the upgrade with this status.
    Refused(u16),
    /// The stream broke, or was never made.
    Broken(io::ErrorKind),
}
