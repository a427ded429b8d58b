//! What a client has sent, and what of it waits while the client is not read.

use alloc::{boxed::Box, collections::VecDeque};

use crate::{id::ConnId, message::InboundMessage, reason::CloseReason};

/// A decoded event of a client.
pub(super) enum Received {
    Message {
        message: InboundMessage,
        text_bytes: usize,
        wire_bytes: usize,
    },
    Ping(Box<[u8]>),
    Pong,
    CloseFrame(Option<u16>),
    Violation(CloseReason),
}

/// What a joiner has sent that waits for room in the write buffer of an opener.
pub(super) struct Blocked {
    pub(super) opener: ConnId,
    /// The first is a message.
    pub(super) received: VecDeque<Received>,
    /// Their size.
    pub(super) bytes: usize,
}

/// What an event costs that waits, in addition to its text.
const EVENT_OVERHEAD: usize = 64;

impl Received {
    pub(super) fn bytes(&self) -> usize {
        EVENT_OVERHEAD
            + match self {
                Self::Message { text_bytes, .. } => *text_bytes,
                Self::Ping(payload) => payload.len(),
                Self::Pong | Self::CloseFrame(_) | Self::Violation(_) => 0,
            }
    }
}
