//! What connections do with their roles, for embedders that follow it.

use alloc::collections::VecDeque;

use crate::{
    frame::Frame,
    id::{ConnId, Index, Key},
    reason::CloseReason,
};

/// What a connection has done, or what was done to it. See [`Endpoint::poll_activity`](crate::Endpoint::poll_activity).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activity {
    /// The connection opened a key, met first, or took the key over. After a takeover, its joiners are reported before, as
    /// [`Joined`](Self::Joined).
    Opened {
        /// The key.
        key: Key,
    },
    /// The connection joined a key.
    Joined {
        /// Its opener.
        opener: ConnId,
        /// Its number there.
        index: Index,
    },
    /// The role of the connection ended, and the connection stays open: it closed its key or left, it was kicked, its opener left, or another
    /// connection took its key over.
    Left,
    /// A request was refused, with this [name](crate::Refusal::name), and the connection stays open.
    Refused(&'static str),
    /// The connection and its role ended, without [`Left`](Self::Left). The last activity of each connection. Its socket may still exist, to
    /// send the last frames.
    Closed(ConnEnd),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnEnd {
    /// The endpoint closed it.
    Closed(CloseReason),
    /// The client closed it, with this code.
    CloseFrame(Option<u16>),
    /// Its socket ended without a close frame.
    Lost,
}

/// The activity that was not polled yet. `None`: nobody polls it.
pub(super) struct ActivityQueue(Option<VecDeque<(ConnId, Activity)>>);

impl ActivityQueue {
    pub(super) fn new(is_reported: bool) -> Self {
        Self(is_reported.then(VecDeque::new))
    }

    pub(super) const fn is_reported(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn pop(&mut self) -> Option<(ConnId, Activity)> {
        self.0.as_mut()?.pop_front()
    }

    pub(super) fn push(&mut self, id: ConnId, activity: impl FnOnce() -> Activity) {
        if let Some(queue) = &mut self.0 {
            queue.push_back((id, activity()));
        }
    }

    /// Records the end of a connection by its last frame; `None` if its socket is gone.
    pub(super) fn push_end(&mut self, id: ConnId, last: Option<&Frame>) {
        self.push(id, || {
            Activity::Closed(match last {
                Some(Frame::Close(reason)) => ConnEnd::Closed(*reason),
                Some(Frame::CloseReply(code)) => ConnEnd::CloseFrame(*code),
                Some(Frame::Text(_) | Frame::Ping | Frame::Pong(_)) | None => ConnEnd::Lost,
            })
        });
    }
}
