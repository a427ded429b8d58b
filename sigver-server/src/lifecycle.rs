//! The stages of a server, and who is woken when the stage changes.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{sync::waker::Waker, sys::pipe::Pipe};

/// How far a server has come. A server never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    Serving,
    /// Everything is served, and `/ready` reports that the server is about to drain.
    Announced,
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
    /// When the server entered [`Stage::Announced`].
    announced: OnceLock<Instant>,
    /// Wakes the accept loop.
    waker: Waker,
    /// Whether another server accepts from the same listeners after this one.
    has_successor: bool,
}

impl Lifecycle {
    pub(crate) fn new(accept_waker: Pipe, has_successor: bool) -> Self {
        Self {
            stage: AtomicU8::new(Stage::Serving as u8),
            announced: OnceLock::new(),
            waker: Waker::new(accept_waker),
            has_successor,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
            stage if stage == Stage::Serving as u8 => Stage::Serving,
            stage if stage == Stage::Announced as u8 => Stage::Announced,
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

    /// Begins to shut down. The accept loop begins the drain after `delay`, or at once if the server was announced already.
    pub(crate) fn shut_down(&self, delay: Duration) {
        if delay.is_zero() || self.announced.set(Instant::now()).is_err() {
            self.advance(Stage::Draining);
        } else {
            self.advance(Stage::Announced);
        }
    }

    /// Begins the drain if an announced shutdown is due. Returns the time until then.
    pub(crate) fn drain_if_due(&self, delay: Duration) -> Option<Duration> {
        let announced = self.announced.get().filter(|_| self.stage() == Stage::Announced)?;
        let left = delay.saturating_sub(announced.elapsed());
        if left.is_zero() {
            self.advance(Stage::Draining);
            return None;
        }
        Some(left)
    }

    /// Whether balancers may send new clients.
    pub(crate) fn is_ready(&self) -> bool {
        self.stage() == Stage::Serving
    }

    /// Whether the server has begun to close its connections.
    pub(crate) fn is_ending(&self) -> bool {
        self.stage() > Stage::Announced
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
            Stage::Announced
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
