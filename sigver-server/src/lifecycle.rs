//! The stages of a server, and who is woken when the stage changes.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use crate::{sync::waker::Waker, sys::pipe::Pipe};

/// How far a server has come. A server never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    Serving,
    /// No new client is accepted; open connections are closed one after the other.
    Draining,
    /// All remaining connections are closed at once.
    Closing,
    /// All connections were sent a close frame.
    Closed,
}

/// The stage of a server, shared by all of its threads.
pub(crate) struct Lifecycle {
    /// A [`Stage`].
    stage: AtomicU8,
    /// Wakes the accept loop.
    waker: Waker,
    /// Whether another server accepts from the same listeners after this one.
    has_successor: bool,
}

impl Lifecycle {
    pub(crate) fn new(accept_waker: Pipe, has_successor: bool) -> Self {
        Self {
            stage: AtomicU8::new(Stage::Serving as u8),
            waker: Waker::new(accept_waker),
            has_successor,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
            stage if stage == Stage::Serving as u8 => Stage::Serving,
            stage if stage == Stage::Draining as u8 => Stage::Draining,
            stage if stage == Stage::Closing as u8 => Stage::Closing,
            _ => Stage::Closed,
        }
    }

    /// Advances to `stage`, unless the server is further already, and wakes the accept loop, which wakes the relay.
    pub(crate) fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Whether the server has begun to shut down.
    pub(crate) fn is_ending(&self) -> bool {
        self.stage() > Stage::Serving
    }

    pub(crate) fn has_successor(&self) -> bool {
        self.has_successor
    }

    /// Whether a new handshake is rejected. With a successor, clients that were accepted last are let in and closed with all others.
    pub(crate) fn rejects_handshakes(&self) -> bool {
        self.is_ending() && !self.has_successor
    }

    /// Whether connections are accepted from the listeners. Without a successor they get an HTTP response until the last one is closed.
    pub(crate) fn is_accepting(&self) -> bool {
        let last = if self.has_successor {
            Stage::Serving
        } else {
            Stage::Closing
        };
        self.stage() <= last
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }
}

/// Ends the server when a thread that it needs ends, also by a panic.
pub(crate) struct CloseOnDrop(pub(crate) Arc<Lifecycle>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.advance(Stage::Closed);
    }
}
