//! The end of open connections, and which keys are reserved then.

use alloc::vec::Vec;

use crate::{
    endpoint::{Endpoint, Outputs, pairing::PairingStage},
    hub::Disconnect,
    id::ConnId,
    message::OutboundMessage,
    reason::CloseReason,
    time::Time,
};

impl Endpoint {
    pub(super) fn close_into(&mut self, now: Time, id: ConnId, reason: CloseReason, outputs: &mut Outputs) {
        let messages = self.close_in_hub(now, id, reason);
        self.deliver(now, Some(id), messages, outputs);
    }

    pub(super) fn close_in_hub(
        &mut self,
        now: Time,
        id: ConnId,
        reason: CloseReason,
    ) -> Vec<(ConnId, OutboundMessage)> {
        if reason.is_loss() {
            self.count_reservation(now, id);
        }
        self.hub.close(now, id, reason)
    }

    /// Counts the reservation that follows if this is an opener. Beyond its source's share, its key is free at once.
    fn count_reservation(&mut self, now: Time, id: ConnId) {
        if self.hub.is_reservable(id) {
            let is_within = self
                .conns
                .get(id)
                .is_some_and(|conn| self.reservation_shares.take(conn.source, now));
            if !is_within {
                self.hub.forgo_reservation(id);
            }
        }
    }

    pub(super) fn disconnect(&mut self, now: Time, id: ConnId, outputs: &mut Outputs) {
        self.count_reservation(now, id);
        self.end_pairing(now, id, PairingStage::EndedByJoiner, outputs);
        self.activity.push_end(id, None);
        let backlog = self.remove(id).map_or(0, |conn| conn.backlog());
        self.backlogs.subtract(backlog);
        let messages = self.hub.disconnect(now, id, Disconnect::Lost);
        self.deliver(now, Some(id), messages, outputs);
    }
}
