//! Sizes and intervals that several modules share.

use std::time::Duration;

/// The credits of a connection. An event that waits for the relay takes at least one. Two events keep the relay busy while the connection's
/// thread decodes; more only lengthen the queue of every other connection.
pub(crate) const CREDITS: u32 = if cfg!(loom) { 2 } else { 4 };

/// The bytes of an event for which it takes one more credit, up to all. Most signaling messages take one.
pub(crate) const CREDIT_BYTES: usize = 4 * 1024;

/// The most connections over a limit that wait for their response without a thread. The connection limit leaves descriptors for them.
pub(crate) const MAX_OVERFLOW: usize = 32;

/// The kernel's send buffer of a connection, in bytes. The kernel doubles it. Without a limit it may grow to 4 MiB.
pub(crate) const SEND_BUFFER: usize = 128 * 1024;

/// The kernel's receive buffer of a connection, in bytes. The kernel doubles it. Without a limit it may grow to 6 MiB.
pub(crate) const RECEIVE_BUFFER: usize = 64 * 1024;

/// The most bytes that one read takes from a connection. Most signaling messages fit; a connection keeps a buffer of this size.
pub(crate) const READ_BUFFER: usize = 2 * 1024;

/// The stack of a connection's thread, in bytes. Only touched pages cost memory; a panic that prints a backtrace needs room.
pub(crate) const STACK: usize = 256 * 1024;

/// The most bytes that are read and discarded from a client that was sent its last frame or response, and how many at a time. After that,
/// nothing is read: the kernel's window stops the client.
pub(crate) const DISCARD_BYTES: usize = 256 * 1024;
pub(crate) const DISCARD_SINK: usize = 8 * 1024;

/// How often a thread that waits checks whether its connection has ended.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(100);
