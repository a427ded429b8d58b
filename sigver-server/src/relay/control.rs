//! The relay's part of events and control: what it reports to the embedder, and what that asks it to do.

use std::time::SystemTime;

use sigver_core::{Activity, CloseReason, ConnId, Key, Time};

use crate::{
    conn::event::Control,
    events::{ConnectionId, ConnectionInfo, ServerEvent},
    relay::{Relay, find},
};

impl Relay {
    /// Reports what the calls of the endpoint since the last report have done with connections and roles.
    pub(super) fn report_activity(&mut self) {
        while let Some((id, activity)) = self.endpoint.poll_activity() {
            if let Some(event) = self.event_of(id, activity) {
                self.reporter.report(event);
            }
        }
    }

    fn event_of(&self, id: ConnId, activity: Activity) -> Option<ServerEvent> {
        let connection = self.connection(id)?;
        Some(match activity {
            Activity::Opened { key } => ServerEvent::Opened { connection, key },
            Activity::Joined { opener, index } => ServerEvent::Joined {
                connection,
                opener: self.connection(opener)?,
                index,
            },
            Activity::Left => ServerEvent::Left { connection },
            Activity::Refused(code) => ServerEvent::Refused { connection, code },
            Activity::Closed(end) => ServerEvent::Closed { connection, end },
            // `Activity` may get variants that nobody has asked for.
            _ => return None,
        })
    }

    fn connection(&self, id: ConnId) -> Option<ConnectionId> {
        let peer = find(&self.peers, id).or_else(|| self.closing.get(&id))?;
        Some(ConnectionId::new(peer.serial))
    }

    /// Carries out a request. The thread that has asked waits for the answer.
    pub(super) fn control(&mut self, request: Control, now: Time) {
        let (outputs, answer) = match request {
            Control::Close { id, answer } => {
                let outputs = self.endpoint.close(now, id, CloseReason::ClosedByOperator);
                (outputs, answer)
            }
            Control::Kick { id, answer } => (self.endpoint.kick(now, id), answer),
            Control::CloseKey { key, answer } => {
                // No client has a key that is not valid.
                let Ok(key) = Key::new(&key, &self.endpoint.config().limits) else {
                    let _ = answer.try_send(false);
                    return;
                };
                let Some(opener) = self.endpoint.opener(&key) else {
                    let _ = answer.try_send(self.endpoint.end_reservation(&key));
                    return;
                };
                let outputs = self.endpoint.close(now, opener, CloseReason::ClosedByOperator);
                (outputs, answer)
            }
            Control::List { answer } => {
                let _ = answer.try_send(self.list());
                return;
            }
        };
        let has_effect = !outputs.is_empty();
        self.carry_out(None, outputs);
        let _ = answer.try_send(has_effect);
    }

    fn list(&self) -> Vec<ConnectionInfo> {
        let open = self.peers.iter().flatten();
        open.filter(|peer| self.endpoint.is_open(peer.id()))
            .map(|peer| {
                let (id, admitted) = (peer.id(), peer.admitted());
                ConnectionInfo {
                    connection: ConnectionId::new(peer.serial),
                    identity: admitted.and_then(|admitted| admitted.identity.clone()),
                    client: peer.client(),
                    since: admitted.map_or(SystemTime::UNIX_EPOCH, |admitted| admitted.since),
                    role: self.endpoint.role(id),
                    key: self.endpoint.key(id).cloned(),
                }
            })
            .collect()
    }
}
