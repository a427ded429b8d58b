//! How many connections and unfinished handshakes one source may have.

use std::{
    collections::HashMap,
    mem,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sigver_core::Source;
use thiserror::Error;

/// The limits for each source, and what each source uses.
pub(crate) struct PerIpLimits {
    connections: Option<NonZeroU32>,
    handshakes: Option<NonZeroU32>,
    used: Mutex<HashMap<Source, Usage>>,
}

#[derive(Clone, Copy, Default)]
struct Usage {
    connections: u32,
    handshakes: u32,
}

/// One connection's part of its source's limits. It is returned on drop.
pub(crate) struct Permit {
    limits: Arc<PerIpLimits>,
    source: Source,
    in_handshake: bool,
}

/// The limit that a source has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum LimitExceeded {
    #[error("too many connections from this address")]
    Connections,
    #[error("too many handshakes from this address")]
    Handshakes,
}

impl PerIpLimits {
    /// `None` is no limit.
    pub(crate) fn new(connections: Option<NonZeroU32>, handshakes: Option<NonZeroU32>) -> Self {
        Self {
            connections,
            handshakes,
            used: Mutex::default(),
        }
    }

    /// Whether there is any limit.
    pub(crate) fn are_limited(&self) -> bool {
        self.connections.is_some() || self.handshakes.is_some()
    }

    /// Acquires a permit for a connection that begins its handshake.
    ///
    /// # Errors
    ///
    /// The source has reached a limit.
    pub(crate) fn acquire(self: &Arc<Self>, source: Source) -> Result<Permit, LimitExceeded> {
        self.acquire_if_below(source, true)
    }

    /// Acquires a permit for a connection whose handshake is over, or does not count: that of a trusted proxy.
    ///
    /// # Errors
    ///
    /// The source has reached the limit on connections.
    pub(crate) fn acquire_upgraded(self: &Arc<Self>, source: Source) -> Result<Permit, LimitExceeded> {
        self.acquire_if_below(source, false)
    }

    fn acquire_if_below(self: &Arc<Self>, source: Source, in_handshake: bool) -> Result<Permit, LimitExceeded> {
        let is_reached = |limit: Option<NonZeroU32>, used: u32| limit.is_some_and(|limit| used >= limit.get());
        let mut all = self.used();
        // A limit is at least 1, so no rejected source leaves an empty entry behind.
        let used = all.entry(source).or_default();
        if is_reached(self.connections, used.connections) {
            return Err(LimitExceeded::Connections);
        }
        if in_handshake && is_reached(self.handshakes, used.handshakes) {
            return Err(LimitExceeded::Handshakes);
        }
        used.connections += 1;
        used.handshakes += u32::from(in_handshake);
        Ok(Permit {
            limits: Arc::clone(self),
            source,
            in_handshake,
        })
    }

    fn used(&self) -> MutexGuard<'_, HashMap<Source, Usage>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Returns the part of the limit on handshakes.
    pub(crate) fn end_handshake(&mut self) {
        if mem::take(&mut self.in_handshake) {
            if let Some(used) = self.limits.used().get_mut(&self.source) {
                used.handshakes -= 1;
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end_handshake();
        let mut all = self.limits.used();
        if let Some(used) = all.get_mut(&self.source) {
            used.connections -= 1;
            if used.connections == 0 {
                all.remove(&self.source);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::{Arc, LimitExceeded, NonZeroU32, PerIpLimits, Source};

    #[test]
    fn permit_counts_until_it_is_dropped() {
        let limits = Arc::new(PerIpLimits::new(NonZeroU32::new(2), NonZeroU32::new(1)));
        let [source, other] = [1, 2].map(|last| Source::from(IpAddr::from(Ipv4Addr::new(192, 0, 2, last))));
        let exceeded = |source| limits.acquire(source).err();
        let mut first = limits.acquire(source).expect("below both limits");
        assert_eq!(exceeded(source), Some(LimitExceeded::Handshakes));
        let elsewhere = limits.acquire(other).expect("another source has limits of its own");
        first.end_handshake();
        let second = limits.acquire(source).expect("the handshake is over");
        assert_eq!(exceeded(source), Some(LimitExceeded::Connections));
        drop(second);
        let mut second = limits.acquire(source).expect("a connection has ended");
        second.end_handshake();
        assert_eq!(exceeded(source), Some(LimitExceeded::Connections));
        drop((first, second, elsewhere));
        assert!(limits.used().is_empty(), "a source without connections costs nothing");
    }

    /// However many handshakes of proxied clients are under way at the same instant, none is rejected.
    #[test]
    fn proxied_connections_do_not_count_as_handshakes() {
        let limits = Arc::new(PerIpLimits::new(NonZeroU32::new(4), NonZeroU32::new(1)));
        let source = Source::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let direct = limits.acquire(source).expect("below both limits");
        let proxied: Vec<_> = (0..4).map_while(|_| limits.acquire_upgraded(source).ok()).collect();
        assert_eq!(proxied.len(), 3, "only the limit on connections applies");
        assert_eq!(limits.acquire_upgraded(source).err(), Some(LimitExceeded::Connections));
        drop((direct, proxied));
        assert!(limits.used().is_empty());
    }

    #[test]
    fn source_without_limits_is_never_rejected() {
        let limits = Arc::new(PerIpLimits::new(None, None));
        let source = Source::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let permits: Vec<_> = (0..1000).map_while(|_| limits.acquire(source).ok()).collect();
        assert_eq!(permits.len(), 1000);
        assert!(!limits.are_limited());
    }
}
