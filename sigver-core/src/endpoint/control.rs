//! What an operator does with connections and keys, and what the endpoint can be asked about them.

use alloc::vec::Vec;

use crate::{
    endpoint::{Endpoint, io::Output},
    hub::Role,
    id::{ConnId, Key},
    message::InboundMessage,
    reason::CloseReason,
    time::Time,
};

impl Endpoint {
    /// Closes a connection, for example with [`ClosedByOperator`](CloseReason::ClosedByOperator). If it is an opener, its joiners are notified, and its
    /// key is free at once, except for the reasons for which a key is reserved: see [`Hub::close`](crate::Hub::close). For an unknown or
    /// closing connection, it does nothing.
    #[must_use = "the outputs must be carried out"]
    pub fn close(&mut self, now: Time, id: ConnId, reason: CloseReason) -> Vec<(ConnId, Output)> {
        let mut outputs = Vec::new();
        self.close_into(now, id, reason, &mut outputs);
        self.resume_released(now, &mut outputs);
        outputs
    }

    /// Removes a joiner from its key, as if its opener had kicked it: in `sigver.v1` it receives `closed` with `kicked`, in the plain dialect it is
    /// closed with 4003. Its opener receives `leave` if its dialect has that. For any other connection, it does nothing.
    #[must_use = "the outputs must be carried out"]
    pub fn kick(&mut self, now: Time, joiner: ConnId) -> Vec<(ConnId, Output)> {
        let mut outputs = Vec::new();
        if let Some((opener, index)) = self.hub.place(joiner) {
            let kick = InboundMessage::Kick { index: Some(index) };
            let messages = self.hub.handle(now, opener, kick);
            self.deliver(now, Some(opener), messages, &mut outputs);
            self.resume_released(now, &mut outputs);
        }
        outputs
    }

    /// Frees a key that is reserved for the opener that lost its connection ([`Limits::reserve`](crate::Limits::reserve)). Returns whether it
    /// was reserved.
    pub fn end_reservation(&mut self, key: &Key) -> bool {
        self.hub.end_reservation(key)
    }

    /// Returns the connection that has a key open.
    #[must_use]
    pub fn opener(&self, key: &Key) -> Option<ConnId> {
        self.hub.opener(key)
    }

    /// Whether a connection is open: neither closing nor unknown.
    #[must_use]
    pub fn is_open(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some()
    }

    /// Returns the role of an open connection, if it has one.
    #[must_use]
    pub fn role(&self, id: ConnId) -> Option<Role> {
        self.hub.role(id)
    }

    /// Returns the key of a connection's role: the one that it has opened or joined, or waits for.
    #[must_use]
    pub fn key(&self, id: ConnId) -> Option<&Key> {
        self.hub.key(id)
    }
}
