//! Reports what connections do with their roles, if an embedder follows it.

use crate::{
    endpoint::{Endpoint, activity::Activity},
    hub::Role,
    id::ConnId,
    message::OutboundMessage,
    reason::RoleEnd,
};

impl Endpoint {
    /// Returns the next activity of a connection, in the order in which they happened; `None` if there is none. With
    /// [`EndpointConfig::report_activity`](crate::EndpointConfig::report_activity), call it until it returns `None` after each call of the
    /// endpoint: what is not polled stays in memory. Without, it always returns `None`.
    ///
    /// ```
    /// # use sigver_core::{Activity, ConnEnd, Dialect, Endpoint, EndpointConfig, Input, Time};
    /// let mut config = EndpointConfig::default();
    /// config.report_activity = true;
    /// let mut endpoint = Endpoint::new(config, || None);
    /// let (now, ip) = (Time::ZERO, "192.0.2.1".parse()?);
    /// let alice = endpoint.connect(now, Dialect::Plain, ip)?;
    /// let _ = endpoint.handle(now, alice, Input::Text(r#"{"type":"open","key":"tea"}"#));
    /// let _ = endpoint.handle(now, alice, Input::Disconnected);
    ///
    /// assert!(matches!(endpoint.poll_activity(), Some((id, Activity::Opened { key })) if id == alice && key.as_str() == "tea"));
    /// assert_eq!(endpoint.poll_activity(), Some((alice, Activity::Closed(ConnEnd::Lost))));
    /// assert_eq!(endpoint.poll_activity(), None);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn poll_activity(&mut self) -> Option<(ConnId, Activity)> {
        self.activity.pop()
    }

    /// Records what a message of the hub reports, or implies, about its recipient. `next` is the message that follows.
    pub(super) fn record_activity(
        &mut self,
        to: ConnId,
        message: &OutboundMessage,
        next: Option<&(ConnId, OutboundMessage)>,
    ) {
        if !self.activity.is_reported() {
            return;
        }
        match message {
            OutboundMessage::Opened { key, .. } => self.activity.push(to, || Activity::Opened { key: key.clone() }),
            OutboundMessage::Joined { index, .. } => {
                // The notice for its opener follows. The opener may have been closed since as a slow consumer: the hub does not know it then.
                if let Some((opener, OutboundMessage::PeerJoined { .. })) = next {
                    let (opener, index) = (*opener, *index);
                    self.activity.push(to, || Activity::Joined { opener, index });
                }
            }
            OutboundMessage::Reopened { .. } => {
                if let Some((opener, index)) = self.hub.place(to) {
                    self.activity.push(to, || Activity::Joined { opener, index });
                }
            }
            OutboundMessage::Refused(refusal) => self.activity.push(to, || Activity::Refused(refusal.name())),
            OutboundMessage::RoleEnded(RoleEnd::OpenerLeft | RoleEnd::Kicked | RoleEnd::TakenOver) => {
                self.activity.push(to, || Activity::Left);
            }
            // Its close follows.
            OutboundMessage::RoleEnded(RoleEnd::TokenExpired)
            | OutboundMessage::Close(_)
            | OutboundMessage::Waiting { .. }
            | OutboundMessage::Data { .. }
            | OutboundMessage::PeerJoined { .. }
            | OutboundMessage::PeerLeft { .. }
            | OutboundMessage::Pong => {}
        }
    }

    /// Records that a connection has ended its role itself. The hub has no message for that.
    pub(super) fn record_resignation(&mut self, id: ConnId, before: Option<Role>) {
        let had_role = matches!(before, Some(Role::Opener | Role::Joiner));
        if had_role && self.conns.get(id).is_some() && self.hub.role(id).is_none() {
            self.activity.push(id, || Activity::Left);
        }
    }
}
