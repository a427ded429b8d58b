//! Requests for named keys, and the limit on them.

use alloc::vec::Vec;

use crate::{
    endpoint::{Endpoint, Outputs, key_attempts::SOURCE_FACTOR},
    id::{ConnId, Key},
    message::{InboundMessage, OutboundMessage},
    reason::{CloseReason, Refusal},
    time::Time,
};

impl Endpoint {
    /// Handles an open, join or meet of a named key, unless the connection or its source has made too many attempts, or the key was taken over
    /// too often.
    ///
    /// Every open or meet is an attempt, of a free key as well: a client that opens and closes one key after the other finds those that are
    /// taken. A join is an attempt if it is not allowed, or the key is unknown, also if it waits.
    pub(super) fn attempt_key(
        &mut self,
        now: Time,
        id: ConnId,
        key: Key,
        message: InboundMessage,
        outputs: &mut Outputs,
    ) -> Vec<(ConnId, OutboundMessage)> {
        let has_role = self.hub.role(id).is_some();
        if !has_role && self.exceeds_takeovers(now, &key, &message) {
            return self.refuse_throttled(now, id, Refusal::TooManyAttempts { key }, outputs);
        }
        let (Some((per_conn, per_source)), Some(conn), false) = (self.attempt_limits(), self.conns.get(id), has_role)
        else {
            return self.hub.handle(now, id, message);
        };
        let source = conn.source;
        if self.is_throttled(now, id) {
            return self.refuse_throttled(now, id, Refusal::TooManyAttempts { key }, outputs);
        }
        let may_open = matches!(message, InboundMessage::Open { .. } | InboundMessage::Meet { .. });
        let messages = self.hub.handle(now, id, message);
        if may_open || messages.iter().any(|(_, message)| is_failed_attempt(message)) {
            self.key_attempts.spend(source, per_source, now);
            if let Some(conn) = self.conns.get_mut(id) {
                conn.attempts.spend(per_conn, now);
            }
        }
        messages
    }

    /// Whether a connection or its source has made too many attempts.
    pub(super) fn is_throttled(&self, now: Time, id: ConnId) -> bool {
        let (Some((per_conn, per_source)), Some(conn)) = (self.attempt_limits(), self.conns.get(id)) else {
            return false;
        };
        conn.attempts.is_exhausted(per_conn, now) || self.key_attempts.is_exhausted(conn.source, per_source, now)
    }

    /// Returns the attempts per minute of a connection and of a source; `None` without a limit.
    fn attempt_limits(&self) -> Option<(u32, u32)> {
        let per_conn = self.config.key_attempts_per_minute?.get();
        Some((per_conn, per_conn.saturating_mul(SOURCE_FACTOR)))
    }
}

/// Whether the reply to a join makes it an attempt: it did not become a joiner for a reason that is not the number of joiners.
fn is_failed_attempt(message: &OutboundMessage) -> bool {
    matches!(
        message,
        OutboundMessage::Waiting { .. }
            | OutboundMessage::Refused(Refusal::UnknownKey { .. } | Refusal::NotAllowed { .. })
            | OutboundMessage::Close(CloseReason::UnknownKey | CloseReason::NotAllowed)
    )
}
