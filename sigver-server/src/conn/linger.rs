//! The end of a connection after its last frame: discards what the client still sends, and waits until the client has received everything.
//!
//! Closing a socket that has unread bytes resets the connection, and the client would not receive its close code. Until its end, the client
//! counts as a connection: its place under every limit is returned when its thread ends.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use crate::{
    conn::peer::Peer,
    sys::poll,
    tuning::{DISCARD_BYTES, DISCARD_SINK, POLL_INTERVAL},
};

/// How long a connection that has ended waits until the relay has handled its events.
pub(super) const DRAIN_WAIT: Duration = Duration::from_millis(100);

/// How often progress is reported, unless the close time-out is short.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Returns when both sides have closed and everything is delivered, or the connection was aborted. Not inlined: the stack that a connection
/// has touched stays in memory while it lives.
#[inline(never)]
pub(super) fn linger(peer: &Peer, report_progress: impl Fn()) {
    let mut progress = Progress {
        peer,
        undelivered: peer.undelivered_bytes(),
        checked_at: Instant::now(),
        interval: (peer.close_timeout / 4).clamp(POLL_INTERVAL, PROGRESS_INTERVAL),
        report: report_progress,
    };
    if !discard(peer, &mut progress) {
        return;
    }
    // The client has closed its side and may still have something to read.
    peer.credits.wait_idle(DRAIN_WAIT);
    while !peer.is_delivered() {
        thread::sleep(POLL_INTERVAL);
        progress.check();
    }
}

/// Reads and discards until the client has closed its side. Returns false if the connection is gone.
fn discard(peer: &Peer, progress: &mut Progress<'_, impl Fn()>) -> bool {
    let mut sink = [0; DISCARD_SINK];
    let mut budget = DISCARD_BYTES;
    loop {
        // With the budget used up, the kernel's window stops the client. Only the end of the connection is reported.
        let fd = if budget > 0 {
            poll::readable(peer)
        } else {
            poll::ended(peer)
        };
        let is_ready = matches!(poll::wait(&mut [fd], Some(progress.interval)), Ok(1..));
        progress.check();
        if peer.is_aborted() || (is_ready && budget == 0) {
            return false;
        }
        if !is_ready {
            continue;
        }
        match peer.stream.try_read(&mut sink) {
            Ok(0) => return true,
            Ok(read) => budget = budget.saturating_sub(read),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => return false,
        }
    }
}

/// Whether the client reads.
struct Progress<'a, R> {
    peer: &'a Peer,
    undelivered: usize,
    checked_at: Instant,
    interval: Duration,
    report: R,
}

impl<R: Fn()> Progress<'_, R> {
    /// Reports progress since the last check, at most once in an interval.
    fn check(&mut self) {
        if self.checked_at.elapsed() < self.interval {
            return;
        }
        self.checked_at = Instant::now();
        let undelivered = self.peer.undelivered_bytes();
        // A client that has received everything has nothing to wait for.
        if (1..self.undelivered).contains(&undelivered) {
            (self.report)();
        }
        self.undelivered = undelivered;
    }
}
