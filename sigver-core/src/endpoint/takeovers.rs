//! The limit on takeovers of a key. Each notifies all joiners of the key, and connections that know the token of each other could take the key
//! over in turns without end.

use crate::{
    endpoint::Endpoint,
    id::{ConnId, Key},
    message::{InboundMessage, OutboundMessage},
    reason::RoleEnd,
    time::Time,
};

/// How often a key may be taken over per minute. All may be at once.
const PER_MINUTE: u32 = 30;

impl Endpoint {
    /// Whether this message might take over a key that was taken over too often.
    pub(super) fn exceeds_takeovers(&self, now: Time, key: &Key, message: &InboundMessage) -> bool {
        let (InboundMessage::Open { token, .. } | InboundMessage::Meet { token, .. }) = message else {
            return false;
        };
        let opener = token.as_ref().and_then(|_| self.conns.get(self.opener(key)?));
        opener.is_some_and(|opener| opener.takeovers.is_exhausted(PER_MINUTE, now))
    }

    /// Passes the number of takeovers on to the connection that has taken a key over, if one has.
    pub(super) fn record_takeover(&mut self, now: Time, from: ConnId, caused: &[(ConnId, OutboundMessage)]) {
        let Some((previous, OutboundMessage::RoleEnded(RoleEnd::TakenOver))) = caused.first() else {
            return;
        };
        let Some(mut takeovers) = self.conns.get(*previous).map(|conn| conn.takeovers) else {
            return;
        };
        takeovers.spend(PER_MINUTE, now);
        if let Some(conn) = self.conns.get_mut(from) {
            conn.takeovers = takeovers;
        }
    }
}
