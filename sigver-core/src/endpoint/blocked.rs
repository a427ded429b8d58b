//! What a client has sent, and what of it waits while the client is not read.

use alloc::{boxed::Box, collections::VecDeque};

use crate::{
    endpoint::timers::Timer,
    id::ConnId,
    message::InboundMessage,
    reason::{CloseReason, Refusal},
};

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

/// What a client has sent while it is not read.
pub(super) struct Blocked {
    pub(super) reason: BlockReason,
    pub(super) received: VecDeque<Received>,
    /// Their size.
    pub(super) bytes: usize,
}

pub(super) enum BlockReason {
    /// There is no room in the write buffer of this opener for the first event, which is a message.
    NoRoom(ConnId),
    /// The hub has its join, of the plain dialect, and waits for the key.
    UnknownKey,
    /// Its request, of the plain dialect, is refused when this timer is due, as late as one that waits for a key.
    Throttled { refusal: Refusal, timer: Option<Timer> },
}

/// What an event costs that waits, in addition to its text.
const EVENT_OVERHEAD: usize = 160;

const _: () = assert!(size_of::<Received>() <= 128, "the rest is for its allocation");

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
