//! An upper bound of the server's memory, computed from its configuration. A test measures real servers against it.

use std::{fmt, num::NonZeroU64};

use sigver_core::PeerId;

use crate::{
    config::Config,
    conn::peer::Peer,
    sys::{system_memory::SystemMemory, worker_pool::SPARE_THREADS},
    tuning::{CREDIT_BYTES, CREDITS, MAX_OVERFLOW, READ_BUFFER, RECEIVE_BUFFER, SEND_BUFFER},
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
    /// Bytes of the write buffers of all connections together
    /// ([`backlog_total_bytes`](sigver_core::EndpointConfig::backlog_total_bytes)).
    pub backlogs: u64,
    /// Bytes that are not for each connection: the program, its permanent threads and their queues, messages on their way to the relay,
    /// threads that wait for a connection, the connections over the limit that wait for their response, and reserved keys if their number
    /// is configured.
    pub fixed: u64,
    /// Bytes of the process for each connection: its stack, the message it sends, the frame that is partly sent to it, and a reserved
    /// key if their number is not configured.
    pub process: u64,
    /// Bytes of the kernel for each connection: its thread, and its socket with full buffers.
    pub kernel: u64,
    /// The memory of the machine or the control group, if the system reports it.
    system: Option<SystemMemory>,
    /// Whether the configuration sets the size of all write buffers.
    is_configured: bool,
}

/// By default, all write buffers together may take a quarter of the system's memory.
const BACKLOGS_DIVISOR: u64 = 4;

/// The default where the system does not report its memory.
const UNKNOWN_BACKLOGS: NonZeroU64 = NonZeroU64::new(1 << 30).expect("not zero");

/// The program, its libraries, and the heap of a server without connections, rounded up.
const PROGRAM: u64 = 16 * 1024 * 1024;

/// Log lines that wait for stderr, and the sources of failed joins.
const QUEUES: u64 = 8 * 1024 * 1024;

/// A table of budgets by source, for 65,536 sources.
const SOURCE_TABLE: u64 = 12 * 1024 * 1024;

/// What the thread of a connection touches of its stack: 12 to 28 KiB without an [`Admission`](crate::Admission) of an embedder, also if it
/// verifies a JSON Web Token. (Unoptimized, Ed25519 touches 96 KiB.) A test reads it from `/proc`. The rest of the stack takes address space
/// only.
const TOUCHED_STACK: u64 = 48 * 1024;

/// What a signal handler touches of a thread's signal stack.
const SIGNAL_STACK: u64 = 8 * 1024;

/// A thread in the kernel: its stack, its descriptor, its page tables.
const KERNEL_THREAD: u64 = 40 * 1024;

/// A socket in the kernel beside its buffers.
const KERNEL_SOCKET: u64 = 8 * 1024;

/// A growing buffer doubles, so it may be twice as large as its content.
const GROWTH: u64 = 2;

/// A joiner in an `opened`: its index, and its id with every byte escaped.
const LISTED_JOINER: u64 = 32 + 6 * PeerId::MAX_BYTES as u64;

/// The ICE servers of a joiner in an `opened`: as much as the core assumes.
const ICE: u64 = 2 * 1024;

/// What is added to a message on its way out: a header, an envelope, an index.
const ENVELOPE: u64 = 256;

/// The name that a client gives itself, and the allocation that holds it.
const PEER_ID: u64 = PeerId::MAX_BYTES as u64 + 32;

/// The parsed headers of a request.
const HEADERS: u64 = 4096;

/// A byte of a key takes up to this many in JSON.
const ESCAPED: u64 = 6;

/// A backlog has a queue of bytes and a queue of frames. In each, most of the first chunk may be sent, and half of the last one unused.
const PARTIAL_CHUNKS: u64 = 3;

/// The most bytes of a backlog's table of chunks for each of its chunks.
const CHUNK_ENTRY: u64 = GROWTH * size_of::<Vec<u8>>() as u64;

/// A connection in the tables of the hub, the endpoint and the relay, without its keys.
const TABLES: u64 = 1024;

/// The deferred outputs of a connection, for which the endpoint returns up to 4 KiB of small frames. Their bytes count in its write buffer.
const DEFERRED: u64 = 16 * 1024;

/// A reserved key in the tables of the core, without its text.
const RESERVATION: u64 = 320;

/// The token of an opener, and the allocation that holds it.
const TOKEN: u64 = 64;

impl MemoryBound {
    /// Returns the bound of a server with this configuration and this many connections
    /// ([`ConnectionLimit::connections`](crate::ConnectionLimit::connections)).
    pub fn of(config: &Config, connections: u32) -> Self {
        Self::on(SystemMemory::detect(), config, connections)
    }

    fn on(system: Option<SystemMemory>, config: &Config, connections: u32) -> Self {
        let configured = config.endpoint.backlog_total_bytes;
        let backlogs = configured.unwrap_or_else(|| {
            let part = system.and_then(|system| NonZeroU64::new(system.bytes / BACKLOGS_DIVISOR));
            part.unwrap_or(UNKNOWN_BACKLOGS)
        });
        let limits = &config.endpoint.limits;
        let message = u64::from(limits.message_bytes) + ENVELOPE;
        // The longest message to a client: an `opened` that lists every joiner.
        let listed = LISTED_JOINER + if config.ice.is_some() { ICE } else { 0 };
        let outgoing = message.max(u64::from(limits.joiners_per_key).saturating_mul(listed));
        let key = u64::from(limits.key_bytes);
        let head = u64::from(config.head_bytes) + HEADERS;
        // The request head and the subprotocol of a handshake; after it, the frame that is read and the fragments before it.
        let input = (GROWTH * head + head).max(GROWTH * (message + READ_BUFFER as u64) + GROWTH * message);
        // A decoded message, or the response to a handshake.
        let event = message.max(head) + ENVELOPE;
        // What waits for the relay: one large event, or several small ones.
        let events = event.max(u64::from(CREDITS) * (CREDIT_BYTES as u64 + ENVELOPE));
        // The kernel doubles the configured sizes.
        let socket = KERNEL_SOCKET + 2 * (SEND_BUFFER + RECEIVE_BUFFER) as u64;
        let overflow = MAX_OVERFLOW as u64 * (size_of::<Peer>() as u64 + GROWTH * head + socket);
        let thread = TOUCHED_STACK + SIGNAL_STACK;
        let reservation = RESERVATION + key;
        // By default, there may be one for each connection.
        let (all_reservations, own_reservation) = match limits.reserved_keys {
            Some(most) => (u64::from(most.get()).saturating_mul(reservation), 0),
            None => (0, reservation),
        };
        // That of the shares of reserved keys is always there.
        let tables = 1
            + u64::from(config.endpoint.messages_per_second_per_source.is_some())
            + u64::from(config.endpoint.key_attempts_per_minute.is_some());
        Self {
            connections,
            backlogs: backlogs.get(),
            fixed: all_reservations.saturating_add(
                PROGRAM
                    + QUEUES
                    + tables * SOURCE_TABLE
                    + overflow
                    // The relay's text and frame.
                    + GROWTH * 2 * outgoing
                    + SPARE_THREADS as u64 * (thread + KERNEL_THREAD)
                    + backlogs.get() / CHUNK_BYTES as u64 * CHUNK_ENTRY,
            ),
            process: thread
                + size_of::<Peer>() as u64
                + input
                // Is decoded, and waits for credits.
                + event
                + events
                // The rest of the frame that is partly sent when the backlog is discarded.
                + outgoing.max(ESCAPED * key + ENVELOPE)
                + PARTIAL_CHUNKS * CHUNK_BYTES as u64
                + 2 * key
                + PEER_ID
                + TOKEN
                + TABLES
                + DEFERRED
                + own_reservation,
            kernel: KERNEL_THREAD + socket,
            system,
            is_configured: configured.is_some(),
        }
    }

    /// Returns the total in bytes.
    pub fn total(&self) -> u64 {
        u64::from(self.connections)
            .saturating_mul(self.process + self.kernel)
            .saturating_add(self.fixed)
            .saturating_add(self.backlogs)
    }

    /// Returns a warning if the bound exceeds the memory of the machine or the control group. It is one line and names the flags of
    /// `sigver-server` that lower the bound, which are named like the fields of the configuration.
    pub fn warning(&self) -> Option<String> {
        let system = self.system.filter(|system| self.total() > system.bytes)?;
        let for_connections = system.bytes.saturating_sub(self.fixed).saturating_sub(self.backlogs);
        let fitting = match for_connections / (self.process + self.kernel) {
            0 => String::new(),
            connections => format!(" (to {connections})"),
        };
        Some(format!(
            "the worst case exceeds {system}: lower --connections{fitting}, --backlog-total, --message-bytes or --joiners-per-key"
        ))
    }
}

impl fmt::Display for MemoryBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            connections,
            backlogs,
            fixed,
            process,
            kernel,
            system,
            is_configured,
        } = *self;
        write!(
            f,
            "at most {} MiB of memory: {} MiB, {} MiB of backlogs (",
            mib(self.total()).ceil(),
            mib(fixed).ceil(),
            mib(backlogs).ceil(),
        )?;
        match system {
            _ if is_configured => write!(f, "as configured"),
            Some(system) => write!(f, "a quarter of {system}"),
            None => write!(f, "the memory of this system is unknown"),
        }?;
        write!(
            f,
            ") and {connections} x {:.2} MiB in the worst case ({:.2} MiB of it in the kernel)",
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
    use std::num::NonZeroU32;

    use std::sync::Arc;

    use super::*;
    use crate::ice::IceUrls;

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
            with(|config| config.endpoint.backlog_total_bytes = NonZeroU64::new(1 << 50)),
            with(|config| config.endpoint.messages_per_second_per_source = NonZeroU32::new(1000)),
            with(|config| config.endpoint.limits.joiners_per_key *= 2),
            with(|config| config.endpoint.key_attempts_per_minute = NonZeroU32::new(30)),
            with(|config| config.ice = Some(Arc::new(IceUrls::new(Vec::new())))),
            with(|config| config.endpoint.limits.reserved_keys = NonZeroU32::new(1001)),
        ] {
            assert!(larger > bound.total());
        }
        assert!(MemoryBound::of(&Config::default(), 1001).total() > bound.total());
    }

    #[test]
    fn backlogs_take_a_quarter_of_the_memory_by_default() {
        let (mut config, machine) = (Config::default(), SystemMemory::of(8 << 30, None));
        let bound = MemoryBound::on(Some(machine), &config, 1000);
        assert_eq!(bound.backlogs, 2 << 30);
        let shown = bound.to_string();
        assert!(
            shown.contains(" 2048 MiB of backlogs (a quarter of the 8192 MiB of this machine) and "),
            "{shown}"
        );
        let shown = MemoryBound::on(None, &config, 1000).to_string();
        assert!(
            shown.contains(" 1024 MiB of backlogs (the memory of this system is unknown) and "),
            "{shown}"
        );
        config.endpoint.backlog_total_bytes = NonZeroU64::new(1);
        let bound = MemoryBound::on(Some(machine), &config, 1000);
        assert_eq!(bound.backlogs, 1);
    }

    #[test]
    fn bound_over_the_memory_of_the_system_has_a_warning() {
        let mut config = Config::default();
        let warning = |mib: u64, config: &Config, connections| {
            let system = SystemMemory::of(1 << 50, Some(mib << 20));
            MemoryBound::on(Some(system), config, connections).warning()
        };
        assert_eq!(MemoryBound::on(None, &config, u32::MAX).warning(), None);
        assert_eq!(warning(8192, &config, 1000), None);
        let text = warning(2048, &config, 2000).unwrap_or_default();
        let rest =
            text.strip_prefix("the worst case exceeds the 2048 MiB of the control group: lower --connections (to ");
        let (fitting, rest) = rest.and_then(|rest| rest.split_once(')')).expect(&text);
        assert_eq!(rest, ", --backlog-total, --message-bytes or --joiners-per-key");
        let fitting = fitting.parse().expect("a number");
        assert_eq!(warning(2048, &config, fitting), None);
        assert!(warning(2048, &config, fitting + 1).is_some());
        config.endpoint.backlog_total_bytes = NonZeroU64::new(4 << 30);
        let text = "the worst case exceeds the 2048 MiB of the control group: lower --connections, --backlog-total, --message-bytes or --joiners-per-key";
        assert_eq!(warning(2048, &config, 1).as_deref(), Some(text));
    }

    #[test]
    fn threads_that_wait_for_a_connection_are_counted() {
        let without_connections = MemoryBound::of(&Config::default(), 0).fixed;
        assert!(without_connections > SPARE_THREADS as u64 * TOUCHED_STACK + PROGRAM + QUEUES);
    }

    #[test]
    fn display_is_one_line() {
        let bound = MemoryBound {
            connections: 100,
            backlogs: 20 << 20,
            fixed: 10 << 20,
            process: 3 << 19,
            kernel: 1 << 18,
            system: None,
            is_configured: true,
        };
        assert_eq!(
            bound.to_string(),
            "at most 205 MiB of memory: 10 MiB, 20 MiB of backlogs (as configured) and 100 x 1.75 MiB in the worst case (0.25 MiB of it in the kernel)"
        );
    }

    #[test]
    fn largest_limits_do_not_overflow() {
        let mut config = Config::default();
        config.endpoint.limits.message_bytes = u32::MAX;
        config.endpoint.limits.key_bytes = u32::MAX;
        config.head_bytes = u32::MAX;
        config.endpoint.backlog_total_bytes = Some(NonZeroU64::MAX);
        config.endpoint.limits.reserved_keys = Some(NonZeroU32::MAX);
        assert_eq!(MemoryBound::of(&config, u32::MAX).total(), u64::MAX);
    }
}
