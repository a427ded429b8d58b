//! The end of the time for which a client was admitted.

use crate::{
    endpoint::{Endpoint, Outputs, TIMERS_PER_CALL},
    id::ConnId,
    reason::CloseReason,
    time::Time,
};

impl Endpoint {
    /// Closes a connection at this time with 4004 [`TokenExpired`](CloseReason::TokenExpired); in `sigver.v1`, a client with a role gets
    /// `closed` with `token-expired` before. The key of an opener is free at once. A further call replaces the time. For an unknown or closing
    /// connection, it does nothing.
    pub fn expire_at(&mut self, now: Time, id: ConnId, at: Time) {
        if self.conns.get(id).is_some() {
            self.expiries.set(now, at, id);
        }
    }

    pub(super) fn close_expired(&mut self, now: Time, outputs: &mut Outputs) {
        for _ in 0..TIMERS_PER_CALL {
            let Some(id) = self.expiries.pop_due(now) else { return };
            self.close_into(now, id, CloseReason::TokenExpired, outputs);
        }
    }
}
