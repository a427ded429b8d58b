//! An upper bound of the server's memory, computed from its configuration. A test measures real servers against it.

use std::fmt;

use crate::{
    config::Config,
    conn::peer::Peer,
    tuning::{EVENT_CHANNEL, EVENTS_PER_CONNECTION, READ_BUFFER, RECEIVE_BUFFER, SEND_BUFFER, STACK},
};

/// The most memory that a server takes, when every client does its worst at the same moment: it follows from the
/// [`Config`]. [`Server::memory_bound`](crate::Server::memory_bound) gives it, and `Display` says it in a line.
///
/// Not counted: connections that the system holds until they are accepted, what the allocator keeps in small pieces, and what an
/// [`Admission`](crate::Admission) takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryBound {
    /// The most connections at the same time, in the configuration and in the system.
    pub connections: u32,
    /// The process's bytes whatever the number of connections: the program, the threads that are always there, their queues.
    pub fixed: u64,
    /// The process's bytes for each connection: its stack, the messages that it sends, the backlog that it does not read.
    pub process: u64,
    /// The kernel's bytes for each connection: a thread's, and a socket's with both of its buffers full.
    pub kernel: u64,
}

/// The program and its libraries, and the heap of a server without connections, with room to spare.
const PROGRAM: u64 = 16 * 1024 * 1024;

/// Lines of the log that wait for stderr, and sources that have guessed at keys.
const QUEUES: u64 = 8 * 1024 * 1024;

/// A thread's signal stack and the guard pages that std maps for it.
const SIGNAL_STACK: u64 = 32 * 1024;

/// A thread in the kernel: its stack, its descriptor, its page tables.
const KERNEL_THREAD: u64 = 40 * 1024;

/// A socket in the kernel beside its buffers.
const KERNEL_SOCKET: u64 = 8 * 1024;

/// A growing buffer doubles, so it may be twice as large as what is in it.
const GROWTH: u64 = 2;

/// What an output of the relay has around a message: a header, an envelope, an index.
const ENVELOPE: u64 = 256;

impl MemoryBound {
    /// Returns the bound of a server with this configuration and this many connections
    /// ([`ConnectionLimit::connections`](crate::ConnectionLimit::connections)).
    pub fn of(config: &Config, connections: u32) -> Self {
        let message = u64::from(config.endpoint.limits.message_bytes) + ENVELOPE;
        let backlog = u64::from(config.endpoint.backlog_bytes).max(message);
        let head = u64::from(config.head_bytes) + 4096;
        // The frame that is being read, and the pieces before it.
        let reading = 2 * GROWTH * message + READ_BUFFER as u64;
        // Those that the relay has not handled, and the one that is decoded.
        let queued = (u64::from(EVENTS_PER_CONNECTION) + 1) * message;
        let hub = u64::from(config.endpoint.limits.key_bytes) * 2 + 1024;
        Self {
            connections,
            // The relay's text and frame, and the copy that a growing backlog makes of itself.
            fixed: PROGRAM + QUEUES + EVENT_CHANNEL as u64 * 256 + GROWTH * (2 * message + backlog),
            process: STACK as u64
                + SIGNAL_STACK
                + size_of::<Peer>() as u64
                + GROWTH * head
                + reading
                + queued
                + GROWTH * backlog
                + hub,
            // The kernel doubles what is asked for.
            kernel: KERNEL_THREAD + KERNEL_SOCKET + 2 * (SEND_BUFFER + RECEIVE_BUFFER) as u64,
        }
    }

    /// All of it, in bytes.
    pub fn total(&self) -> u64 {
        self.fixed
            .saturating_add(u64::from(self.connections).saturating_mul(self.process + self.kernel))
    }
}

impl fmt::Display for MemoryBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connections,
            fixed,
            process,
            kernel,
        } = *self;
        write!(
            f,
            "at most {} MiB of memory: {} and {connections} x {:.2} if every client does its worst ({:.2} of that the kernel's)",
            mib(self.total()).ceil(),
            mib(fixed).ceil(),
            mib(process + kernel),
            mib(kernel),
        )
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_limit_that_costs_memory_is_in_it() {
        let bound = MemoryBound::of(&Config::default(), 1000);
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            MemoryBound::of(&config, 1000).total()
        };
        for larger in [
            with(|config| config.endpoint.limits.message_bytes *= 2),
            with(|config| config.endpoint.limits.key_bytes *= 2),
            with(|config| config.head_bytes *= 2),
            with(|config| config.endpoint.backlog_bytes *= 2),
        ] {
            assert!(larger > bound.total());
        }
        assert!(MemoryBound::of(&Config::default(), 1001).total() > bound.total());
    }

    #[test]
    fn it_is_said_in_a_line() {
        let bound = MemoryBound {
            connections: 100,
            fixed: 10 << 20,
            process: 3 << 19,
            kernel: 1 << 18,
        };
        assert_eq!(
            bound.to_string(),
            "at most 185 MiB of memory: 10 and 100 x 1.75 if every client does its worst (0.25 of that the kernel's)"
        );
    }

    #[test]
    fn the_largest_numbers_do_no_harm() {
        let mut config = Config::default();
        config.endpoint.limits.message_bytes = u32::MAX;
        config.endpoint.backlog_bytes = u32::MAX;
        assert!(MemoryBound::of(&config, u32::MAX).total() > 0);
    }
}
