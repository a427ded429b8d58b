//! Decides how long a client waits for the server. It reads no clock: the caller passes the time.

use std::time::{Duration, Instant};

/// Time limits of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    /// To connect and complete the handshake.
    pub(crate) connect: Duration,
    /// Without a byte from the server, until a ping is sent.
    pub(crate) ping_after: Duration,
    /// Without a byte after that ping, until the connection counts as dead.
    pub(crate) pong_within: Duration,
}

/// What a connection waits for.
#[derive(Clone, Copy)]
pub(crate) struct Liveness {
    pub(crate) times: Times,
    phase: Phase,
}

#[derive(Clone, Copy)]
enum Phase {
    /// The end of the handshake.
    Handshake { until: Instant },
    /// Any bytes.
    Quiet { ping_at: Instant },
    /// Any bytes after a ping.
    Pinged { dead_at: Instant },
}

/// What to do if nothing arrived before the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Ping,
    GiveUp,
}

impl Liveness {
    /// Starts with the handshake.
    pub(crate) fn handshake(times: Times, now: Instant) -> Self {
        let until = now + times.connect;
        Self {
            times,
            phase: Phase::Handshake { until },
        }
    }

    /// Records the end of the handshake.
    pub(crate) fn connected(&mut self, now: Instant) {
        let ping_at = now + self.times.ping_after;
        self.phase = Phase::Quiet { ping_at };
    }

    /// Records that bytes arrived. They do not extend the time for the handshake.
    pub(crate) fn received(&mut self, now: Instant) {
        match self.phase {
            Phase::Handshake { .. } => {}
            Phase::Quiet { .. } | Phase::Pinged { .. } => self.connected(now),
        }
    }

    /// Returns when to call [`timed_out`](Self::timed_out) if nothing arrives until then.
    pub(crate) fn deadline(&self) -> Instant {
        match self.phase {
            Phase::Handshake { until } => until,
            Phase::Quiet { ping_at } => ping_at,
            Phase::Pinged { dead_at } => dead_at,
        }
    }

    /// Returns what to do after a read without a result. `None` if it ended before the deadline.
    pub(crate) fn timed_out(&mut self, now: Instant) -> Option<Step> {
        if now < self.deadline() {
            return None;
        }
        Some(match self.phase {
            Phase::Handshake { .. } | Phase::Pinged { .. } => Step::GiveUp,
            Phase::Quiet { .. } => {
                let dead_at = now + self.times.pong_within;
                self.phase = Phase::Pinged { dead_at };
                Step::Ping
            }
        })
    }
}
