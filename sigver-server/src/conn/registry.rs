//! The connections whose thread has not ended.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sigver_core::ConnId;

use crate::conn::peer::Peer;

/// All connections that have a thread.
#[derive(Default)]
pub(crate) struct Registry {
    /// By the number of the connection.
    peers: Mutex<BTreeMap<u64, Arc<Peer>>>,
    /// Notified when the last connection has ended.
    emptied: Condvar,
}

impl Registry {
    /// Registers a connection until the entry is dropped.
    pub(crate) fn register(self: &Arc<Self>, peer: &Arc<Peer>) -> Entry {
        self.peers().insert(peer.serial, Arc::clone(peer));
        Entry {
            registry: Arc::clone(self),
            serial: peer.serial,
        }
    }

    /// Returns the relay's id of the connection with this number, if the relay has accepted or rejected it.
    pub(crate) fn id(&self, serial: u64) -> Option<ConnId> {
        let peers = self.peers();
        peers.get(&serial).filter(|peer| peer.has_id()).map(|peer| peer.id())
    }

    pub(crate) fn len(&self) -> usize {
        self.peers().len()
    }

    /// Returns the number of connections without an id: most of them are in their handshake.
    pub(crate) fn handshakes(&self) -> usize {
        self.peers().values().filter(|peer| !peer.has_id()).count()
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
        for peer in self.peers().values() {
            peer.limit_delivery();
            peer.abort();
        }
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's entry in the registry, held by its thread.
pub(crate) struct Entry {
    registry: Arc<Registry>,
    serial: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut peers = self.registry.peers();
        peers.remove(&self.serial);
        if peers.is_empty() {
            self.registry.emptied.notify_all();
        }
    }
}
