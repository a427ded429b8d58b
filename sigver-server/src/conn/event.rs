//! The items of the channel to the relay. The channel itself has no limit: connections have credits for their events, and the flusher one event
//! for each connection.

use std::{
    sync::{Arc, mpsc::SyncSender},
    time::Instant,
};

use sigver_core::{CloseReason, ConnId, Dialect, InboundMessage, Time};

use crate::{
    conn::peer::{Credit, Peer},
    events::ConnectionInfo,
};

/// An item of the channel to the relay.
pub(crate) enum Event {
    /// Something happened on a connection. Sent by the connection's thread.
    Conn { peer: Credit, event: ConnEvent },
    /// The flusher wrote some of a connection's backlog ([`Peer::take_written`]).
    Written(Arc<Peer>),
    /// Another thread asks the relay to do something.
    Control(Box<Control>),
    /// The server's stage may have changed, or a handshake failed.
    Wake,
    /// The relay ends, although connections may still have a sender.
    End,
}

/// What happened on a connection.
pub(crate) enum ConnEvent {
    /// Its handshake is valid: accept it and send the response, or reject it.
    Upgraded {
        response: Vec<u8>,
        dialect: Dialect,
        /// When its admission ends.
        expires_at: Option<Time>,
    },
    /// A message arrived and was decoded.
    Message {
        message: InboundMessage,
        text_bytes: usize,
        wire_bytes: usize,
        read_at: Instant,
    },
    /// A ping arrived. The pong follows everything that came before.
    Ping(Box<[u8]>),
    Pong,
    /// The client violated the protocol.
    Violation(CloseReason),
    CloseFrame {
        code: Option<u16>,
    },
    /// The client of a closing connection has read something.
    Progress,
    /// Its thread ends. The last event of a connection.
    Disconnected,
}

impl ConnEvent {
    /// Returns the size of what the client has sent, for its credits.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Upgraded { response, .. } => response.len(),
            Self::Message { text_bytes, .. } => *text_bytes,
            Self::Ping(payload) => payload.len(),
            Self::Pong | Self::Violation(_) | Self::CloseFrame { .. } | Self::Progress | Self::Disconnected => 0,
        }
    }
}

/// A request to the relay. It answers each.
pub(crate) enum Control {
    /// Close an open connection.
    Close { id: ConnId, answer: SyncSender<bool> },
    /// Remove a joiner from its key.
    Kick { id: ConnId, answer: SyncSender<bool> },
    /// Close the connection that has a key open, or end the key's reservation.
    CloseKey { key: String, answer: SyncSender<bool> },
    /// List the open connections.
    List { answer: SyncSender<Vec<ConnectionInfo>> },
}
