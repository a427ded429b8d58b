//! What the server reports to the program that embeds it.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError},
    },
    time::SystemTime,
};

use sigver_core::{ConnEnd, Index, Key, Role};

/// The number of a connection, as in log lines: `#7`. Connections are numbered from 0 in the order in which they are accepted; no number is used
/// twice by a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// Returns the connection with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What happened on a server, for [`Config::events`](crate::Config::events).
///
/// The events of a connection begin with [`Connected`](Self::Connected) and end with [`Closed`](Self::Closed); those of all connections are in the
/// order in which they happened. `Debug` shows no key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerEvent {
    /// A client was admitted and its handshake accepted.
    Connected {
        /// The connection.
        connection: ConnectionId,
        /// The identity of its [`Permit`](crate::Permit).
        identity: Option<Arc<str>>,
        /// The address of the client, behind its proxies.
        client: IpAddr,
    },
    /// The connection opened a key, met first, or took the key over from a connection whose [`Left`](Self::Left) was reported.
    Opened {
        /// The connection.
        connection: ConnectionId,
        /// The key.
        key: Key,
    },
    /// The connection joined a key. Also reported for each joiner of a key that another connection takes over, before that has [`Opened`](Self::Opened) it.
    Joined {
        /// The connection.
        connection: ConnectionId,
        /// The connection that has the key open.
        opener: ConnectionId,
        /// The joiner's number there.
        index: Index,
    },
    /// The role of the connection ended, and the client stays connected: it closed its key or left, it was kicked, its opener left, or its key was taken over.
    Left {
        /// The connection.
        connection: ConnectionId,
    },
    /// A request of it was refused, and it stays connected.
    Refused {
        /// The connection.
        connection: ConnectionId,
        /// The [name](sigver_core::Refusal::name) of the refusal, such as `key-taken`.
        code: &'static str,
    },
    /// It is not connected any more, and has no role. The server may still send its last frames.
    Closed {
        /// The connection.
        connection: ConnectionId,
        /// How it ended.
        end: ConnEnd,
    },
    /// This many events are missing here, because the channel was full. [`Handle::connections`](crate::Handle::connections) returns who is
    /// connected now.
    Lost(u64),
}

/// A connection of a server, as returned by [`Handle::connections`](crate::Handle::connections). `Debug` shows no key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The connection.
    pub connection: ConnectionId,
    /// The identity of its [`Permit`](crate::Permit).
    pub identity: Option<Arc<str>>,
    /// The address of the client, behind its proxies.
    pub client: IpAddr,
    /// When its handshake was valid.
    pub since: SystemTime,
    /// Its role, if it has one.
    pub role: Option<Role>,
    /// The key of its role: the one that it has opened or joined, or waits for.
    pub key: Option<Key>,
}

/// The relay's side of the channel to the embedder. It never waits: an event for which there is no room is lost and counted.
pub(crate) struct Reporter {
    /// `None` if nobody receives.
    channel: Option<SyncSender<ServerEvent>>,
    /// The events that were lost since the last [`ServerEvent::Lost`].
    unreported: u64,
    /// All events that were lost.
    lost: u64,
}

impl Reporter {
    pub(crate) const fn new(channel: Option<SyncSender<ServerEvent>>) -> Self {
        Self {
            channel,
            unreported: 0,
            lost: 0,
        }
    }

    /// Whether somebody receives.
    pub(crate) const fn is_active(&self) -> bool {
        self.channel.is_some()
    }

    /// Reports an event that is only made if somebody receives it.
    pub(crate) fn report_with(&mut self, event: impl FnOnce() -> ServerEvent) {
        if self.is_active() {
            self.report(event());
        }
    }

    pub(crate) fn report(&mut self, event: ServerEvent) {
        self.report_loss();
        if self.unreported > 0 || !self.try_send(event) {
            self.unreported += 1;
            self.lost += 1;
        }
    }

    /// Reports lost events, if there is room now.
    pub(crate) fn report_loss(&mut self) {
        if self.unreported > 0 && self.try_send(ServerEvent::Lost(self.unreported)) {
            self.unreported = 0;
        }
    }

    /// Whether lost events are not reported yet.
    pub(crate) const fn has_loss(&self) -> bool {
        self.unreported > 0
    }

    /// Returns the number of events that were lost.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Returns whether there was room. Without a receiver, nothing is lost.
    fn try_send(&mut self, event: ServerEvent) -> bool {
        let Some(channel) = &self.channel else { return true };
        match channel.try_send(event) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => false,
            Err(TrySendError::Disconnected(_)) => {
                self.channel = None;
                true
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn left(number: u64) -> ServerEvent {
        ServerEvent::Left {
            connection: ConnectionId::new(number),
        }
    }

    #[test]
    fn loss_is_reported_in_the_place_of_the_lost_events() {
        let (sender, receiver) = sync_channel(2);
        let mut reporter = Reporter::new(Some(sender));
        for number in 0..5 {
            reporter.report(left(number));
        }
        assert_eq!((reporter.lost(), reporter.has_loss()), (3, true));
        reporter.report_loss();
        assert!(reporter.has_loss(), "there is no room");
        assert_eq!(receiver.recv(), Ok(left(0)));
        // The report takes the room, so the next event is lost as well.
        reporter.report(left(5));
        assert_eq!((reporter.lost(), reporter.has_loss()), (4, true));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [left(1), ServerEvent::Lost(3)]);
        reporter.report(left(6));
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [ServerEvent::Lost(1), left(6)]);
        assert!(!reporter.has_loss());
    }

    #[test]
    fn nothing_is_lost_without_a_receiver() {
        let (sender, receiver) = sync_channel(1);
        let mut reporter = Reporter::new(Some(sender));
        reporter.report(left(0));
        reporter.report(left(1));
        drop(receiver);
        reporter.report(left(2));
        assert_eq!((reporter.lost(), reporter.has_loss()), (1, false));
        assert!(!reporter.is_active());
    }
}
