//! Owns every transition of a connection's role, and no other file has one. Never knows a dialect, a payload's content, or why a
//! connection went away.
//!
//! ```text
//!                 open                      gone, closed: every joiner is closed (4001), the key is free
//!            ┌────────────> Opener(key) ─────────────────────────────────────────┐
//!  connect   │                                                                   v
//!  ────────> Idle ──────────────────────────────────────────────────────────> (dead)
//!            │     no role in time, data first, key taken, key unknown: closed   ^
//!            └────────────> Joiner(opener, index) ───────────────────────────────┘
//!                 join                      gone, closed: the opener gets PeerLeft
//! ```
//!
//! Tested in `tests/laws.rs` (against a naive model), `tests/exhaustive.rs` and by the transcripts.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec,
    vec::Vec,
};
use core::{fmt, marker::PhantomData};

use crate::{
    Addressee, CloseReason, ConnId, ConnectError, InboundMessage, Index, Key, Limits, OutboundMessage, Payload, Stats,
    Time, arena::Arena,
};

/// The state machine: who has which key open, who has joined it, and who may talk to whom.
///
/// See the [crate documentation](crate) for the run loop and the laws. `P` is what is carried; the hub moves payloads and never
/// holds one between calls. A message costs O(log n) in connections, keys and joiners.
pub struct Hub<P = Payload> {
    conns: Arena<Role>,
    keys: BTreeMap<Key, ConnId>,
    /// One entry for each idle connection that has a deadline.
    deadlines: BTreeSet<(Time, ConnId)>,
    limits: Limits,
    /// The counters; the gauges are derived when asked for.
    counters: Stats,
    joiners: u32,
    shut_down: bool,
    payload: PhantomData<fn(P) -> P>,
}

enum Role {
    Idle {
        deadline: Option<Time>,
    },
    Opener {
        key: Key,
        joiners: BTreeMap<Index, ConnId>,
        /// The number of the next joiner, which is also how many ever joined.
        next: u32,
    },
    Joiner {
        opener: ConnId,
        index: Index,
    },
}

impl<P> Hub<P> {
    /// An empty hub.
    pub fn new(limits: Limits) -> Self {
        Self {
            conns: Arena::new(),
            keys: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            limits,
            counters: Stats::default(),
            joiners: 0,
            shut_down: false,
            payload: PhantomData,
        }
    }

    /// A connection has come. It has no role yet; if it takes none within [`Limits::role_deadline`] of `now`, it is closed.
    ///
    /// # Errors
    ///
    /// When there are [`Limits::connections`] already, and after [`shutdown`](Self::shutdown).
    pub fn connect(&mut self, now: Time) -> Result<ConnId, ConnectError> {
        if self.shut_down {
            return Err(ConnectError::ShuttingDown);
        }
        if self.conns.len() >= self.limits.connections {
            return Err(ConnectError::TooManyConnections);
        }
        let deadline = self.limits.role_deadline.and_then(|allowed| now.checked_add(allowed));
        let id = self.conns.insert(Role::Idle { deadline });
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, id));
        }
        Ok(id)
    }

    /// A connection says something. Returns what follows, in the order in which it is to be sent.
    #[must_use = "the outputs are to be sent"]
    pub fn handle(&mut self, from: ConnId, message: InboundMessage<P>) -> Vec<(ConnId, OutboundMessage<P>)> {
        match message {
            InboundMessage::Open { key } => self.open(from, key),
            InboundMessage::Join { key } => self.join(from, &key),
            InboundMessage::Data { to, payload } => self.data(from, to, payload, CloseReason::NoRole),
            InboundMessage::Lookalike { to, payload } => self.data(from, to, payload, CloseReason::UnknownType),
        }
    }

    /// The embedder ends a connection: it broke its dialect, is too slow, or the like. The first output is its
    /// [`OutboundMessage::Close`]; the others tell those who have to do with it.
    #[must_use = "the outputs are to be sent"]
    pub fn close(&mut self, conn: ConnId, reason: CloseReason) -> Vec<(ConnId, OutboundMessage<P>)> {
        let Some(role) = self.conns.remove(conn) else {
            return Vec::new();
        };
        self.counters.closed += 1;
        let mut outputs = vec![(conn, OutboundMessage::Close(reason))];
        self.retire(conn, role, &mut outputs);
        outputs
    }

    /// A connection is gone. Nothing is said to it any more; the outputs tell those who have to do with it.
    #[must_use = "the outputs are to be sent"]
    pub fn disconnect(&mut self, conn: ConnId) -> Vec<(ConnId, OutboundMessage<P>)> {
        let mut outputs = Vec::new();
        if let Some(role) = self.conns.remove(conn) {
            self.retire(conn, role, &mut outputs);
        }
        outputs
    }

    /// Closes every connection with [`CloseReason::ShuttingDown`] and takes no further one.
    #[must_use = "the outputs are to be sent"]
    pub fn shutdown(&mut self) -> Vec<(ConnId, OutboundMessage<P>)> {
        self.shut_down = true;
        let outputs: Vec<_> = self
            .conns
            .iter()
            .map(|(id, _)| (id, OutboundMessage::Close(CloseReason::ShuttingDown)))
            .collect();
        self.counters.closed += outputs.len() as u64;
        self.conns.clear();
        self.keys.clear();
        self.deadlines.clear();
        self.joiners = 0;
        outputs
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next; `None` while there is nothing to wait for. May
    /// change with every call that takes `&mut self`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Closes every connection that has taken no role in time. Does nothing before [`poll_timeout`](Self::poll_timeout).
    #[must_use = "the outputs are to be sent"]
    pub fn handle_timeout(&mut self, now: Time) -> Vec<(ConnId, OutboundMessage<P>)> {
        let mut outputs = Vec::new();
        while let Some(&(deadline, conn)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            outputs.append(&mut self.close(conn, CloseReason::NoRoleInTime));
        }
        outputs
    }

    /// The gauges and counters as they are now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.conns.len(),
            keys: self.keys.len() as u32,
            joiners: self.joiners,
            ..self.counters
        }
    }

    /// The limits that the hub was made with.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn open(&mut self, from: ConnId, key: Key) -> Vec<(ConnId, OutboundMessage<P>)> {
        let Some(role) = self.conns.get_mut(from) else {
            return Vec::new();
        };
        let Role::Idle { deadline } = *role else {
            return self.close(from, CloseReason::HasRole);
        };
        if self.keys.contains_key(&key) {
            return self.close(from, CloseReason::KeyTaken);
        }
        *role = Role::Opener {
            key: key.clone(),
            joiners: BTreeMap::new(),
            next: 0,
        };
        self.cancel_deadline(from, deadline);
        self.keys.insert(key.clone(), from);
        vec![(from, OutboundMessage::Opened { key })]
    }

    fn join(&mut self, from: ConnId, key: &Key) -> Vec<(ConnId, OutboundMessage<P>)> {
        let deadline = match self.conns.get(from) {
            None => return Vec::new(),
            Some(Role::Idle { deadline }) => *deadline,
            Some(Role::Opener { .. } | Role::Joiner { .. }) => {
                return self.close(from, CloseReason::HasRole);
            }
        };
        let opener = self.keys.get(key).copied();
        let Some((opener, Role::Opener { joiners, next, .. })) =
            opener.and_then(|id| Some((id, self.conns.get_mut(id)?)))
        else {
            return self.close(from, CloseReason::KeyUnknown);
        };
        // The number behind the last index stands for "nobody" and is never given out.
        if joiners.len() >= self.limits.joiners_per_key as usize || *next == Index::NOBODY.get() {
            return self.close(from, CloseReason::TooManyJoiners);
        }
        let index = Index::new(*next);
        *next += 1;
        joiners.insert(index, from);
        self.joiners += 1;
        if let Some(role) = self.conns.get_mut(from) {
            *role = Role::Joiner { opener, index };
        }
        self.cancel_deadline(from, deadline);
        vec![
            (from, OutboundMessage::Joined { index }),
            (opener, OutboundMessage::PeerJoined { index }),
        ]
    }

    /// `without_role` is what closes a sender that has no role.
    fn data(
        &mut self,
        from: ConnId,
        to: Addressee,
        payload: P,
        without_role: CloseReason,
    ) -> Vec<(ConnId, OutboundMessage<P>)> {
        let (to, from) = match self.conns.get(from) {
            None => return Vec::new(),
            Some(Role::Idle { .. }) => return self.close(from, without_role),
            Some(Role::Joiner { opener, index }) => (*opener, Some(*index)),
            Some(Role::Opener { joiners, .. }) => match to {
                Addressee::Unnamed => return self.close(from, CloseReason::NoIndex),
                Addressee::Malformed => return self.close(from, CloseReason::IndexMalformed),
                Addressee::Index(index) => match joiners.get(&index) {
                    Some(&joiner) => (joiner, None),
                    // An ordinary race: it must not cost the opener its other joiners.
                    None => {
                        self.counters.dropped += 1;
                        return Vec::new();
                    }
                },
            },
        };
        self.counters.relayed += 1;
        vec![(to, OutboundMessage::Data { from, payload })]
    }

    /// The end of a role whose connection is already out of the arena.
    fn retire(&mut self, conn: ConnId, role: Role, outputs: &mut Vec<(ConnId, OutboundMessage<P>)>) {
        match role {
            Role::Idle { deadline } => self.cancel_deadline(conn, deadline),
            Role::Opener { key, joiners, .. } => {
                self.keys.remove(&key);
                for joiner in joiners.into_values() {
                    self.conns.remove(joiner);
                    self.joiners -= 1;
                    self.counters.closed += 1;
                    outputs.push((joiner, OutboundMessage::Close(CloseReason::OpenerLeft)));
                }
            }
            Role::Joiner { opener, index } => {
                if let Some(Role::Opener { joiners, .. }) = self.conns.get_mut(opener) {
                    joiners.remove(&index);
                    self.joiners -= 1;
                    outputs.push((opener, OutboundMessage::PeerLeft { index }));
                }
            }
        }
    }

    fn cancel_deadline(&mut self, conn: ConnId, deadline: Option<Time>) {
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, conn));
        }
    }

    /// Panics where the tables disagree: tests call it after every step.
    #[doc(hidden)]
    pub fn assert_invariants(&self) {
        let mut openers = 0;
        let mut joined = 0;
        let mut waiting = 0;
        for (id, role) in self.conns.iter() {
            match role {
                Role::Idle { deadline: None } => {}
                Role::Idle {
                    deadline: Some(deadline),
                } => {
                    waiting += 1;
                    assert!(self.deadlines.contains(&(*deadline, id)));
                }
                Role::Opener { key, joiners, next } => {
                    openers += 1;
                    assert_eq!(self.keys.get(key), Some(&id), "a key points at its opener");
                    for (index, joiner) in joiners {
                        assert!(index.get() < *next);
                        assert!(
                            matches!(self.conns.get(*joiner), Some(Role::Joiner { opener, index: i }) if *opener == id && i == index),
                            "a joiner knows its opener and its index"
                        );
                    }
                }
                Role::Joiner { opener, index } => {
                    joined += 1;
                    assert!(
                        matches!(self.conns.get(*opener), Some(Role::Opener { joiners, .. }) if joiners.get(index) == Some(&id)),
                        "an opener knows its joiners"
                    );
                }
            }
        }
        assert_eq!(self.keys.len(), openers, "no key outlives its opener");
        assert_eq!(self.joiners, joined, "the gauge of joiners is true");
        assert_eq!(self.deadlines.len(), waiting, "no deadline outlives its wait");
    }
}

impl<P> fmt::Debug for Hub<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
