//! The connections whose thread has not ended.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use slab::Slab;

use crate::conn::peer::Peer;

/// All connections that have a thread.
#[derive(Default)]
pub(crate) struct Registry {
    peers: Mutex<Slab<Arc<Peer>>>,
    /// Notified when the last connection has ended.
    emptied: Condvar,
}

impl Registry {
    /// Registers a connection until the entry is dropped.
    pub(crate) fn register(self: &Arc<Self>, peer: &Arc<Peer>) -> Entry {
        let index = self.peers().insert(Arc::clone(peer));
        Entry {
            registry: Arc::clone(self),
            index,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.peers().len()
    }

    /// Returns the number of connections without an id: most of them are in their handshake.
    pub(crate) fn handshakes(&self) -> usize {
        self.peers().iter().filter(|(_, peer)| !peer.has_id()).count()
    }

    /// Waits until every connection has ended. Returns false after `timeout`.
    pub(crate) fn wait_empty(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut peers = self.peers();
        while !peers.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            peers = self
                .emptied
                .wait_timeout(peers, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Aborts every connection, also in the middle of a handshake or frame.
    pub(crate) fn abort_all(&self) {
        for (_, peer) in self.peers().iter() {
            peer.limit_delivery();
            peer.abort();
        }
    }

    fn peers(&self) -> MutexGuard<'_, Slab<Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's entry in the registry, held by its thread.
pub(crate) struct Entry {
    registry: Arc<Registry>,
    index: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut peers = self.registry.peers();
        peers.try_remove(self.index);
        if peers.is_empty() {
            self.registry.emptied.notify_all();
        }
    }
}
