//! Owns the bytes on their way to one peer: the inline write, the bounded backlog, the last frame. Never blocks, never knows what
//! the bytes mean, and never decides to close: it says that it overflowed.
//!
//! Two threads write to a peer: the relay's, first, and the flusher's, once the kernel has refused bytes. All of it happens under
//! one lock, with sends that do not block, so frames never interleave. Model-checked in `loom_models.rs`.

use std::{collections::VecDeque, io, mem};

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
    /// It is sent, or waits behind others for the flusher, or there is nobody to take it any more.
    Done,
    /// A backlog has begun: hand the peer to the flusher.
    Blocked,
    /// The backlog is full. The frame is lost, and so is every later one: the peer has to be closed.
    Overflow,
}

/// What is left after a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Flushed {
    /// Nothing: the flusher is done with this peer.
    Clean,
    /// Bytes: flush again when the kernel takes some.
    Blocked,
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
    quota: usize,
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
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// A frame was lost, so none may follow but the last.
    Overflowed,
    /// The last frame is taken.
    Finished,
}

/// What a frame costs beside its bytes while it waits.
const FRAME_COST: usize = size_of::<u32>();

/// The most that is sent under one hold of the lock, which bounds how long the relay can wait for the flusher.
const SEND_MAX: usize = 64 * 1024;

impl Outbox {
    /// An outbox that holds at most `quota` bytes for a peer that does not read.
    pub(crate) fn new(quota: u32) -> Self {
        Self {
            state: Mutex::new(State {
                phase: Phase::Open,
                backlog: VecDeque::new(),
                frames: VecDeque::new(),
                partial: false,
                with_flusher: false,
            }),
            quota: quota as usize,
        }
    }

    /// Sends a whole frame, or queues what the kernel does not take.
    pub(crate) fn send(&self, wire: &impl Wire, frame: &[u8]) -> Sent {
        let mut state = lock(&self.state);
        match state.phase {
            Phase::Finished => return Sent::Done,
            Phase::Overflowed => return Sent::Overflow,
            Phase::Open => {}
        }
        if !state.backlog.is_empty() && state.weight() + frame.len() + FRAME_COST > self.quota {
            state.phase = Phase::Overflowed;
            return Sent::Overflow;
        }
        state.put(wire, frame)
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
        if !state.backlog.is_empty() {
            return Flushed::Blocked;
        }
        state.with_flusher = false;
        if state.phase == Phase::Finished {
            wire.shutdown_write();
        }
        Flushed::Clean
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
    fn weight(&self) -> usize {
        self.backlog.len() + self.frames.len() * FRAME_COST
    }

    fn put(&mut self, wire: &impl Wire, frame: &[u8]) -> Sent {
        if !self.backlog.is_empty() {
            self.queue(frame);
            return Sent::Done;
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
        if mem::replace(&mut self.with_flusher, true) {
            Sent::Done
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
        let (outbox, kernel) = (Outbox::new(100), Kernel::with_room(5));
        assert_eq!(outbox.send(&kernel, b"aaa"), Sent::Done);
        assert_eq!(outbox.send(&kernel, b"bbb"), Sent::Blocked);
        assert_eq!(outbox.send(&kernel, b"ccc"), Sent::Done, "the flusher has it already");
        assert_eq!(outbox.finish(&kernel, b"ddd", Leftover::Keep), Sent::Done);
        assert_eq!(outbox.send(&kernel, b"eee"), Sent::Done, "there is nobody to take it");
        assert_eq!(outbox.flush(&kernel), Flushed::Blocked);
        for _ in 0..6 {
            kernel.room.set(1);
            assert_eq!(outbox.flush(&kernel), Flushed::Blocked);
            assert!(!kernel.write_shut.get());
        }
        kernel.room.set(1);
        assert_eq!(outbox.flush(&kernel), Flushed::Clean);
        assert_eq!(kernel.taken(), "aaabbbcccddd");
        assert!(kernel.write_shut.get());
    }

    #[test]
    fn a_full_backlog_overflows_for_good() {
        let (outbox, kernel) = (Outbox::new(20), Kernel::with_room(0));
        assert_eq!(outbox.send(&kernel, &[b'a'; 12]), Sent::Blocked);
        assert_eq!(outbox.send(&kernel, b"bbbb"), Sent::Overflow);
        kernel.room.set(100);
        assert_eq!(outbox.flush(&kernel), Flushed::Clean);
        assert_eq!(
            outbox.send(&kernel, b"c"),
            Sent::Overflow,
            "there would be a gap before it"
        );
        assert_eq!(outbox.finish(&kernel, b"x", Leftover::Drop), Sent::Done);
        assert_eq!(kernel.taken(), "aaaaaaaaaaaax");
    }

    /// Wherever the kernel stops, dropping the backlog leaves whole frames only, and the last one behind them.
    #[test]
    fn dropping_a_backlog_never_cuts_a_frame() {
        for room in 0..=9 {
            for then in 0..=9 {
                let (outbox, kernel) = (Outbox::new(100), Kernel::with_room(room));
                for frame in [b"aaa", b"bbb", b"ccc"] {
                    let _ = outbox.send(&kernel, frame);
                }
                kernel.room.set(then);
                let _ = outbox.flush(&kernel);
                let _ = outbox.finish(&kernel, b"x", Leftover::Drop);
                kernel.room.set(100);
                while outbox.flush(&kernel) == Flushed::Blocked {}
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
        let (outbox, kernel) = (Outbox::new(100), Kernel::with_room(0));
        assert_eq!(outbox.send(&kernel, b"aaa"), Sent::Blocked);
        kernel.broken.set(true);
        assert_eq!(outbox.flush(&kernel), Flushed::Clean);
        assert!(kernel.cut.get());
        assert_eq!(outbox.send(&kernel, b"bbb"), Sent::Done);
        assert_eq!(kernel.taken(), "");
    }

    /// Wherever in a frame it breaks, nothing follows the part that the peer has.
    #[test]
    fn a_wire_that_breaks_half_way_gets_nothing_more() {
        for room in 0..3 {
            let (outbox, kernel) = (Outbox::new(100), Kernel::with_room(room));
            assert_eq!(outbox.send(&kernel, b"aaa"), Sent::Blocked);
            assert_eq!(outbox.send(&kernel, b"bbb"), Sent::Done);
            kernel.broken.set(true);
            assert_eq!(outbox.flush(&kernel), Flushed::Clean, "the flusher is done with it");
            assert!(kernel.cut.get() && outbox.is_over());
            kernel.broken.set(false);
            kernel.room.set(100);
            assert_eq!(outbox.send(&kernel, b"ccc"), Sent::Done);
            assert_eq!(outbox.finish(&kernel, b"ddd", Leftover::Keep), Sent::Done);
            assert_eq!(kernel.taken(), &"aaa"[..room]);
        }
    }
}
