//! The naive endpoint's grace for joins of the plain dialect, and the late refusal of what is throttled.

use core::time::Duration;

use sigver_core::Dialect;

use crate::model::{self, Sent};

use super::{
    Client, EndpointModel, Outputs, State,
    endpoint_queue::{Blocked, Reason},
};

impl Client {
    pub(super) fn refused_at(&self) -> Option<Duration> {
        match self.blocked.as_ref()?.reason {
            Reason::Throttled { at, .. } => at,
            Reason::NoRoom { .. } | Reason::UnknownKey => None,
        }
    }
}

impl EndpointModel {
    fn stop(&mut self, who: usize, reason: Reason, outputs: &mut Outputs) {
        let events = Vec::new();
        self.client(who).blocked = Some(Blocked { reason, events });
        outputs.push((who, "stop reading".to_owned()));
    }

    pub(super) fn begin_grace(&mut self, who: usize, outputs: &mut Outputs) {
        if self.client(who).dialect == Dialect::Plain {
            self.stop(who, Reason::UnknownKey, outputs);
        }
    }

    pub(super) fn end_grace(&mut self, who: usize) {
        let blocked = self.client(who).blocked.as_ref();
        if blocked.is_some_and(|blocked| matches!(blocked.reason, Reason::UnknownKey)) {
            self.released.push_back(who);
        }
    }

    pub(super) fn throttle(&mut self, who: usize, key: usize, outputs: &mut Outputs) -> Vec<(usize, Sent)> {
        let grace = self.config.limits.plain_join_grace;
        if grace.is_zero() || self.client(who).dialect == Dialect::V1 {
            return self.hub.play(model::Step::Throttle { who, key });
        }
        self.hub.meet_deadline(who);
        self.scheduled += 1;
        let (at, scheduled) = (Some(self.now + grace), self.scheduled);
        self.stop(who, Reason::Throttled { key, at, scheduled }, outputs);
        Vec::new()
    }

    pub(super) fn refuse_due(&mut self, outputs: &mut Outputs) {
        let now = self.now;
        let open = self.clients.iter().filter(|(_, client)| client.state == State::Open);
        let due = open.filter_map(|(who, client)| match client.blocked.as_ref()?.reason {
            Reason::Throttled { key, at, scheduled } => Some((at.filter(|at| *at <= now)?, scheduled, *who, key)),
            Reason::NoRoom { .. } | Reason::UnknownKey => None,
        });
        let mut due: Vec<_> = due.collect();
        due.sort_unstable();
        for (_, _, who, key) in due {
            let sent = self.hub.play(model::Step::Throttle { who, key });
            self.deliver(Some(who), sent, outputs);
        }
    }
}
