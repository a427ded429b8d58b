//! Owns the list of connections whose thread has not ended: how many there are, and how to end them all. Never knows what they do.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use slab::Slab;

use crate::conn::peer::Peer;

/// Every connection that has a thread.
#[derive(Default)]
pub(crate) struct Registry {
    peers: Mutex<Slab<Arc<Peer>>>,
    fewer: Condvar,
}

impl Registry {
    /// Enters a connection; it leaves when the entry is dropped.
    pub(crate) fn enter(self: &Arc<Self>, peer: &Arc<Peer>) -> Entry {
        let place = self.peers().insert(Arc::clone(peer));
        Entry {
            registry: Arc::clone(self),
            place,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.peers().len()
    }

    /// How many connections have not been taken in by the relay: most of them in their handshake.
    pub(crate) fn handshakes(&self) -> usize {
        self.peers().iter().filter(|(_, peer)| !peer.has_id()).count()
    }

    /// How many bytes wait for all clients together.
    pub(crate) fn backlog_bytes(&self) -> u64 {
        self.peers().iter().map(|(_, peer)| peer.backlog_bytes() as u64).sum()
    }

    /// Waits until every connection has left; false if some have not within `patience`.
    pub(crate) fn wait_empty(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut peers = self.peers();
        while !peers.is_empty() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            peers = self
                .fewer
                .wait_timeout(peers, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Ends every connection at once, in mid-handshake or mid-frame.
    pub(crate) fn cut_all(&self) {
        for (_, peer) in self.peers().iter() {
            peer.cut();
        }
    }

    fn peers(&self) -> MutexGuard<'_, Slab<Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the registry, held by its thread.
pub(crate) struct Entry {
    registry: Arc<Registry>,
    place: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut peers = self.registry.peers();
        peers.try_remove(self.place);
        if peers.is_empty() {
            self.registry.fewer.notify_all();
        }
    }
}
