//! Owns the shape of the numbers that a [`Hub`](crate::Hub) can tell about itself. Never counts anything on its own.

/// A snapshot of a [`Hub`](crate::Hub)'s gauges and counters.
///
/// Gauges say what is there now and return to 0 when every connection is gone. Counters only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Gauge: connections that are neither gone nor closed.
    pub connections: u32,
    /// Gauge: open keys, which is the number of openers.
    pub keys: u32,
    /// Gauge: connections that have joined a key.
    pub joiners: u32,
    /// Counter: messages of data that were passed on to their addressee.
    pub relayed: u64,
    /// Counter: messages of an opener to an index that names nobody, because that joiner is gone or never came. Dropped.
    pub dropped: u64,
    /// Counter: what was answered with a [`Refusal`](crate::Refusal), or the close that stands for it; what is dropped included.
    pub refused: u64,
    /// Counter: connections that the hub closed, each with a [`CloseReason`](crate::CloseReason).
    pub closed: u64,
}
