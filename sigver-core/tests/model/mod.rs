//! A naive hub, written from the protocol page and not from the source: one list of all that ever came, searched from the front.
//!
//! The laws and the exhaustive check hold the real hub against it. Connections, keys and payloads are numbers here.

use core::time::Duration;

use sigver_core::{Addressee, CloseReason, ConnectError, Limits, Stats};

/// One call into a hub, or the passing of time between two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Connect { who: usize },
    Open { who: usize, key: usize },
    Join { who: usize, key: usize },
    Data { who: usize, to: Addressee, token: usize },
    Lookalike { who: usize, to: Addressee, token: usize },
    Close { who: usize, reason: CloseReason },
    Disconnect { who: usize },
    Wait { time: Duration },
    Timeout,
    Shutdown,
}

/// One thing that a hub says to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Refused(ConnectError),
    Opened { key: usize },
    Joined { index: u32 },
    PeerJoined { index: u32 },
    Data { from: Option<u32>, token: usize },
    PeerLeft { index: u32 },
    Close(CloseReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    /// Until the moment at which it must have a role, if there is one.
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
    pub(crate) role: Role,
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
            closed: 0,
        }
    }

    /// Does what `step` says. Where one step ends many connections, they are told in the order in which they came.
    pub(crate) fn play(&mut self, step: Step) -> Vec<(usize, Said)> {
        match step {
            Step::Connect { who } => self.connect(who),
            Step::Open { who, key } => self.open(who, key),
            Step::Join { who, key } => self.join(who, key),
            Step::Data { who, to, token } => self.data(who, to, token, CloseReason::NoRole),
            Step::Lookalike { who, to, token } => self.data(who, to, token, CloseReason::UnknownType),
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

    /// What the future depends on, and the past of the dead: all that ever came, with what is left of their time instead of when
    /// it ends; and whether the hub was shut down.
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

    fn connect(&mut self, name: usize) -> Vec<(usize, Said)> {
        if self.shut_down {
            return vec![(name, Said::Refused(ConnectError::ShuttingDown))];
        }
        if self.stats().connections >= self.limits.connections {
            return vec![(name, Said::Refused(ConnectError::TooManyConnections))];
        }
        let allowed = self.limits.role_deadline;
        let until = allowed.and_then(|allowed| self.now.checked_add(allowed));
        self.clients.push(Client {
            name,
            role: Role::Idle { until },
            ended: None,
        });
        Vec::new()
    }

    fn open(&mut self, who: usize, key: usize) -> Vec<(usize, Said)> {
        match self.role(who) {
            None => Vec::new(),
            Some(Role::Idle { .. }) if self.opener_of(key).is_some() => self.close(who, CloseReason::KeyTaken),
            Some(Role::Idle { .. }) => {
                self.set_role(who, Role::Opener { key, announced: 0 });
                vec![(who, Said::Opened { key })]
            }
            Some(_) => self.close(who, CloseReason::HasRole),
        }
    }

    fn join(&mut self, who: usize, key: usize) -> Vec<(usize, Said)> {
        match (self.role(who), self.opener_of(key)) {
            (None, _) => Vec::new(),
            (Some(Role::Opener { .. } | Role::Joiner { .. }), _) => self.close(who, CloseReason::HasRole),
            (Some(Role::Idle { .. }), None) => self.close(who, CloseReason::KeyUnknown),
            (Some(Role::Idle { .. }), Some((opener, index))) => {
                if self.joiners_of(opener).len() >= self.limits.joiners_per_key as usize {
                    return self.close(who, CloseReason::TooManyJoiners);
                }
                let announced = index + 1;
                self.set_role(opener, Role::Opener { key, announced });
                self.set_role(who, Role::Joiner { opener, index });
                vec![(who, Said::Joined { index }), (opener, Said::PeerJoined { index })]
            }
        }
    }

    fn data(&mut self, who: usize, to: Addressee, token: usize, without_role: CloseReason) -> Vec<(usize, Said)> {
        let (to, from) = match (self.role(who), to) {
            (None, _) => return Vec::new(),
            (Some(Role::Idle { .. }), _) => return self.close(who, without_role),
            (Some(Role::Joiner { opener, index }), _) => (opener, Some(index)),
            (Some(Role::Opener { .. }), Addressee::Unnamed) => {
                return self.close(who, CloseReason::NoIndex);
            }
            (Some(Role::Opener { .. }), Addressee::Malformed) => {
                return self.close(who, CloseReason::IndexMalformed);
            }
            (Some(Role::Opener { .. }), Addressee::Index(named)) => {
                let joiners = self.joiners_of(who);
                let Some((_, joiner)) = joiners.iter().find(|(index, _)| *index == named.get()) else {
                    self.dropped += 1;
                    return Vec::new();
                };
                (*joiner, None)
            }
        };
        self.relayed += 1;
        vec![(to, Said::Data { from, token })]
    }

    fn timeout(&mut self) -> Vec<(usize, Said)> {
        let late = |client: &&Client| client.deadline().is_some_and(|until| until <= self.now);
        let late: Vec<usize> = self.living().filter(late).map(|c| c.name).collect();
        late.into_iter()
            .map(|who| self.close_silently(who, CloseReason::NoRoleInTime))
            .collect()
    }

    fn close(&mut self, who: usize, reason: CloseReason) -> Vec<(usize, Said)> {
        if self.role(who).is_none() {
            return Vec::new();
        }
        let mut said = vec![self.close_silently(who, reason)];
        // It is dead by now; what is left is to tell the others.
        said.extend(self.after(who));
        said
    }

    fn end(&mut self, who: usize) -> Vec<(usize, Said)> {
        if self.role(who).is_none() {
            return Vec::new();
        }
        self.bury(who);
        self.after(who)
    }

    /// What the end of `who` means to others.
    fn after(&mut self, who: usize) -> Vec<(usize, Said)> {
        match self.find(who).role {
            Role::Idle { .. } => Vec::new(),
            Role::Joiner { opener, index } => vec![(opener, Said::PeerLeft { index })],
            Role::Opener { .. } => self
                .joiners_of(who)
                .into_iter()
                .map(|(_, joiner)| self.close_silently(joiner, CloseReason::OpenerLeft))
                .collect(),
        }
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

    fn set_role(&mut self, who: usize, role: Role) {
        self.find_mut(who).role = role;
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

    /// When it must have a role, if it waits for one and there is a limit.
    fn deadline(&self) -> Option<Duration> {
        match self.role {
            Role::Idle { until } => until,
            Role::Opener { .. } | Role::Joiner { .. } => None,
        }
    }
}
