//! The naive endpoint's limit on attempts at keys, the grace for joins of the plain dialect, and the late refusal of what is throttled.

use core::time::Duration;

use sigver_core::{CloseReason, Dialect};

use crate::model::{self, Sent};

use super::{
    Client, EndpointModel, Outputs, State,
    endpoint_queue::{Blocked, Reason},
};

const MINUTE: Duration = Duration::from_secs(60);

/// A key may be taken over so often on average, and for a minute's worth at once.
const TAKEOVER: Duration = Duration::from_secs(2);

impl Client {
    pub(super) fn refused_at(&self) -> Option<Duration> {
        match self.blocked.as_ref()?.reason {
            Reason::Throttled { at, .. } => at,
            Reason::NoRoom { .. } | Reason::UnknownKey => None,
        }
    }
}

impl EndpointModel {
    /// Handles a request for a named key, if an attempt is left.
    pub(super) fn attempt(&mut self, who: usize, step: model::Step, outputs: &mut Outputs) -> Vec<(usize, Sent)> {
        if self.exceeds_takeovers(who, step) {
            let (model::Step::Open { key, .. } | model::Step::Meet { key, .. }) = step else {
                panic!("{step:?} takes over no key");
            };
            return self.throttle(who, key, outputs);
        }
        let (allowed, source) = (self.config.key_attempts_per_minute, self.client(who).source);
        let Some(allowed) = allowed.filter(|_| self.role(who).is_none()) else {
            return self.hub.play(step);
        };
        let (of_conn, of_source) = (MINUTE / allowed.get(), MINUTE / allowed.get().saturating_mul(10));
        if self.is_throttled(who) {
            let (model::Step::Open { key, .. } | model::Step::Join { key, .. } | model::Step::Meet { key, .. }) = step
            else {
                panic!("{step:?} names no key");
            };
            return self.throttle(who, key, outputs);
        }
        let sent = self.hub.play(step);
        let is_unknown = |sent: &Sent| match sent {
            Sent::Waiting { .. } => true,
            Sent::Refused { code, .. } => *code == "unknown-key",
            Sent::Close(reason) => *reason == CloseReason::UnknownKey,
            _ => false,
        };
        if matches!(step, model::Step::Open { .. } | model::Step::Meet { .. })
            || sent.iter().any(|(_, sent)| is_unknown(sent))
        {
            self.client(who).attempts.level += of_conn;
            self.attempts.entry(source).or_default().level += of_source;
        }
        sent
    }

    fn exceeds_takeovers(&mut self, who: usize, step: model::Step) -> bool {
        let (model::Step::Open { key, tokens, .. } | model::Step::Meet { key, tokens, .. }) = step else {
            return false;
        };
        let opener = self.hub.opener_of(key).filter(|_| tokens.shown.is_some());
        let Some(opener) = opener.filter(|_| self.role(who).is_none()) else {
            return false;
        };
        let now = self.now;
        self.client(opener).takeovers.excess(now, Duration::ZERO) + TAKEOVER > MINUTE
    }

    pub(super) fn record_takeover(&mut self, who: usize, previous: usize) {
        let now = self.now;
        let mut takeovers = self.client(previous).takeovers;
        takeovers.excess(now, Duration::ZERO);
        takeovers.level += TAKEOVER;
        self.client(who).takeovers = takeovers;
    }

    /// Whether the client or its source has less than one attempt left.
    pub(super) fn is_throttled(&mut self, who: usize) -> bool {
        let Some(allowed) = self.config.key_attempts_per_minute else {
            return false;
        };
        let (now, source) = (self.now, self.client(who).source);
        let (of_conn, of_source) = (MINUTE / allowed.get(), MINUTE / allowed.get().saturating_mul(10));
        let conn_level = self.client(who).attempts.excess(now, Duration::ZERO);
        let source_level = self.attempts.entry(source).or_default().excess(now, Duration::ZERO);
        conn_level + of_conn > MINUTE || source_level + of_source > MINUTE
    }

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

    fn throttle(&mut self, who: usize, key: usize, outputs: &mut Outputs) -> Vec<(usize, Sent)> {
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
