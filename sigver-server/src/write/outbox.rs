//! Owns the bytes on their way to one peer: the inline write, the bounded backlog, the last frame. Never blocks, never knows what
//! the bytes mean, and never decides to close: it says that it overflowed.
//!
//! Two threads write to a peer: the relay's, first, and the flusher's, once the kernel has refused bytes. All of it happens under
//! one lock, with sends that do not block, so frames never interleave. Model-checked in `loom_models.rs`.

use std::{collections::VecDeque, io, mem};

use sigver_core::Frame;

use crate::sync::{Mutex, lock};

/// What takes the bytes: a socket, or a model of one.
pub(crate) trait Wire {
    /// Sends some of `bytes` without blocking; `WouldBlock` when none can be taken now.
    fn send(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Says that nothing follows.
    fn shutdown_write(&self);
    /// Gives the connection up, both ways.
    fn cut(&self);
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Sent {
    /// It is sent, or there is nobody to take it any more.
    Done,
    /// It waits, whole or in part, for the flusher, who has this peer already.
    Queued,
    /// The same, but a backlog has begun: hand the peer to the flusher.
    Blocked,
}

/// What a flush has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Flushed {
    /// Whether bytes are left: flush again when the kernel takes some.
    pub(crate) is_blocked: bool,
    /// What has left the backlog since the last flush, as [`Frame::cost`] counts it.
    pub(crate) cost: usize,
}

/// What to do with a backlog when its peer is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// It is sent before the last frame.
    Keep,
    /// It is dropped, but for the rest of a frame that is partly sent.
    Drop,
}

/// The frames on their way to one peer.
pub(crate) struct Outbox {
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// Bytes that the kernel has not taken.
    backlog: VecDeque<u8>,
    /// The lengths of the frames in the backlog; of the first one, what is left of it.
    frames: VecDeque<u32>,
    /// Whether the peer has the beginning of the first frame in the backlog.
    partial: bool,
    /// Whether the flusher has this peer, as it must while bytes wait.
    with_flusher: bool,
    /// The cost of what was sent of the backlog and is not reported yet.
    unreported: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The last frame is taken.
    Finished,
}

/// The most that is sent under one hold of the lock, which bounds how long the relay can wait for the flusher.
const SEND_MAX: usize = 64 * 1024;

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                phase: Phase::Open,
                backlog: VecDeque::new(),
                frames: VecDeque::new(),
                partial: false,
                with_flusher: false,
                unreported: 0,
            }),
        }
    }

    /// Sends a whole frame, or queues what the kernel does not take.
    pub(crate) fn send(&self, wire: &impl Wire, frame: &[u8]) -> Sent {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Finished => Sent::Done,
            Phase::Open => state.put(wire, frame),
        }
    }

    /// Sends the last frame; whatever the backlog, it is taken. When all is sent, the write half is shut down.
    pub(crate) fn finish(&self, wire: &impl Wire, frame: &[u8], leftover: Leftover) -> Sent {
        let mut state = lock(&self.state);
        if state.phase == Phase::Finished {
            return Sent::Done;
        }
        state.phase = Phase::Finished;
        if leftover == Leftover::Drop {
            state.keep_partial_frame();
        }
        let sent = state.put(wire, frame);
        if state.backlog.is_empty() {
            wire.shutdown_write();
        }
        sent
    }

    /// Sends some of what waits, as far as the kernel takes it. For the flusher.
    pub(crate) fn flush(&self, wire: &impl Wire) -> Flushed {
        let mut state = lock(&self.state);
        let front = state.backlog.as_slices().0;
        if !front.is_empty() {
            match wire.send(&front[..front.len().min(SEND_MAX)]) {
                Ok(sent) => state.consume(sent),
                Err(error) if is_transient(&error) => {}
                Err(_) => state.give_up(wire),
            }
        }
        let flushed = Flushed {
            is_blocked: !state.backlog.is_empty(),
            cost: mem::take(&mut state.unreported),
        };
        if !flushed.is_blocked {
            state.with_flusher = false;
            if state.phase == Phase::Finished {
                wire.shutdown_write();
            }
        }
        flushed
    }

    /// Whether the last frame is sent, or nothing can be sent any more.
    pub(crate) fn is_over(&self) -> bool {
        let state = lock(&self.state);
        state.phase == Phase::Finished && state.backlog.is_empty()
    }

    /// How many bytes wait.
    pub(crate) fn backlog_bytes(&self) -> usize {
        lock(&self.state).backlog.len()
    }

    /// The peer is gone: nothing more is sent, and nothing waits.
    pub(crate) fn abandon(&self) {
        lock(&self.state).abandon();
    }
}

impl State {
    fn put(&mut self, wire: &impl Wire, frame: &[u8]) -> Sent {
        if !self.backlog.is_empty() {
            self.queue(frame);
            return Sent::Queued;
        }
        let sent = match wire.send(frame) {
            Ok(sent) => sent,
            Err(error) if is_transient(&error) => 0,
            Err(_) => {
                self.give_up(wire);
                return Sent::Done;
            }
        };
        if sent == frame.len() {
            return Sent::Done;
        }
        self.queue(&frame[sent..]);
        self.partial = sent > 0;
        self.unreported += sent;
        if mem::replace(&mut self.with_flusher, true) {
            Sent::Queued
        } else {
            Sent::Blocked
        }
    }

    fn queue(&mut self, frame: &[u8]) {
        self.backlog.extend(frame);
        self.frames.push_back(frame.len() as u32);
    }

    fn consume(&mut self, sent: usize) {
        self.backlog.drain(..sent);
        self.unreported += sent;
        let mut left = sent;
        while let Some(first) = self.frames.front_mut() {
            if (*first as usize) > left {
                *first -= left as u32;
                // With nothing left over, the frame before it ended where the kernel stopped.
                self.partial = left > 0 || (self.partial && sent == 0);
                break;
            }
            left -= *first as usize;
            self.frames.pop_front();
            self.unreported += Frame::OVERHEAD;
        }
        if self.backlog.is_empty() {
            self.clear();
        }
    }

    /// Drops what waits, but the rest of a frame whose beginning the peer has: anything else would land inside it.
    fn keep_partial_frame(&mut self) {
        match self.frames.front() {
            Some(rest) if self.partial => {
                self.backlog.truncate(*rest as usize);
                self.frames.truncate(1);
            }
            _ => self.clear(),
        }
    }

    /// The wire is broken. Whoever reads from it has to learn of it as well.
    fn give_up(&mut self, wire: &impl Wire) {
        self.abandon();
        wire.cut();
    }

    fn abandon(&mut self) {
        self.phase = Phase::Finished;
        self.clear();
    }

    /// Forgets what waits, and its memory: a peer that was slow once should not keep a large buffer for life.
    fn clear(&mut self) {
        self.backlog = VecDeque::new();
        self.frames = VecDeque::new();
        self.partial = false;
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

        fn cut(&self) {
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
        assert_eq!(outbox.send(&kernel, b"aaa"), Sent::Done);
        assert_eq!(outbox.send(&kernel, b"bbb"), Sent::Blocked);
        assert_eq!(outbox.send(&kernel, b"ccc"), Sent::Queued, "the flusher has it already");
        assert_eq!(outbox.finish(&kernel, b"ddd", Leftover::Keep), Sent::Queued);
        assert_eq!(outbox.send(&kernel, b"eee"), Sent::Done, "there is nobody to take it");
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
                let _ = outbox.finish(&kernel, b"x", Leftover::Drop);
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
        assert_eq!(outbox.send(&kernel, b"aaa"), Sent::Blocked);
        kernel.broken.set(true);
        assert!(!outbox.flush(&kernel).is_blocked);
        assert!(kernel.cut.get());
        assert_eq!(outbox.send(&kernel, b"bbb"), Sent::Done);
        assert_eq!(kernel.taken(), "");
    }

    /// Wherever in a frame it breaks, nothing follows the part that the peer has.
    #[test]
    fn a_wire_that_breaks_half_way_gets_nothing_more() {
        for room in 0..3 {
            let (outbox, kernel) = (Outbox::new(), Kernel::with_room(room));
            assert_eq!(outbox.send(&kernel, b"aaa"), Sent::Blocked);
            assert_eq!(outbox.send(&kernel, b"bbb"), Sent::Queued);
            kernel.broken.set(true);
            assert!(!outbox.flush(&kernel).is_blocked, "the flusher is done with it");
            assert!(kernel.cut.get() && outbox.is_over());
            kernel.broken.set(false);
            kernel.room.set(100);
            assert_eq!(outbox.send(&kernel, b"ccc"), Sent::Done);
            assert_eq!(outbox.finish(&kernel, b"ddd", Leftover::Keep), Sent::Done);
            assert_eq!(kernel.taken(), &"aaa"[..room]);
        }
    }
}
