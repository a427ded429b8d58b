//! Events of a connection.

use std::io;

/// Identifies a connection of one [`Engine`](super::Engine). Identifiers are not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId {
    pub(super) slot: usize,
    pub(super) serial: u64,
}

/// An event of a connection.
#[derive(Debug)]
pub enum Event<'a> {
    /// The server accepted the upgrade. Messages can be sent.
    Upgraded,
    /// A complete text or binary message.
    Message(&'a [u8]),
    /// A pong, with its body.
    Pong(&'a [u8]),
    /// A close frame, with its code. If the server sent it first, it has been answered.
    Close(Option<u16>),
    /// The queued bytes have been written.
    Drained,
    /// The connection is closed. This is its last event.
    Disconnected(DisconnectReason),
}

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// The server closed the stream.
    Eof,
    /// The server sent an invalid frame, or one larger than the read buffer.
    InvalidFrame,
    /// The server rejected the upgrade with this status.
    UpgradeRejected(u16),
    /// Connecting, reading or writing failed.
    Io(io::ErrorKind),
}
