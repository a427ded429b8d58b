//! The frames that wait in the endpoint for room in an opener's socket, and the joiners whose messages wait for room in its write buffer.

use alloc::{collections::BTreeMap, vec::Vec};
use core::time::Duration;

use crate::{endpoint::timers::Timer, frame::Frame, id::ConnId};

/// What a waiting frame counts for in addition to its [`Frame::cost`]: its place in the queue.
pub(super) const WAITING_OVERHEAD: usize = 128;

/// How often an opener's progress is checked in a close time-out.
pub(super) const STALL_CHECKS: u8 = 5;

/// Frames for one opener, in an order in which all joiners get the same number of bytes through (self-clocked fair queueing): each frame is
/// due when its joiner has sent so many bytes, on a clock that follows the frames that are removed. A frame that no joiner caused is behind
/// all that were there before it, and ahead of all that come later.
#[derive(Default)]
pub(super) struct FairQueue {
    frames: BTreeMap<Place, Waiting>,
    /// When the frame that was removed last was due, in bytes. A joiner without frames here starts at this time.
    clock: u64,
    numbered: u64,
    bytes: usize,
    shares: BTreeMap<ConnId, Share>,
    /// The joiners that are not read.
    blocked: BTreeMap<ConnId, BlockedJoiner>,
    /// Those without a frame in the queue, in the order in which they are read again.
    line: BTreeMap<u64, ConnId>,
    /// Exists while a joiner is blocked.
    pub(super) stall: Option<Stall>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    due: u64,
    number: u64,
}

struct Waiting {
    joiner: Option<ConnId>,
    frame: Frame,
}

struct BlockedJoiner {
    /// Joiners that are released together continue in this order.
    number: u64,
    place: Option<u64>,
}

#[derive(Default)]
struct Share {
    bytes: usize,
    /// When the last frame is due.
    due: u64,
}

/// How long an opener has not read, while joiners wait for it.
pub(super) struct Stall {
    pub(super) check_timer: Option<Timer>,
    /// The checks since the last progress.
    pub(super) checks: u8,
    /// Whether the client has read something since the last check.
    pub(super) has_progressed: bool,
}

impl FairQueue {
    /// Appends a frame that this joiner caused, or none.
    pub(super) fn push(&mut self, joiner: Option<ConnId>, frame: Frame) {
        let bytes = frame.cost() + WAITING_OVERHEAD;
        let due = match joiner {
            Some(joiner) => {
                let share = self.shares.entry(joiner).or_default();
                share.due = self.clock.max(share.due) + bytes as u64;
                share.bytes += bytes;
                share.due
            }
            None => {
                self.clock = self.frames.last_key_value().map_or(self.clock, |(last, _)| last.due);
                self.clock
            }
        };
        self.numbered += 1;
        let place = Place {
            due,
            number: self.numbered,
        };
        self.frames.insert(place, Waiting { joiner, frame });
        self.bytes += bytes;
    }

    /// Removes the next frame, if it costs at most `room`. Its joiner is in the line from now on if it is blocked and has no other frame.
    pub(super) fn pop(&mut self, room: usize) -> Option<Frame> {
        let next = self
            .frames
            .first_entry()
            .filter(|next| next.get().frame.cost() <= room)?;
        self.clock = self.clock.max(next.key().due);
        let Waiting { joiner, frame } = next.remove();
        let bytes = frame.cost() + WAITING_OVERHEAD;
        self.bytes -= bytes;
        if let Some(joiner) = joiner {
            if let Some(share) = self.shares.get_mut(&joiner) {
                share.bytes -= bytes;
                if share.bytes == 0 {
                    self.shares.remove(&joiner);
                    self.line_up(joiner);
                }
            }
        }
        Some(frame)
    }

    /// Returns all frames, in order.
    pub(super) fn into_frames(self) -> impl Iterator<Item = Frame> {
        self.frames.into_values().map(|waiting| waiting.frame)
    }

    /// Returns what the frames count for in the write buffer.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns what the frames of a joiner count for.
    pub(super) fn share(&self, joiner: ConnId) -> usize {
        self.shares.get(&joiner).map_or(0, |share| share.bytes)
    }

    pub(super) fn has_frames(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Adds a joiner that is not read.
    pub(super) fn block(&mut self, joiner: ConnId) {
        self.numbered += 1;
        let number = self.numbered;
        self.blocked.insert(joiner, BlockedJoiner { number, place: None });
        if self.share(joiner) == 0 {
            self.line_up(joiner);
        }
    }

    /// Removes a joiner that is read again, or gone.
    pub(super) fn unblock(&mut self, joiner: ConnId) {
        if let Some(place) = self.blocked.remove(&joiner).and_then(|blocked| blocked.place) {
            self.line.remove(&place);
        }
    }

    /// Returns the blocked joiner that is read next when there is room.
    pub(super) fn first_in_line(&self) -> Option<ConnId> {
        self.line.first_key_value().map(|(_, joiner)| *joiner)
    }

    /// Returns the joiners that are not read, longest first.
    pub(super) fn blocked(&self) -> Vec<ConnId> {
        let mut blocked: Vec<_> = self.blocked.iter().map(|(id, blocked)| (blocked.number, *id)).collect();
        blocked.sort_unstable();
        blocked.into_iter().map(|(_, id)| id).collect()
    }

    pub(super) fn has_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Adds a joiner to the line, if it is blocked.
    fn line_up(&mut self, joiner: ConnId) {
        if let Some(blocked) = self.blocked.get_mut(&joiner) {
            self.numbered += 1;
            blocked.place = Some(self.numbered);
            self.line.insert(self.numbered, joiner);
        }
    }
}

/// Returns the time between two checks of an opener that joiners wait for.
pub(super) fn stall_check(close_timeout: Duration) -> Duration {
    if close_timeout == Duration::MAX {
        close_timeout
    } else {
        close_timeout / u32::from(STALL_CHECKS)
    }
}
