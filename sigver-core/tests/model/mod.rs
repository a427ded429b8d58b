//! A naive hub, written from the protocol page and not from the source: one list of all that ever came, searched from the front.
//!
//! The laws and the exhaustive check hold the real hub against it. Connections, keys and payloads are numbers here.

use core::{num::NonZeroU32, time::Duration};

use sigver_core::{
    Addressee, CloseReason, ConnectError, Dialect, Limits, PayloadKind, Profile, RoleEnd, RoleLifetime, Stats,
};

/// The profile of a connection that speaks the plain dialect.
pub(crate) const PLAIN: Profile = Dialect::Plain.profile();
/// The profile of a connection that speaks `sigver.v1`.
pub(crate) const V1: Profile = Dialect::V1.profile();
/// Connections that neither dialect has, but an embedder's own may.
pub(crate) const ONE_ROLE_OF_ANY_DATA: Profile = Profile {
    role_lifetime: RoleLifetime::SingleUse,
    accepts: PayloadKind::Any,
};
pub(crate) const RENEWABLE_OF_OBJECTS: Profile = Profile {
    role_lifetime: RoleLifetime::Reusable,
    accepts: PayloadKind::Object,
};

/// One call into a hub, or the passing of time between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Connect {
        who: usize,
        profile: Profile,
    },
    Open {
        who: usize,
        key: usize,
    },
    Join {
        who: usize,
        key: usize,
    },
    Data {
        who: usize,
        to: Addressee,
        kind: PayloadKind,
        token: usize,
    },
    UnknownControl {
        who: usize,
        to: Addressee,
        kind: PayloadKind,
        token: usize,
    },
    Kick {
        who: usize,
        index: u32,
    },
    Leave {
        who: usize,
    },
    CloseKey {
        who: usize,
    },
    Close {
        who: usize,
        reason: CloseReason,
    },
    Disconnect {
        who: usize,
    },
    Wait {
        time: Duration,
    },
    Timeout,
    Shutdown,
}

/// One thing that a hub says to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    NotLetIn(ConnectError),
    Opened { key: usize },
    Joined { index: u32 },
    PeerJoined { index: u32 },
    Data { from: Option<u32>, token: usize },
    PeerLeft { index: u32 },
    Refused { code: &'static str, about: About },
    RoleEnded(RoleEnd),
    Close(CloseReason),
}

/// What stands beside the code of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    Nothing,
    Key(usize),
    Index(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    /// Until the moment at which it must have asked for a role, if there is one.
    Idle {
        until: Option<Duration>,
    },
    /// `announced` is how many ever joined it.
    Opener {
        key: usize,
        announced: u32,
    },
    Joiner {
        opener: usize,
        index: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Client {
    pub(crate) name: usize,
    /// Whether it stays when its role ends, and when it is refused.
    pub(crate) renewable: bool,
    accepts: PayloadKind,
    pub(crate) role: Role,
    /// The role that it had before this one. Means nothing to the protocol.
    pub(crate) former: Option<Role>,
    /// How many had ended before this one did; `None` while it lives.
    pub(crate) ended: Option<usize>,
}

/// All that the protocol makes a server remember.
#[derive(Clone)]
pub(crate) struct Model {
    limits: Limits,
    clients: Vec<Client>,
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
            now: Duration::ZERO,
            shut_down: false,
            relayed: 0,
            dropped: 0,
            refused: 0,
            closed: 0,
        }
    }

    /// Does what `step` says. Where one step ends many connections, they are told in the order in which they came.
    pub(crate) fn play(&mut self, step: Step) -> Vec<(usize, Said)> {
        match step {
            Step::Connect { who, profile } => self.connect(who, profile),
            Step::Open { who, key } => self.open(who, key),
            Step::Join { who, key } => self.join(who, key),
            Step::Data { who, to, kind, token } => self.data(who, to, kind, token),
            Step::UnknownControl { who, to, kind, token } => match self.role(who) {
                Some(Role::Idle { .. }) => self.close(who, CloseReason::UnknownType),
                _ => self.data(who, to, kind, token),
            },
            Step::Kick { who, index } => self.kick(who, index),
            Step::Leave { who } => self.resign(who, |role| matches!(role, Role::Joiner { .. })),
            Step::CloseKey { who } => self.resign(who, |role| matches!(role, Role::Opener { .. })),
            Step::Close { who, reason } => self.close(who, reason),
            Step::Disconnect { who } => self.end(who),
            Step::Wait { time } => {
                self.now += time;
                Vec::new()
            }
            Step::Timeout => self.timeout(),
            Step::Shutdown => {
                self.shut_down = true;
                let everyone: Vec<usize> = self.living().map(|client| client.name).collect();
                everyone
                    .into_iter()
                    .map(|who| self.close_silently(who, CloseReason::ShuttingDown))
                    .collect()
            }
        }
    }

    /// Plays an open or a join that fails whether the key is free, open or neither.
    #[allow(dead_code, reason = "only an endpoint denies")]
    pub(crate) fn deny(&mut self, step: Step) -> Vec<(usize, Said)> {
        let (who, code, key) = match step {
            Step::Open { who, key } => (who, "key-taken", key),
            Step::Join { who, key } => (who, "unknown-key", key),
            _ => return self.play(step),
        };
        match self.ask_for_role(who) {
            Some(true) => self.refuse(who, code, About::Key(key)),
            Some(false) | None => self.play(step),
        }
    }

    /// The next moment at which somebody is late.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        self.living().filter_map(Client::deadline).min()
    }

    pub(crate) fn stats(&self) -> Stats {
        let count = |is: fn(&Role) -> bool| self.living().filter(|c| is(&c.role)).count() as u32;
        let mut stats = Stats::default();
        stats.connections = count(|_| true);
        stats.keys = count(|role| matches!(role, Role::Opener { .. }));
        stats.joiners = count(|role| matches!(role, Role::Joiner { .. }));
        stats.relayed = self.relayed;
        stats.dropped = self.dropped;
        stats.refused = self.refused;
        stats.closed = self.closed;
        stats
    }

    /// All that ever came.
    pub(crate) fn clients(&self) -> &[Client] {
        &self.clients
    }

    pub(crate) fn living(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter().filter(|client| client.ended.is_none())
    }

    /// What the future depends on, and the past of the dead and of those that had another role: all that ever came, with what is
    /// left of their time instead of when it ends; and whether the hub was shut down.
    pub(crate) fn state(&self) -> (Vec<Client>, bool) {
        let mut clients = self.clients.clone();
        for client in &mut clients {
            let left = client.deadline().map(|until| until.saturating_sub(self.now));
            if let Role::Idle { until } = &mut client.role {
                *until = left.filter(|_| client.ended.is_none());
            }
        }
        (clients, self.shut_down)
    }

    fn connect(&mut self, name: usize, profile: Profile) -> Vec<(usize, Said)> {
        if self.shut_down {
            return vec![(name, Said::NotLetIn(ConnectError::ShuttingDown))];
        }
        let is_full = |limit: NonZeroU32| self.stats().connections >= limit.get();
        if self.limits.connections.is_some_and(is_full) {
            return vec![(name, Said::NotLetIn(ConnectError::TooManyConnections))];
        }
        let allowed = self.limits.role_deadline;
        let until = allowed.and_then(|allowed| self.now.checked_add(allowed));
        self.clients.push(Client {
            name,
            renewable: profile.role_lifetime == RoleLifetime::Reusable,
            accepts: profile.accepts,
            role: Role::Idle { until },
            former: None,
            ended: None,
        });
        Vec::new()
    }

    fn open(&mut self, who: usize, key: usize) -> Vec<(usize, Said)> {
        match self.ask_for_role(who) {
            None => Vec::new(),
            Some(false) => self.refuse(who, "has-role", About::Nothing),
            Some(true) if self.opener_of(key).is_some() => self.refuse(who, "key-taken", About::Key(key)),
            Some(true) => {
                self.find_mut(who).role = Role::Opener { key, announced: 0 };
                vec![(who, Said::Opened { key })]
            }
        }
    }

    fn join(&mut self, who: usize, key: usize) -> Vec<(usize, Said)> {
        match (self.ask_for_role(who), self.opener_of(key)) {
            (None, _) => Vec::new(),
            (Some(false), _) => self.refuse(who, "has-role", About::Nothing),
            (Some(true), None) => self.refuse(who, "unknown-key", About::Key(key)),
            (Some(true), Some((opener, index))) => {
                if self.joiners_of(opener).len() >= self.limits.joiners_per_key as usize {
                    return self.refuse(who, "too-many-joiners", About::Key(key));
                }
                let announced = index + 1;
                self.find_mut(opener).role = Role::Opener { key, announced };
                self.find_mut(who).role = Role::Joiner { opener, index };
                vec![(who, Said::Joined { index }), (opener, Said::PeerJoined { index })]
            }
        }
    }

    /// Whether `who` is free for a role, if it lives. Whoever asks in time does not have to ask again.
    fn ask_for_role(&mut self, who: usize) -> Option<bool> {
        let is_free = matches!(self.role(who)?, Role::Idle { .. });
        if is_free {
            self.find_mut(who).role = Role::Idle { until: None };
        }
        Some(is_free)
    }

    fn data(&mut self, who: usize, to: Addressee, kind: PayloadKind, token: usize) -> Vec<(usize, Said)> {
        let (to, from, about) = match (self.role(who), to) {
            (None, _) => return Vec::new(),
            (Some(Role::Idle { .. }), _) => return self.refuse(who, "no-role", About::Nothing),
            (Some(Role::Joiner { opener, index }), _) => (opener, Some(index), About::Nothing),
            (Some(Role::Opener { .. }), Addressee::Unnamed) => {
                return self.refuse(who, "no-index", About::Nothing);
            }
            (Some(Role::Opener { .. }), Addressee::Malformed) => {
                return self.close(who, CloseReason::IndexMalformed);
            }
            (Some(Role::Opener { .. }), Addressee::OutOfRange) => {
                self.dropped += 1;
                return self.refuse(who, "unknown-index", About::Nothing);
            }
            (Some(Role::Opener { .. }), Addressee::Index(named)) => {
                let about = About::Index(named.get());
                let Some(joiner) = self.joiner(who, named.get()) else {
                    self.dropped += 1;
                    return self.refuse(who, "unknown-index", about);
                };
                (joiner, None, about)
            }
        };
        if kind == PayloadKind::Any && self.find(to).accepts == PayloadKind::Object {
            return self.refuse(who, "not-an-object", about);
        }
        self.relayed += 1;
        vec![(to, Said::Data { from, token })]
    }

    fn kick(&mut self, who: usize, index: u32) -> Vec<(usize, Said)> {
        match (self.role(who), self.joiner(who, index)) {
            (None, _) => Vec::new(),
            (Some(Role::Idle { .. }), _) => self.refuse(who, "no-role", About::Nothing),
            (Some(Role::Joiner { .. }), _) => self.refuse(who, "wrong-role", About::Nothing),
            (Some(Role::Opener { .. }), None) if index == u32::MAX => self.refuse(who, "unknown-index", About::Nothing),
            (Some(Role::Opener { .. }), None) => self.refuse(who, "unknown-index", About::Index(index)),
            (Some(Role::Opener { .. }), Some(joiner)) => {
                vec![self.dismiss(joiner, RoleEnd::Kicked), (who, Said::PeerLeft { index })]
            }
        }
    }

    /// `who` gives up its role, which must be the right one, and be all that it gives up.
    fn resign(&mut self, who: usize, is_right: fn(Role) -> bool) -> Vec<(usize, Said)> {
        match self.role(who) {
            None => Vec::new(),
            Some(Role::Idle { .. }) => self.refuse(who, "no-role", About::Nothing),
            Some(role) if is_right(role) && self.find(who).renewable => {
                self.make_idle(who);
                self.after(who, role)
            }
            Some(_) => self.refuse(who, "wrong-role", About::Nothing),
        }
    }

    fn timeout(&mut self) -> Vec<(usize, Said)> {
        let late = |client: &&Client| client.deadline().is_some_and(|until| until <= self.now);
        let late: Vec<usize> = self.living().filter(late).map(|c| c.name).collect();
        late.into_iter()
            .map(|who| self.close_silently(who, CloseReason::NoRoleInTime))
            .collect()
    }

    /// What `who` asked for is not done. That closes it if it has one role and there is a close code for it.
    fn refuse(&mut self, who: usize, code: &'static str, about: About) -> Vec<(usize, Said)> {
        self.refused += 1;
        let reason = match code {
            "key-taken" => Some(CloseReason::KeyTaken),
            "unknown-key" => Some(CloseReason::UnknownKey),
            "too-many-joiners" => Some(CloseReason::TooManyJoiners),
            "has-role" => Some(CloseReason::HasRole),
            "no-role" => Some(CloseReason::NoRole),
            "no-index" => Some(CloseReason::NoIndex),
            "not-an-object" => Some(CloseReason::NotAnObject),
            _ => None,
        };
        match reason {
            Some(reason) if !self.find(who).renewable => self.close(who, reason),
            _ => vec![(who, Said::Refused { code, about })],
        }
    }

    fn close(&mut self, who: usize, reason: CloseReason) -> Vec<(usize, Said)> {
        let Some(role) = self.role(who) else {
            return Vec::new();
        };
        let mut said = vec![self.close_silently(who, reason)];
        // It is dead by now; what is left is to tell the others.
        said.extend(self.after(who, role));
        said
    }

    fn end(&mut self, who: usize) -> Vec<(usize, Said)> {
        let Some(role) = self.role(who) else {
            return Vec::new();
        };
        self.bury(who);
        self.after(who, role)
    }

    /// What it means to others that `who` has `role` no more.
    fn after(&mut self, who: usize, role: Role) -> Vec<(usize, Said)> {
        match role {
            Role::Idle { .. } => Vec::new(),
            Role::Joiner { opener, index } => vec![(opener, Said::PeerLeft { index })],
            Role::Opener { .. } => self
                .joiners_of(who)
                .into_iter()
                .map(|(_, joiner)| self.dismiss(joiner, RoleEnd::OpenerLeft))
                .collect(),
        }
    }

    /// Ends the role of a joiner without a word to its opener.
    fn dismiss(&mut self, joiner: usize, end: RoleEnd) -> (usize, Said) {
        if self.find(joiner).renewable {
            self.make_idle(joiner);
            return (joiner, Said::RoleEnded(end));
        }
        let reason = match end {
            RoleEnd::OpenerLeft => CloseReason::OpenerLeft,
            RoleEnd::Kicked => CloseReason::Kicked,
        };
        self.close_silently(joiner, reason)
    }

    fn make_idle(&mut self, who: usize) {
        let client = self.find_mut(who);
        client.former = Some(client.role);
        client.role = Role::Idle { until: None };
    }

    /// Closes `who` without a word to others.
    fn close_silently(&mut self, who: usize, reason: CloseReason) -> (usize, Said) {
        self.closed += 1;
        self.bury(who);
        (who, Said::Close(reason))
    }

    fn bury(&mut self, who: usize) {
        let before = self.clients.iter().filter(|c| c.ended.is_some()).count();
        self.find_mut(who).ended = Some(before);
    }

    /// The role of `who`, if it lives.
    fn role(&self, who: usize) -> Option<Role> {
        self.living().find(|c| c.name == who).map(|c| c.role)
    }

    /// Who has `key` open, and how many it was told of.
    fn opener_of(&self, key: usize) -> Option<(usize, u32)> {
        let opener = self.living().find(|client| client.key() == Some(key))?;
        match opener.role {
            Role::Opener { announced, .. } => Some((opener.name, announced)),
            Role::Idle { .. } | Role::Joiner { .. } => None,
        }
    }

    /// The living joiners of `who`, in the order of their indexes.
    fn joiners_of(&self, who: usize) -> Vec<(u32, usize)> {
        let mut joiners: Vec<_> = self
            .living()
            .filter_map(|client| match client.role {
                Role::Joiner { opener, index } if opener == who => Some((index, client.name)),
                Role::Idle { .. } | Role::Opener { .. } | Role::Joiner { .. } => None,
            })
            .collect();
        joiners.sort_unstable();
        joiners
    }

    /// The living joiner of `who` with this index.
    fn joiner(&self, who: usize, index: u32) -> Option<usize> {
        let joiners = self.joiners_of(who);
        joiners.iter().find(|joiner| joiner.0 == index).map(|joiner| joiner.1)
    }

    fn find(&self, who: usize) -> &Client {
        let found = self.clients.iter().find(|client| client.name == who);
        found.expect("asked only about those that came")
    }

    fn find_mut(&mut self, who: usize) -> &mut Client {
        let found = self.clients.iter_mut().find(|client| client.name == who);
        found.expect("asked only about those that came")
    }
}

impl Client {
    /// The key that it has opened, if it has.
    pub(crate) fn key(&self) -> Option<usize> {
        match self.role {
            Role::Opener { key, .. } => Some(key),
            Role::Idle { .. } | Role::Joiner { .. } => None,
        }
    }

    /// When it must have asked for a role, if it has not and there is a limit.
    fn deadline(&self) -> Option<Duration> {
        match self.role {
            Role::Idle { until } => until,
            Role::Opener { .. } | Role::Joiner { .. } => None,
        }
    }
}
