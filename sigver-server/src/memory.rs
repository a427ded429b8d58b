//! An upper bound of the server's memory, computed from its configuration. A test measures real servers against it.

use std::fmt;

use sigver_core::PeerId;

use crate::{
    config::Config,
    conn::peer::Peer,
    sys::worker_pool::MAX_IDLE_THREADS,
    tuning::{EVENT_CHANNEL, EVENTS_PER_CONNECTION, MAX_OVERFLOW, READ_BUFFER, RECEIVE_BUFFER, SEND_BUFFER, STACK},
    write::chunk_queue::CHUNK_BYTES,
};

/// The upper bound of a server's memory, in the worst case that every client reaches every limit at the same time. `Display` is one line.
///
/// Not included: connections in the kernel's backlog, what the kernel still has to send to rejected clients and after HTTP responses (for at
/// most the close time-out), fragmentation of the allocator, and memory of an [`Admission`](crate::Admission).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryBound {
    /// The most connections at the same time.
    pub connections: u32,
    /// Bytes that do not depend on connections: the program, its permanent threads and their queues, threads that wait for a connection, and
    /// the connections over the limit that wait for their response.
    pub fixed: u64,
    /// Bytes of the process for each connection: its stack, the messages it sends, its write buffer.
    pub process: u64,
    /// Bytes of the kernel for each connection: its thread, and its socket with full buffers.
    pub kernel: u64,
}

/// The program, its libraries, and the heap of a server without connections, rounded up.
const PROGRAM: u64 = 16 * 1024 * 1024;

/// Log lines that wait for stderr, and the sources of failed joins.
const QUEUES: u64 = 8 * 1024 * 1024;

/// A thread's signal stack and the guard pages that std maps for it.
const SIGNAL_STACK: u64 = 32 * 1024;

/// A thread in the kernel: its stack, its descriptor, its page tables.
const KERNEL_THREAD: u64 = 40 * 1024;

/// A socket in the kernel beside its buffers.
const KERNEL_SOCKET: u64 = 8 * 1024;

/// A growing buffer doubles, so it may be twice as large as its content.
const GROWTH: u64 = 2;

/// A joiner in an `opened`: its index, and its id with every byte escaped.
const LISTED_JOINER: u64 = 32 + 6 * PeerId::MAX_BYTES as u64;

/// What is added to a message on its way out: a header, an envelope, an index.
const ENVELOPE: u64 = 256;

/// The name that a client gives itself, and the allocation that holds it.
const PEER_ID: u64 = PeerId::MAX_BYTES as u64 + 32;

/// The token of an opener, and the allocation that holds it.
const TOKEN: u64 = 64;

impl MemoryBound {
    /// Returns the bound of a server with this configuration and this many connections
    /// ([`ConnectionLimit::connections`](crate::ConnectionLimit::connections)).
    pub fn of(config: &Config, connections: u32) -> Self {
        let limits = &config.endpoint.limits;
        let message = u64::from(limits.message_bytes) + ENVELOPE;
        // The longest message to a client: an `opened` that lists every joiner.
        let outgoing = message.max(u64::from(limits.joiners_per_key) * LISTED_JOINER);
        let backlog = u64::from(config.endpoint.backlog_bytes).max(outgoing);
        let head = u64::from(config.head_bytes) + 4096;
        // The frame that is being read, and the fragments before it.
        let reading = 2 * GROWTH * message + READ_BUFFER as u64;
        // Events in the channel, and the message that is being decoded.
        let queued = (u64::from(EVENTS_PER_CONNECTION) + 1) * message;
        // The kernel doubles the configured sizes.
        let socket = KERNEL_SOCKET + 2 * (SEND_BUFFER + RECEIVE_BUFFER) as u64;
        let overflow = MAX_OVERFLOW as u64 * (size_of::<Peer>() as u64 + GROWTH * head + socket);
        let idle_thread = STACK as u64 + SIGNAL_STACK + KERNEL_THREAD;
        // The connection in the tables of the core, as an opener, a joiner or a waiter, with its key and its timers.
        let hub = u64::from(limits.key_bytes) * 2 + PEER_ID + TOKEN + 1024;
        Self {
            connections,
            // The relay's text and frame.
            fixed: PROGRAM
                + QUEUES
                + overflow
                + EVENT_CHANNEL as u64 * 256
                + GROWTH * 2 * outgoing
                + MAX_IDLE_THREADS as u64 * idle_thread,
            process: STACK as u64
                + SIGNAL_STACK
                + size_of::<Peer>() as u64
                + GROWTH * head
                + reading
                + queued
                + backlog
                + CHUNK_BYTES as u64
                + hub,
            kernel: KERNEL_THREAD + socket,
        }
    }

    /// Returns the total in bytes.
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
            "at most {} MiB of memory: {} MiB and {connections} x {:.2} MiB in the worst case ({:.2} MiB of it in the kernel)",
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
    fn every_limit_that_costs_memory_raises_the_bound() {
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
            with(|config| config.endpoint.limits.joiners_per_key *= 2),
        ] {
            assert!(larger > bound.total());
        }
        assert!(MemoryBound::of(&Config::default(), 1001).total() > bound.total());
    }

    #[test]
    fn threads_that_wait_for_a_connection_are_counted() {
        let without_connections = MemoryBound::of(&Config::default(), 0).total();
        assert!(without_connections > (MAX_IDLE_THREADS * STACK) as u64 + PROGRAM + QUEUES);
    }

    #[test]
    fn display_is_one_line() {
        let bound = MemoryBound {
            connections: 100,
            fixed: 10 << 20,
            process: 3 << 19,
            kernel: 1 << 18,
        };
        assert_eq!(
            bound.to_string(),
            "at most 185 MiB of memory: 10 MiB and 100 x 1.75 MiB in the worst case (0.25 MiB of it in the kernel)"
        );
    }

    #[test]
    fn largest_limits_do_not_overflow() {
        let mut config = Config::default();
        config.endpoint.limits.message_bytes = u32::MAX;
        config.endpoint.backlog_bytes = u32::MAX;
        assert!(MemoryBound::of(&config, u32::MAX).total() > 0);
    }
}
