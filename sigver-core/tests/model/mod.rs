//! A naive hub, written from the protocol page and not from the source: one list of all connections, searched from the front.
//!
//! The property tests and the exhaustive tests compare the real hub with it. Connections, keys, names of peers and payloads are numbers here.

use core::{num::NonZeroU32, time::Duration};

use sigver_core::{
    Addressee, CloseReason, ConnectError, Dialect, Disconnect, Limits, PayloadKind, Profile, RoleEnd, RoleLifetime,
    Stats,
};

mod step;

pub(crate) use step::{Detail, Sent, Step, Tokens};

/// The profile of plain connections.
pub(crate) const PLAIN: Profile = Dialect::Plain.profile();

/// The profile of `sigver.v1` connections.
pub(crate) const V1: Profile = Dialect::V1.profile();

/// Profiles that neither dialect has, but an embedder may choose.
pub(crate) const SINGLE_USE_ANY_DATA: Profile = Profile {
    role_lifetime: RoleLifetime::SingleUse,
    accepts: PayloadKind::Any,
};

pub(crate) const REUSABLE_OBJECTS_ONLY: Profile = Profile {
    role_lifetime: RoleLifetime::Reusable,
    accepts: PayloadKind::Object,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    /// `until` is the role deadline, if there is one.
    Idle { until: Option<Duration> },
    /// `announced` is the number of joiners so far.
    Opener {
        key: usize,
        id: Option<usize>,
        token: Option<usize>,
        /// Whether it has opened the key, and not met.
        opened: bool,
        announced: u32,
    },
    Joiner {
        opener: usize,
        index: u32,
        id: Option<usize>,
    },
    /// `arrival` rises with each waiter.
    Waiting {
        key: usize,
        id: Option<usize>,
        arrival: usize,
        until: Option<Duration>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Client {
    pub(crate) name: usize,
    /// Whether it stays open when its role ends or a request is refused.
    pub(crate) reusable: bool,
    accepts: PayloadKind,
    pub(crate) role: Role,
    /// The previous role. The protocol does not depend on it.
    pub(crate) former: Option<Role>,
    /// The number of connections that ended before this one; `None` while it is open.
    pub(crate) ended: Option<usize>,
}

/// A key that is kept for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Reservation {
    until: Duration,
    key: usize,
    pub(crate) token: usize,
}

/// The clients, the reservations, and whether the server was shut down.
pub(crate) type State = (Vec<Client>, Vec<Reservation>, bool);

/// The state that the protocol requires of a server.
#[derive(Clone)]
pub(crate) struct Model {
    limits: Limits,
    clients: Vec<Client>,
    /// The number of waiters so far.
    arrivals: usize,
    /// In the order in which they end.
    reservations: Vec<Reservation>,
    now: Duration,
    shut_down: bool,
    relayed: u64,
    dropped: u64,
    refused: u64,
    closed: u64,
}

impl Model {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            clients: Vec::new(),
            arrivals: 0,
            reservations: Vec::new(),
            now: Duration::ZERO,
            shut_down: false,
            relayed: 0,
            dropped: 0,
            refused: 0,
            closed: 0,
        }
    }

    /// Plays a step. If one step ends many connections, they are notified in the order in which they connected.
    pub(crate) fn play(&mut self, step: Step) -> Vec<(usize, Sent)> {
        if let Some((who, key)) = step.sender().and_then(|who| Some((who, self.unnoticed_wait(who)?))) {
            self.make_idle(who);
            return self.refuse(who, "unknown-key", Detail::Key(key));
        }
        match step {
            Step::Connect { who, profile } => self.connect(who, profile, Duration::ZERO),
            Step::Open { who, key, id, tokens } => self.open(who, key, id, tokens, true),
            Step::Join { who, key, id, wait } => self.join(who, key, id, wait),
            Step::NotAllowed { who, key } => {
                let detail = key.map_or(Detail::Nothing, Detail::Key);
                self.refuse_request(who, "not-allowed", detail)
            }
            Step::Meet {
                who,
                key,
                id,
                tokens,
                allowed,
            } => {
                let is_held = self.opener_of(key).is_some() || self.reservation_of(key).is_some();
                let may = match (self.opener_of(key), tokens.shown) {
                    _ if !allowed.opener && !allowed.joiner => false,
                    (Some(_), None) => allowed.joiner,
                    // Refused with `unknown-key`.
                    (None, None) if is_held => true,
                    (None, _) if !is_held => allowed.opener,
                    (_, shown) => allowed.opener || shown != self.token_of(key),
                };
                if !may {
                    return self.refuse_request(who, "not-allowed", Detail::Key(key));
                }
                if is_held && tokens.shown.is_none() {
                    self.join(who, key, id, Duration::ZERO)
                } else {
                    self.open(who, key, id, tokens, false)
                }
            }
            Step::Data { who, to, kind, token } => self.data(who, to, kind, token),
            Step::UnknownControl { who, to, kind, token } => match self.role(who) {
                Some(Role::Idle { .. }) => self.close(who, CloseReason::UnknownType),
                _ => self.data(who, to, kind, token),
            },
            Step::Kick { who, index } => self.kick(who, index),
            Step::Leave { who } => self.resign(who, |role| matches!(role, Role::Joiner { .. } | Role::Waiting { .. })),
            Step::CloseKey { who } => self.resign(who, |role| matches!(role, Role::Opener { .. })),
            Step::Throttle { who, key } => self.refuse_request(who, "too-many-attempts", Detail::Key(key)),
            Step::Ping { who } => self.role(who).map(|_| (who, Sent::Pong)).into_iter().collect(),
            Step::Close { who, reason } => self.close(who, reason),
            Step::Disconnect { who, how } => self.end(who, how == Disconnect::Lost),
            Step::Wait { time } => {
                self.now += time;
                Vec::new()
            }
            Step::Timeout => self.timeout(),
            Step::Shutdown => {
                self.shut_down = true;
                self.reservations.clear();
                let open: Vec<usize> = self.connected().map(|client| client.name).collect();
                open.into_iter()
                    .map(|who| self.close_silently(who, CloseReason::ShuttingDown))
                    .collect()
            }
        }
    }

    /// Returns the key that a client waits for that knows nothing of waiting.
    fn unnoticed_wait(&self, who: usize) -> Option<usize> {
        match self.role(who)? {
            Role::Waiting { key, .. } if !self.find(who).reusable => Some(key),
            _ => None,
        }
    }

    /// Returns the token of a key's opener, or that for which the key is reserved.
    pub(crate) fn token_of(&self, key: usize) -> Option<usize> {
        let opener = self.opener_of(key).and_then(|opener| self.find(opener).token());
        opener.or_else(|| self.reservation_of(key).map(|reservation| reservation.token))
    }

    /// Refuses a request for a role.
    fn refuse_request(&mut self, who: usize, code: &'static str, detail: Detail) -> Vec<(usize, Sent)> {
        match self.request_role(who) {
            Some(true) => self.refuse(who, code, detail),
            Some(false) => self.refuse(who, "has-role", Detail::Nothing),
            None => Vec::new(),
        }
    }

    /// A client that has asked for a role is not closed for the lack of one.
    #[allow(dead_code, reason = "only an endpoint lets clients wait")]
    pub(crate) fn meet_deadline(&mut self, who: usize) {
        let client = self.clients.iter_mut().find(|client| client.name == who);
        if let Some(Role::Idle { until }) = client.map(|client| &mut client.role) {
            *until = None;
        }
    }

    /// Restarts the role deadlines and the reservations that have passed, and the waits of clients that have one role only.
    #[allow(dead_code, reason = "only an endpoint restarts them")]
    pub(crate) fn restart_deadlines(&mut self) {
        let now = self.now;
        let restarted = self.limits.role_deadline.map(|allowed| now + allowed);
        let grace = now + self.limits.plain_join_grace;
        for client in &mut self.clients {
            match &mut client.role {
                Role::Idle { until } if until.is_some_and(|until| until <= now) => *until = restarted,
                Role::Waiting { until, .. } if !client.reusable && until.is_some_and(|until| until <= now) => {
                    *until = Some(grace);
                }
                _ => {}
            }
        }
        let restarted = now.saturating_add(self.limits.reserve);
        for reservation in self.reservations.iter_mut().filter(|it| it.until <= now) {
            reservation.until = restarted;
        }
        self.reservations.sort_by_key(|reservation| reservation.until);
    }

    /// Returns the next role deadline, end of a wait or end of a reservation.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        let reserved = self.reservations.iter().map(|reservation| reservation.until);
        self.connected().filter_map(Client::deadline).chain(reserved).min()
    }

    #[allow(dead_code, reason = "only the generated runs wait for timeouts")]
    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    pub(crate) fn stats(&self) -> Stats {
        let count = |is: fn(&Role) -> bool| self.connected().filter(|c| is(&c.role)).count() as u32;
        let mut stats = Stats::default();
        stats.connections = count(|_| true);
        stats.keys = count(|role| matches!(role, Role::Opener { .. }));
        stats.joiners = count(|role| matches!(role, Role::Joiner { .. }));
        stats.reserved = self.reservations.len() as u32;
        stats.waiting = count(|role| matches!(role, Role::Waiting { .. }));
        stats.relayed = self.relayed;
        stats.dropped = self.dropped;
        stats.refused = self.refused;
        stats.closed = self.closed;
        stats
    }

    /// Returns all connections, open or ended.
    pub(crate) fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// Returns the open connections.
    pub(crate) fn connected(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter(|client| client.ended.is_none())
    }

    /// Returns everything that later steps depend on, with the remaining time to each deadline instead of the deadline, the order of waiters
    /// instead of the number of their arrival, and the history of ended connections and former roles.
    pub(crate) fn state(&self) -> State {
        let mut clients = self.clients.clone();
        for client in &mut clients {
            let left = client.deadline().map(|until| until.saturating_sub(self.now));
            let place = self
                .waiters_of(client.role)
                .position(|waiter| waiter.name == client.name);
            match &mut client.role {
                Role::Idle { until } => *until = left.filter(|_| client.ended.is_none()),
                Role::Waiting { until, arrival, .. } => {
                    *until = left.filter(|_| client.ended.is_none());
                    *arrival = place.unwrap_or(0);
                }
                Role::Opener { .. } | Role::Joiner { .. } => {}
            }
        }
        let mut reservations = self.reservations.clone();
        for reservation in &mut reservations {
            reservation.until = reservation.until.saturating_sub(self.now);
        }
        (clients, reservations, self.shut_down)
    }

    /// Connects a client that may send only after a pause.
    pub(crate) fn connect(&mut self, name: usize, profile: Profile, pause: Duration) -> Vec<(usize, Sent)> {
        if self.shut_down {
            return vec![(name, Sent::Rejected(ConnectError::ShuttingDown))];
        }
        let is_full = |limit: NonZeroU32| self.stats().connections >= limit.get();
        if self.limits.connections.is_some_and(is_full) {
            return vec![(name, Sent::Rejected(ConnectError::TooManyConnections))];
        }
        let allowed = self.limits.role_deadline;
        let until = allowed.and_then(|allowed| (self.now + pause).checked_add(allowed));
        self.clients.push(Client {
            name,
            reusable: profile.role_lifetime == RoleLifetime::Reusable,
            accepts: profile.accepts,
            role: Role::Idle { until },
            former: None,
            ended: None,
        });
        Vec::new()
    }

    fn open(&mut self, who: usize, key: usize, id: Option<usize>, tokens: Tokens, opened: bool) -> Vec<(usize, Sent)> {
        let may = self.request_role(who);
        if let (Some(true), Some(reservation)) = (may, self.reservation_of(key)) {
            if tokens.shown != Some(reservation.token) {
                return self.refuse(who, "key-taken", Detail::Key(key));
            }
            self.reservations.retain(|other| other.key != key);
        }
        match (may, self.opener_of(key)) {
            (None, _) => Vec::new(),
            (Some(false), _) => self.refuse(who, "has-role", Detail::Nothing),
            (Some(true), Some(opener)) => {
                let is_right = tokens.shown.is_some() && tokens.shown == self.find(opener).token();
                if is_right {
                    self.take_over(who, opener, id, tokens.new, opened)
                } else {
                    self.refuse(who, "key-taken", Detail::Key(key))
                }
            }
            (Some(true), None) => {
                let waiters: Vec<Client> = self.waiters_for(key).copied().collect();
                let client = self.find_mut(who);
                // A role for life cannot be taken over.
                let token = tokens.new.filter(|_| client.reusable);
                client.role = Role::Opener {
                    key,
                    id,
                    token,
                    opened,
                    announced: 0,
                };
                let mut sent = vec![(who, Sent::Opened { key, token })];
                for waiter in waiters {
                    if let Role::Waiting { id, .. } = waiter.role {
                        self.make_idle(waiter.name);
                        sent.extend(self.enter(waiter.name, who, id));
                    }
                }
                sent
            }
        }
    }

    /// Moves the role of `previous` to `who`. Joiners that can be told keep their indexes; the others end.
    fn take_over(
        &mut self,
        who: usize,
        previous: usize,
        id: Option<usize>,
        new: Option<usize>,
        opened: bool,
    ) -> Vec<(usize, Sent)> {
        let Role::Opener { key, announced, .. } = self.find(previous).role else {
            panic!("{previous} is no opener");
        };
        let token = new.filter(|_| self.find(who).reusable);
        let joiners = self.joiners_of(previous);
        self.make_idle(previous);
        self.find_mut(who).role = Role::Opener {
            key,
            id,
            token,
            opened,
            announced,
        };
        let mut sent = vec![(previous, Sent::RoleEnded(RoleEnd::TakenOver))];
        let mut present = Vec::new();
        for (_, joiner) in joiners {
            let client = self.find_mut(joiner);
            match &mut client.role {
                Role::Joiner { opener, index, id: its } if client.reusable => {
                    *opener = who;
                    present.push((
                        who,
                        Sent::Present {
                            index: *index,
                            id: *its,
                        },
                    ));
                    sent.push((joiner, Sent::Reopened { id }));
                }
                _ => sent.push(self.end_role(joiner, RoleEnd::OpenerLeft)),
            }
        }
        sent.push((who, Sent::Opened { key, token }));
        sent.extend(present);
        sent
    }

    fn join(&mut self, who: usize, key: usize, id: Option<usize>, wait: Duration) -> Vec<(usize, Sent)> {
        let most = self.limits.joiners_per_key as usize;
        match (self.request_role(who), self.opener_of(key)) {
            (None, _) => Vec::new(),
            (Some(false), _) => self.refuse(who, "has-role", Detail::Nothing),
            (Some(true), None) if wait.is_zero() => self.refuse(who, "unknown-key", Detail::Key(key)),
            (Some(true), None) if self.waiters_for(key).count() >= most => {
                self.refuse(who, "too-many-joiners", Detail::Key(key))
            }
            (Some(true), None) => {
                let (arrival, until) = (self.arrivals, self.now.checked_add(wait));
                self.arrivals += 1;
                self.find_mut(who).role = Role::Waiting {
                    key,
                    id,
                    arrival,
                    until,
                };
                vec![(who, Sent::Waiting { key, wait })]
            }
            (Some(true), Some(opener)) if self.joiners_of(opener).len() >= most => {
                self.refuse(who, "too-many-joiners", Detail::Key(key))
            }
            (Some(true), Some(opener)) => self.enter(who, opener, id),
        }
    }

    /// Makes `who` the next joiner of `opener`.
    fn enter(&mut self, who: usize, opener: usize, id: Option<usize>) -> Vec<(usize, Sent)> {
        let Role::Opener {
            id: its_id, announced, ..
        } = &mut self.find_mut(opener).role
        else {
            panic!("{opener} is no opener");
        };
        let (index, its_id) = (*announced, *its_id);
        *announced += 1;
        self.find_mut(who).role = Role::Joiner { opener, index, id };
        vec![
            (who, Sent::Joined { index, id: its_id }),
            (opener, Sent::PeerJoined { index, id }),
        ]
    }

    /// Returns whether `who` can take a role; `None` if it has ended. Removes its deadline.
    fn request_role(&mut self, who: usize) -> Option<bool> {
        let is_free = matches!(self.role(who)?, Role::Idle { .. });
        if is_free {
            self.find_mut(who).role = Role::Idle { until: None };
        }
        Some(is_free)
    }

    fn data(&mut self, who: usize, to: Addressee, kind: PayloadKind, token: usize) -> Vec<(usize, Sent)> {
        let (to, from, detail) = match (self.role(who), to) {
            (None, _) => return Vec::new(),
            (Some(Role::Idle { .. } | Role::Waiting { .. }), _) => return self.refuse(who, "no-role", Detail::Nothing),
            (Some(Role::Joiner { opener, index, .. }), _) => (opener, Some(index), Detail::Nothing),
            (Some(Role::Opener { .. }), Addressee::Unnamed) => {
                return self.refuse(who, "no-index", Detail::Nothing);
            }
            (Some(Role::Opener { .. }), Addressee::Malformed) => {
                return self.close(who, CloseReason::IndexMalformed);
            }
            (Some(Role::Opener { .. }), Addressee::OutOfRange) => {
                self.dropped += 1;
                return self.refuse(who, "unknown-index", Detail::Nothing);
            }
            (Some(Role::Opener { .. }), Addressee::Index(named)) => {
                let detail = Detail::Index(named.get());
                let Some(joiner) = self.joiner(who, named.get()) else {
                    self.dropped += 1;
                    return self.refuse(who, "unknown-index", detail);
                };
                (joiner, None, detail)
            }
        };
        if kind == PayloadKind::Any && self.find(to).accepts == PayloadKind::Object {
            return self.refuse(who, "not-an-object", detail);
        }
        self.relayed += 1;
        vec![(to, Sent::Data { from, token })]
    }

    fn kick(&mut self, who: usize, index: u32) -> Vec<(usize, Sent)> {
        match (self.role(who), self.joiner(who, index)) {
            (None, _) => Vec::new(),
            (Some(Role::Idle { .. } | Role::Waiting { .. }), _) => self.refuse(who, "no-role", Detail::Nothing),
            (Some(Role::Joiner { .. }), _) => self.refuse(who, "wrong-role", Detail::Nothing),
            (Some(Role::Opener { .. }), None) if index == u32::MAX => {
                self.refuse(who, "unknown-index", Detail::Nothing)
            }
            (Some(Role::Opener { .. }), None) => self.refuse(who, "unknown-index", Detail::Index(index)),
            (Some(Role::Opener { .. }), Some(joiner)) => {
                vec![self.end_role(joiner, RoleEnd::Kicked), (who, Sent::PeerLeft { index })]
            }
        }
    }

    /// Ends the role of `who` at its own request, if the role is the right one and `who` may have another.
    fn resign(&mut self, who: usize, is_right: fn(Role) -> bool) -> Vec<(usize, Sent)> {
        match self.role(who) {
            None => Vec::new(),
            Some(Role::Idle { .. }) => self.refuse(who, "no-role", Detail::Nothing),
            Some(role @ Role::Waiting { .. }) if !is_right(role) => self.refuse(who, "no-role", Detail::Nothing),
            Some(role) if is_right(role) && self.find(who).reusable => {
                self.make_idle(who);
                self.after(who, role)
            }
            Some(_) => self.refuse(who, "wrong-role", Detail::Nothing),
        }
    }

    fn timeout(&mut self) -> Vec<(usize, Sent)> {
        let late = |client: &&Client| client.deadline().is_some_and(|until| until <= self.now);
        let late: Vec<Client> = self.connected().filter(late).copied().collect();
        let now = self.now;
        self.reservations.retain(|reservation| reservation.until > now);
        late.into_iter()
            .flat_map(|client| match client.role {
                Role::Waiting { key, .. } => {
                    self.make_idle(client.name);
                    self.refuse(client.name, "unknown-key", Detail::Key(key))
                }
                Role::Idle { .. } | Role::Opener { .. } | Role::Joiner { .. } => {
                    vec![self.close_silently(client.name, CloseReason::NoRoleInTime)]
                }
            })
            .collect()
    }

    /// Refuses a request. Closes `who` if it has one role only and the refusal has a close reason.
    fn refuse(&mut self, who: usize, code: &'static str, detail: Detail) -> Vec<(usize, Sent)> {
        self.refused += 1;
        let reason = match code {
            "key-taken" => Some(CloseReason::KeyTaken),
            "unknown-key" => Some(CloseReason::UnknownKey),
            "too-many-joiners" => Some(CloseReason::TooManyJoiners),
            "too-many-attempts" => Some(CloseReason::TooManyAttempts),
            "not-allowed" => Some(CloseReason::NotAllowed),
            "has-role" => Some(CloseReason::HasRole),
            "no-role" => Some(CloseReason::NoRole),
            "no-index" => Some(CloseReason::NoIndex),
            "not-an-object" => Some(CloseReason::NotAnObject),
            _ => None,
        };
        match reason {
            Some(reason) if !self.find(who).reusable => self.close(who, reason),
            _ => vec![(who, Sent::Refused { code, detail })],
        }
    }

    fn close(&mut self, who: usize, reason: CloseReason) -> Vec<(usize, Sent)> {
        let Some(role) = self.role(who) else {
            return Vec::new();
        };
        let mut sent = Vec::new();
        let has_role = matches!(role, Role::Opener { .. } | Role::Joiner { .. });
        if reason == CloseReason::TokenExpired && has_role && self.find(who).reusable {
            sent.push((who, Sent::RoleEnded(RoleEnd::TokenExpired)));
        }
        sent.push(self.close_silently(who, reason));
        if matches!(reason, CloseReason::TooSlow | CloseReason::Silent) {
            self.reserve(role);
        }
        // `who` has ended. Its peers are notified next.
        sent.extend(self.after(who, role));
        sent
    }

    fn end(&mut self, who: usize, is_lost: bool) -> Vec<(usize, Sent)> {
        let Some(role) = self.role(who) else {
            return Vec::new();
        };
        self.mark_ended(who);
        if is_lost {
            self.reserve(role);
        }
        self.after(who, role)
    }

    /// Notifies the peers of `who` that its role has ended.
    fn after(&mut self, who: usize, role: Role) -> Vec<(usize, Sent)> {
        match role {
            Role::Idle { .. } | Role::Waiting { .. } => Vec::new(),
            Role::Joiner { opener, index, .. } => vec![(opener, Sent::PeerLeft { index })],
            Role::Opener { .. } => self
                .joiners_of(who)
                .into_iter()
                .map(|(_, joiner)| self.end_role(joiner, RoleEnd::OpenerLeft))
                .collect(),
        }
    }

    /// Ends the role of a joiner without a notice to its opener.
    fn end_role(&mut self, joiner: usize, end: RoleEnd) -> (usize, Sent) {
        if self.find(joiner).reusable {
            self.make_idle(joiner);
            return (joiner, Sent::RoleEnded(end));
        }
        let reason = match end {
            RoleEnd::OpenerLeft => CloseReason::OpenerLeft,
            RoleEnd::Kicked => CloseReason::Kicked,
            RoleEnd::TakenOver | RoleEnd::TokenExpired => panic!("no end of a joiner by its opener"),
        };
        self.close_silently(joiner, reason)
    }

    fn make_idle(&mut self, who: usize) {
        let client = self.find_mut(who);
        client.former = Some(match client.role {
            Role::Waiting { key, id, .. } => Role::Waiting {
                key,
                id,
                arrival: 0,
                until: None,
            },
            role => role,
        });
        client.role = Role::Idle { until: None };
    }

    /// Closes `who` without a notice to its peers.
    fn close_silently(&mut self, who: usize, reason: CloseReason) -> (usize, Sent) {
        self.closed += 1;
        self.mark_ended(who);
        (who, Sent::Close(reason))
    }

    fn mark_ended(&mut self, who: usize) {
        let before = self.clients.iter().filter(|c| c.ended.is_some()).count();
        self.find_mut(who).ended = Some(before);
    }

    /// Returns the role of `who`, if it is open.
    fn role(&self, who: usize) -> Option<Role> {
        self.connected().find(|c| c.name == who).map(|c| c.role)
    }

    /// Reserves the key of a lost opener that has opened it and has a token.
    fn reserve(&mut self, role: Role) {
        let Role::Opener {
            key,
            token: Some(token),
            opened: true,
            ..
        } = role
        else {
            return;
        };
        if self.limits.reserve.is_zero() {
            return;
        }
        let most = self.limits.reserved_keys.or(self.limits.connections);
        if most.is_some_and(|most| self.reservations.len() >= most.get() as usize) {
            self.reservations.remove(0);
        }
        let until = self.now.saturating_add(self.limits.reserve);
        self.reservations.push(Reservation { until, key, token });
        self.reservations.sort_by_key(|reservation| reservation.until);
    }

    /// Returns the reservation of `key`.
    pub(crate) fn reservation_of(&self, key: usize) -> Option<Reservation> {
        let mut reservations = self.reservations.iter().copied();
        reservations.find(|reservation| reservation.key == key)
    }

    /// Returns the opener of `key`.
    pub(crate) fn opener_of(&self, key: usize) -> Option<usize> {
        let opener = self.connected().find(|client| client.key() == Some(key));
        opener.map(|opener| opener.name)
    }

    /// Returns the connections that wait for `key`, in order of arrival.
    fn waiters_for(&self, key: usize) -> impl Iterator<Item = &Client> {
        let arrival = |client: &&Client| match client.role {
            Role::Waiting { key: its, arrival, .. } if its == key => Some(arrival),
            Role::Idle { .. } | Role::Opener { .. } | Role::Joiner { .. } | Role::Waiting { .. } => None,
        };
        let mut waiters: Vec<&Client> = self.connected().filter(|client| arrival(client).is_some()).collect();
        waiters.sort_by_key(arrival);
        waiters.into_iter()
    }

    /// Returns the connections that wait for the same key as one in this role.
    fn waiters_of(&self, role: Role) -> impl Iterator<Item = &Client> {
        let key = match role {
            Role::Waiting { key, .. } => Some(key),
            Role::Idle { .. } | Role::Opener { .. } | Role::Joiner { .. } => None,
        };
        key.into_iter().flat_map(|key| self.waiters_for(key))
    }

    /// Returns the open joiners of `who`, by index.
    fn joiners_of(&self, who: usize) -> Vec<(u32, usize)> {
        let mut joiners: Vec<_> = self
            .connected()
            .filter_map(|client| match client.role {
                Role::Joiner { opener, index, .. } if opener == who => Some((index, client.name)),
                Role::Idle { .. } | Role::Opener { .. } | Role::Joiner { .. } | Role::Waiting { .. } => None,
            })
            .collect();
        joiners.sort_unstable();
        joiners
    }

    /// Returns the open joiner of `who` with this index.
    fn joiner(&self, who: usize, index: u32) -> Option<usize> {
        let joiners = self.joiners_of(who);
        joiners.iter().find(|joiner| joiner.0 == index).map(|joiner| joiner.1)
    }

    fn find(&self, who: usize) -> &Client {
        let found = self.clients.iter().find(|client| client.name == who);
        found.expect("a known connection")
    }

    fn find_mut(&mut self, who: usize) -> &mut Client {
        let found = self.clients.iter_mut().find(|client| client.name == who);
        found.expect("a known connection")
    }
}

impl Client {
    /// Returns the key that it has opened.
    pub(crate) fn key(&self) -> Option<usize> {
        match self.role {
            Role::Opener { key, .. } => Some(key),
            Role::Idle { .. } | Role::Joiner { .. } | Role::Waiting { .. } => None,
        }
    }

    /// Returns the token with which its role can be taken over.
    pub(crate) fn token(&self) -> Option<usize> {
        match self.role {
            Role::Opener { token, .. } => token,
            Role::Idle { .. } | Role::Joiner { .. } | Role::Waiting { .. } => None,
        }
    }

    /// Returns its role deadline or the end of its wait, if there is one.
    fn deadline(&self) -> Option<Duration> {
        match self.role {
            Role::Idle { until } | Role::Waiting { until, .. } => until,
            Role::Opener { .. } | Role::Joiner { .. } => None,
        }
    }
}

/// The text of an error, from the protocol page.
#[allow(dead_code, reason = "only an endpoint encodes it")]
pub(crate) fn message(code: &str) -> &'static str {
    match code {
        "key-taken" => "`key` is taken: another opener has it",
        "unknown-key" => "`key` is unknown: nobody has it open",
        "too-many-joiners" => "`key` has as many joiners as it may have",
        "too-many-attempts" => "too many attempts at keys: try again in a minute",
        "has-role" => "this socket has a role already: it has to leave or close that first",
        "no-role" => "this socket has no role: it has to open or join a key first",
        "wrong-role" => "`type` is not for this role: kick and close are an opener's, leave is a joiner's",
        "no-index" => "`index` is missing: an opener has to say which joiner it means",
        "unknown-index" => "`index` names no joiner that is here",
        "not-an-object" => {
            "`data` is not one JSON object with at most one `index`, and a peer of the plain protocol takes nothing else"
        }
        unknown => panic!("the protocol page has no {unknown}"),
    }
}
