//! The grace for joiners of the plain dialect: a join may arrive before the open that another client sent earlier.
//!
//! Such a join waits in the hub, unnoticed, and its client is not read until the outcome. A throttled request is refused as late, so that the
//! time says nothing about the key.

use alloc::{collections::VecDeque, vec::Vec};

use crate::{
    endpoint::{Endpoint, Outputs, TIMERS_PER_CALL, blocked::BlockReason, io::Output},
    id::ConnId,
    message::OutboundMessage,
    reason::Refusal,
    time::Time,
    wire::Dialect,
};

impl Endpoint {
    /// Stops a client of the plain dialect whose join waits for its key.
    pub(super) fn begin_grace(&mut self, id: ConnId, outputs: &mut Outputs) {
        if self.conns.get(id).is_some_and(|conn| conn.dialect == Dialect::Plain) {
            self.block(id, BlockReason::UnknownKey, VecDeque::new());
            outputs.push((id, Output::StopReading));
        }
    }

    /// Lets a client continue whose join has waited for its key.
    pub(super) fn end_grace(&mut self, id: ConnId) {
        let blocked = self.conns.get(id).and_then(|conn| conn.blocked.as_ref());
        if blocked.is_some_and(|blocked| matches!(blocked.reason, BlockReason::UnknownKey)) {
            self.released.push_back(id);
        }
    }

    /// Refuses a request for a role. A client of the plain dialect gets the refusal after the grace.
    pub(super) fn refuse_throttled(
        &mut self,
        now: Time,
        id: ConnId,
        refusal: Refusal,
        outputs: &mut Outputs,
    ) -> Vec<(ConnId, OutboundMessage)> {
        let grace = self.config.limits.plain_join_grace;
        if grace.is_zero() || self.conns.get(id).is_none_or(|conn| conn.dialect == Dialect::V1) {
            return self.hub.refuse_request(id, refusal);
        }
        let timer = self.refusal_timers.schedule(now, grace, id);
        self.block(id, BlockReason::Throttled { refusal, timer }, VecDeque::new());
        outputs.push((id, Output::StopReading));
        Vec::new()
    }

    /// Refuses the throttled requests whose grace is over.
    pub(super) fn refuse_due(&mut self, now: Time, outputs: &mut Outputs) {
        for _ in 0..TIMERS_PER_CALL {
            let Some(id) = self.refusal_timers.pop_due(now) else {
                return;
            };
            let blocked = self.conns.get_mut(id).and_then(|conn| conn.blocked.as_mut());
            if let Some(BlockReason::Throttled { refusal, timer }) = blocked.map(|blocked| &mut blocked.reason) {
                *timer = None;
                let messages = self.hub.refuse_request(id, refusal.clone());
                self.deliver(now, Some(id), messages, outputs);
            }
        }
    }
}
