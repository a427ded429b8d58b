//! The frames on their way to one client: an immediate write, a backlog of what the kernel does not accept, the last frame.
//!
//! Two threads write to a client: the relay, and the flusher while there is a backlog. Every write happens under one lock and does not
//! block, so frames never interleave. The endpoint limits the backlog. Model-checked in `loom_models.rs`.

use std::{io, mem};

use sigver_core::Frame;

use crate::{
    sync::{Mutex, lock},
    write::chunk_queue::{CHUNK_BYTES, ChunkQueue},
};

/// A socket, or a model of one.
pub(crate) trait Wire {
    /// Sends some of `bytes` without blocking. `WouldBlock` if the kernel accepts none now.
    fn send(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Shuts down the write half.
    fn shutdown_write(&self);
    /// Shuts down both halves.
    fn abort(&self);
}

/// What happened to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum SendOutcome {
    /// The kernel accepted it, or the connection is over.
    Accepted,
    /// It is in the backlog, whole or in part, and the flusher has this connection already.
    Queued,
    /// The same, but the backlog has just begun: add the connection to the flush queue.
    Blocked,
}

/// What a flush has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Flushed {
    /// Whether bytes are left: flush again when the socket is writable.
    pub(crate) is_blocked: bool,
    /// What was sent since the last flush, as [`Frame::cost`] counts it.
    pub(crate) cost: usize,
}

/// What happens to the backlog when the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backlog {
    /// It is sent before the last frame.
    Flush,
    /// It is discarded, except for the rest of a partly sent frame.
    Discard,
}

/// The frames on their way to one client.
pub(crate) struct Outbox {
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Bytes that the kernel has not accepted.
    backlog: ChunkQueue<u8>,
    /// The lengths of the frames in the backlog. The first is what is left of its frame.
    frames: ChunkQueue<u32>,
    /// Whether the beginning of the first frame was sent.
    is_partial: bool,
    /// Whether the flusher has this connection, as it must while there is a backlog.
    is_with_flusher: bool,
    /// The cost of what was sent and not reported yet.
    unreported: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The last frame was sent or queued.
    Finished,
    /// The client has gone. Nothing more is sent, and the write half is not shut down: an orderly end would follow an incomplete frame.
    Abandoned,
}

/// The most bytes that are sent under one lock, which limits how long the relay waits for the flusher.
const SEND_MAX: usize = 4 * CHUNK_BYTES;

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                phase: Phase::Open,
                backlog: ChunkQueue::new(),
                frames: ChunkQueue::new(),
                is_partial: false,
                is_with_flusher: false,
                unreported: 0,
            }),
        }
    }

    /// Sends a frame, or queues what the kernel does not accept.
    pub(crate) fn send(&self, wire: &impl Wire, frame: &[u8]) -> SendOutcome {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Finished | Phase::Abandoned => SendOutcome::Accepted,
            Phase::Open => state.put(wire, frame),
        }
    }

    /// Sends or queues the last frame. Once everything is sent, the write half is shut down.
    pub(crate) fn finish(&self, wire: &impl Wire, frame: &[u8], backlog: Backlog) -> SendOutcome {
        let mut state = lock(&self.state);
        if state.phase != Phase::Open {
            return SendOutcome::Accepted;
        }
        state.phase = Phase::Finished;
        if backlog == Backlog::Discard {
            state.keep_partial_frame();
        }
        let sent = state.put(wire, frame);
        if state.phase == Phase::Finished && state.backlog.is_empty() {
            wire.shutdown_write();
        }
        sent
    }

    /// Sends some of the backlog. Called by the flusher.
    pub(crate) fn flush(&self, wire: &impl Wire) -> Flushed {
        let mut state = lock(&self.state);
        let mut budget = SEND_MAX;
        while budget > 0 && !state.backlog.is_empty() {
            let front = state.backlog.front();
            let piece = &front[..front.len().min(budget)];
            let offered = piece.len();
            match wire.send(piece) {
                Ok(sent) => {
                    state.consume(sent);
                    budget -= sent;
                    if sent < offered {
                        break;
                    }
                }
                Err(error) if is_transient(&error) => break,
                Err(_) => state.give_up(wire),
            }
        }
        let flushed = Flushed {
            is_blocked: !state.backlog.is_empty(),
            cost: mem::take(&mut state.unreported),
        };
        if !flushed.is_blocked {
            state.is_with_flusher = false;
            if state.phase == Phase::Finished {
                wire.shutdown_write();
            }
        }
        flushed
    }

    /// Whether the last frame was sent, or the connection was abandoned.
    pub(crate) fn is_over(&self) -> bool {
        let state = lock(&self.state);
        state.phase != Phase::Open && state.backlog.is_empty()
    }

    /// Returns the size of the backlog in bytes.
    pub(crate) fn backlog_bytes(&self) -> usize {
        lock(&self.state).backlog.len()
    }

    /// Discards the backlog and every later frame: the client has gone.
    pub(crate) fn abandon(&self) {
        lock(&self.state).abandon();
    }
}

impl State {
    fn put(&mut self, wire: &impl Wire, frame: &[u8]) -> SendOutcome {
        if !self.backlog.is_empty() {
            self.queue(frame);
            return SendOutcome::Queued;
        }
        let sent = match wire.send(frame) {
            Ok(sent) => sent,
            Err(error) if is_transient(&error) => 0,
            Err(_) => {
                self.give_up(wire);
                return SendOutcome::Accepted;
            }
        };
        if sent == frame.len() {
            return SendOutcome::Accepted;
        }
        self.queue(&frame[sent..]);
        self.is_partial = sent > 0;
        self.unreported += sent;
        if mem::replace(&mut self.is_with_flusher, true) {
            SendOutcome::Queued
        } else {
            SendOutcome::Blocked
        }
    }

    fn queue(&mut self, frame: &[u8]) {
        self.backlog.extend(frame);
        self.frames.extend(&[frame.len() as u32]);
    }

    fn consume(&mut self, sent: usize) {
        self.backlog.consume(sent);
        self.unreported += sent;
        let mut left = sent;
        while let Some(first) = self.frames.first_mut() {
            if (*first as usize) > left {
                *first -= left as u32;
                // With nothing left over, the frame before it ended where the kernel stopped.
                self.is_partial = left > 0 || (self.is_partial && sent == 0);
                break;
            }
            left -= *first as usize;
            self.frames.consume(1);
            self.unreported += Frame::OVERHEAD;
        }
        if self.backlog.is_empty() {
            self.clear();
        }
    }

    /// Discards the backlog, except for the rest of a partly sent frame: the next frame must not land inside it.
    fn keep_partial_frame(&mut self) {
        match self.frames.front().first() {
            Some(rest) if self.is_partial => {
                self.backlog.truncate(*rest as usize);
                self.frames.truncate(1);
            }
            _ => self.clear(),
        }
    }

    /// Abandons a broken socket, and makes its reader return.
    fn give_up(&mut self, wire: &impl Wire) {
        self.abandon();
        wire.abort();
    }

    fn abandon(&mut self) {
        self.phase = Phase::Abandoned;
        self.clear();
    }

    /// Empties the backlog and frees its memory: a client that was slow once must not keep a large buffer.
    fn clear(&mut self) {
        self.backlog.clear();
        self.frames.clear();
        self.is_partial = false;
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A kernel that takes so many bytes and no more.
    #[derive(Default)]
    struct Kernel {
        room: Cell<usize>,
        taken: RefCell<Vec<u8>>,
        broken: Cell<bool>,
        write_shut: Cell<bool>,
        cut: Cell<bool>,
    }

    impl Wire for Kernel {
        fn send(&self, bytes: &[u8]) -> io::Result<usize> {
            assert!(!self.write_shut.get(), "nothing is sent after the last frame");
            if self.broken.get() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let count = bytes.len().min(self.room.get());
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room.set(self.room.get() - count);
            self.taken.borrow_mut().extend(&bytes[..count]);
            Ok(count)
        }

        fn shutdown_write(&self) {
            self.write_shut.set(true);
        }

        fn abort(&self) {
            self.cut.set(true);
        }
    }

    impl Kernel {
        fn with_room(room: usize) -> Self {
            Self {
                room: room.into(),
                ..Self::default()
            }
        }

        fn taken(&self) -> String {
            String::from_utf8_lossy(&self.taken.borrow()).into_owned()
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_sent_later_and_in_order() {
        let (outbox, kernel) = (Outbox::new(), Kernel::with_room(5));
        assert_eq!(outbox.send(&kernel, b"aaa"), SendOutcome::Accepted);
        assert_eq!(outbox.send(&kernel, b"bbb"), SendOutcome::Blocked);
        assert_eq!(
            outbox.send(&kernel, b"ccc"),
            SendOutcome::Queued,
            "the flusher has it already"
        );
        assert_eq!(outbox.finish(&kernel, b"ddd", Backlog::Flush), SendOutcome::Queued);
        assert_eq!(
            outbox.send(&kernel, b"eee"),
            SendOutcome::Accepted,
            "there is nobody to take it"
        );
        let flush = |room| {
            kernel.room.set(room);
            let Flushed { is_blocked, cost } = outbox.flush(&kernel);
            assert_eq!(kernel.write_shut.get(), !is_blocked);
            (is_blocked, cost)
        };
        assert_eq!(flush(0), (true, 2), "two bytes of bbb are sent, the last is not");
        assert_eq!(flush(1), (true, 1 + Frame::OVERHEAD));
        assert_eq!(flush(1), (true, 1));
        assert_eq!(flush(3), (true, 3 + Frame::OVERHEAD));
        assert_eq!(flush(0), (true, 0));
        assert_eq!(flush(1), (true, 1));
        assert_eq!(flush(9), (false, 1 + Frame::OVERHEAD));
        assert_eq!(kernel.taken(), "aaabbbcccddd");
        assert!(kernel.write_shut.get());
    }

    /// Wherever the kernel stops, dropping the backlog leaves whole frames only, and the last one behind them.
    #[test]
    fn dropping_a_backlog_never_cuts_a_frame() {
        for room in 0..=9 {
            for then in 0..=9 {
                let (outbox, kernel) = (Outbox::new(), Kernel::with_room(room));
                for frame in [b"aaa", b"bbb", b"ccc"] {
                    let _ = outbox.send(&kernel, frame);
                }
                kernel.room.set(then);
                let _ = outbox.flush(&kernel);
                let _ = outbox.finish(&kernel, b"x", Backlog::Discard);
                kernel.room.set(100);
                while outbox.flush(&kernel).is_blocked {}
                let whole = (room + then).min(9).div_ceil(3);
                assert_eq!(
                    kernel.taken(),
                    format!("{}x", &"aaabbbccc"[..whole * 3]),
                    "room {room}, then {then}"
                );
                assert!(kernel.write_shut.get());
            }
        }
    }

    #[test]
    fn a_broken_wire_is_cut_and_forgotten() {
        let (outbox, kernel) = (Outbox::new(), Kernel::with_room(0));
        assert_eq!(outbox.send(&kernel, b"aaa"), SendOutcome::Blocked);
        kernel.broken.set(true);
        assert!(!outbox.flush(&kernel).is_blocked);
        assert!(kernel.cut.get());
        assert_eq!(outbox.send(&kernel, b"bbb"), SendOutcome::Accepted);
        assert_eq!(kernel.taken(), "");
    }

    /// Wherever in a frame it breaks, nothing follows the part that the peer has.
    #[test]
    fn a_wire_that_breaks_half_way_gets_nothing_more() {
        for room in 0..3 {
            let (outbox, kernel) = (Outbox::new(), Kernel::with_room(room));
            assert_eq!(outbox.send(&kernel, b"aaa"), SendOutcome::Blocked);
            assert_eq!(outbox.send(&kernel, b"bbb"), SendOutcome::Queued);
            kernel.broken.set(true);
            assert!(!outbox.flush(&kernel).is_blocked, "the flusher is done with it");
            assert!(kernel.cut.get() && outbox.is_over());
            kernel.broken.set(false);
            kernel.room.set(100);
            assert_eq!(outbox.send(&kernel, b"ccc"), SendOutcome::Accepted);
            assert_eq!(outbox.finish(&kernel, b"ddd", Backlog::Flush), SendOutcome::Accepted);
            assert_eq!(kernel.taken(), &"aaa"[..room]);
        }
    }
}
