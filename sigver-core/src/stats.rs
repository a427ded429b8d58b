//! The gauges and counters of a hub.

/// A snapshot of a [`Hub`](crate::Hub)'s gauges and counters.
///
/// Gauges are 0 when every connection is gone; [`reserved`](Self::reserved) after [`Limits::reserve`](crate::Limits::reserve). Counters only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Gauge: open connections.
    pub connections: u32,
    /// Gauge: open keys, which is the number of openers.
    pub keys: u32,
    /// Gauge: keys that are reserved for an opener whose connection was lost.
    pub reserved: u32,
    /// Gauge: connections that have joined a key.
    pub joiners: u32,
    /// Gauge: connections that wait for a key to be opened.
    pub waiting: u32,
    /// Counter: data messages that were delivered.
    pub relayed: u64,
    /// Counter: data messages of openers that were dropped, because no joiner has the index.
    pub dropped: u64,
    /// Counter: requests that were refused, with a [`Refusal`](crate::Refusal) or a close. Includes dropped messages.
    pub refused: u64,
    /// Counter: connections that the hub closed.
    pub closed: u64,
}
