//! Owns every transition of a connection's role, and no other file has one. Never knows a dialect, a payload's content, or why a
//! connection went away.
//!
//! ```text
//!                 open                      gone, closed: the key is free, and the role of every joiner ends
//!            ┌────────────> Opener(key) ─────────────────────────────────────────┐
//!  connect   │                                                                   v
//!  ────────> Idle ──────────────────────────────────────────────────────────> (dead)
//!            │     no role in time; of one role: whatever is refused             ^
//!            └────────────> Joiner(opener, index) ───────────────────────────────┘
//!                 join                      gone, closed: the opener gets PeerLeft
//! ```
//!
//! A connection of [`Tenure::OneRole`] dies with its role. One of [`Tenure::Renewable`] goes back to `Idle`: an opener that closes its
//! key, a joiner that leaves, one that is kicked, one whose opener has left.
//!
//! Tested in `tests/laws/hub.rs` (against a naive model), `tests/exhaustive.rs` and by the transcripts.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec,
    vec::Vec,
};
use core::{fmt, marker::PhantomData, mem};

use crate::{
    Addressee, CloseReason, ConnId, ConnectError, Dialect, InboundMessage, Index, Key, Limits, OutboundMessage,
    Payload, Profile, Refusal, RoleEnd, Shape, Stats, Tenure, Time, arena::Arena,
};

/// The state machine: who has which key open, who has joined it, and who may talk to whom.
///
/// See the [crate documentation](crate) for the run loop and the laws. `P` is what is carried; the hub moves payloads and never
/// holds one between calls. A message costs O(log n) in connections, keys and joiners.
///
/// With a payload of one's own, which has to be nothing in particular:
///
/// ```
/// use sigver_core::{Addressee, Dialect, Hub, InboundMessage, Key, Limits, OutboundMessage, Shape, Time};
///
/// struct Blob(Vec<u8>);
///
/// let limits = Limits::default();
/// let mut hub: Hub<Blob> = Hub::new(limits.clone());
/// let profile = Dialect::V1.profile();
/// let (opener, joiner) = (hub.connect(Time::ZERO, profile)?, hub.connect(Time::ZERO, profile)?);
/// let key = Key::new("tea", &limits)?;
/// let _ = hub.handle(opener, InboundMessage::Open { key: key.clone() });
/// let _ = hub.handle(joiner, InboundMessage::Join { key });
///
/// let payload = Blob(vec![1, 2, 3]);
/// let outputs = hub.handle(joiner, InboundMessage::Data { to: Addressee::Unnamed, shape: Shape::Any, payload });
/// assert!(matches!(&outputs[..], [(to, OutboundMessage::Data { payload, .. })] if *to == opener && payload.0 == [1, 2, 3]));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Hub<P = Payload> {
    conns: Arena<Conn>,
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

/// What a connection is to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It has the key open.
    Opener,
    /// It has joined it.
    Joiner,
}

struct Conn {
    profile: Profile,
    state: State,
}

enum State {
    Idle {
        /// Until it first asks for a role.
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

    /// A connection has come. It has no role yet; if it asks for none within [`Limits::role_deadline`] of `now`, it is closed.
    ///
    /// # Errors
    ///
    /// When there are [`Limits::connections`] already, and after [`shutdown`](Self::shutdown).
    pub fn connect(&mut self, now: Time, profile: Profile) -> Result<ConnId, ConnectError> {
        if self.shut_down {
            return Err(ConnectError::ShuttingDown);
        }
        if self.conns.len() >= self.limits.connections {
            return Err(ConnectError::TooManyConnections);
        }
        let deadline = self.limits.role_deadline.and_then(|allowed| now.checked_add(allowed));
        let id = self.conns.insert(Conn {
            profile,
            state: State::Idle { deadline },
        });
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
            InboundMessage::Join { key } => self.join(from, key),
            InboundMessage::Data { to, shape, payload } => self.data(from, to, shape, payload),
            InboundMessage::Lookalike { to, shape, payload } => match self.state(from) {
                Some(State::Idle { .. }) => self.close(from, CloseReason::UnknownType),
                Some(State::Opener { .. } | State::Joiner { .. }) | None => self.data(from, to, shape, payload),
            },
            InboundMessage::Kick { index } => self.kick(from, index),
            InboundMessage::Leave => self.leave(from),
            InboundMessage::CloseKey => self.close_key(from),
        }
    }

    /// As [`handle`](Self::handle), but keys are not to be had: a join is answered as one of an unknown key, an open as one of a taken
    /// key, whether they are or not. For an embedder that has seen a connection, or its like, guess at keys too often.
    #[must_use = "the outputs are to be sent"]
    pub fn deny(&mut self, from: ConnId, message: InboundMessage<P>) -> Vec<(ConnId, OutboundMessage<P>)> {
        let refusal = match (&message, self.state(from)) {
            (InboundMessage::Open { key }, Some(State::Idle { .. })) => Refusal::KeyTaken { key: key.clone() },
            (InboundMessage::Join { key }, Some(State::Idle { .. })) => Refusal::UnknownKey { key: key.clone() },
            _ => return self.handle(from, message),
        };
        self.meet_deadline(from);
        self.refuse(from, refusal)
    }

    /// The embedder ends a connection: it broke its dialect, is too slow, or the like. The first output is its
    /// [`OutboundMessage::Close`]; the others tell those who have to do with it.
    ///
    /// Back-pressure ends here: what waits for a client is known to the embedder, who has an end of it when that is too much.
    ///
    /// ```
    /// # use sigver_core::{CloseReason, Dialect, Hub, Limits, OutboundMessage, Time};
    /// # let mut hub: Hub = Hub::new(Limits::default());
    /// # let slow = hub.connect(Time::ZERO, Dialect::Plain.profile())?;
    /// # let (waiting, backlog_bytes) = (2_000_000, 1_048_576);
    /// if waiting > backlog_bytes {
    ///     for (to, message) in hub.close(slow, CloseReason::TooSlow) {
    ///         // 1013 to the slow one; what follows to the others
    /// #       assert!(to == slow && matches!(message, OutboundMessage::Close(CloseReason::TooSlow)));
    ///     }
    /// }
    /// assert!(hub.close(slow, CloseReason::TooSlow).is_empty()); // it is gone already
    /// # Ok::<(), sigver_core::ConnectError>(())
    /// ```
    #[must_use = "the outputs are to be sent"]
    pub fn close(&mut self, conn: ConnId, reason: CloseReason) -> Vec<(ConnId, OutboundMessage<P>)> {
        let Some(Conn { state, .. }) = self.conns.remove(conn) else {
            return Vec::new();
        };
        self.counters.closed += 1;
        let mut outputs = vec![(conn, OutboundMessage::Close(reason))];
        self.retire(conn, state, &mut outputs);
        outputs
    }

    /// A connection is gone. Nothing is said to it any more; the outputs tell those who have to do with it.
    #[must_use = "the outputs are to be sent"]
    pub fn disconnect(&mut self, conn: ConnId) -> Vec<(ConnId, OutboundMessage<P>)> {
        let mut outputs = Vec::new();
        if let Some(Conn { state, .. }) = self.conns.remove(conn) {
            self.retire(conn, state, &mut outputs);
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

    /// Closes every connection that has asked for no role in time. Does nothing before [`poll_timeout`](Self::poll_timeout).
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

    /// Returns an id that names no connection and never will.
    pub(crate) fn dead_id(&mut self) -> ConnId {
        let id = self.conns.insert(Conn {
            profile: Dialect::Plain.profile(),
            state: State::Idle { deadline: None },
        });
        self.conns.remove(id);
        id
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

    /// The role of a connection; `None` while it has none, and when it is gone.
    #[must_use]
    pub fn role(&self, conn: ConnId) -> Option<Role> {
        match self.state(conn)? {
            State::Idle { .. } => None,
            State::Opener { .. } => Some(Role::Opener),
            State::Joiner { .. } => Some(Role::Joiner),
        }
    }

    /// The limits that the hub was made with.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    fn open(&mut self, from: ConnId, key: Key) -> Vec<(ConnId, OutboundMessage<P>)> {
        match self.state(from) {
            None => return Vec::new(),
            Some(State::Opener { .. } | State::Joiner { .. }) => return self.refuse(from, Refusal::HasRole),
            Some(State::Idle { .. }) => {}
        }
        self.meet_deadline(from);
        if self.keys.contains_key(&key) {
            return self.refuse(from, Refusal::KeyTaken { key });
        }
        self.set_state(
            from,
            State::Opener {
                key: key.clone(),
                joiners: BTreeMap::new(),
                next: 0,
            },
        );
        self.keys.insert(key.clone(), from);
        vec![(from, OutboundMessage::Opened { key })]
    }

    fn join(&mut self, from: ConnId, key: Key) -> Vec<(ConnId, OutboundMessage<P>)> {
        match self.state(from) {
            None => return Vec::new(),
            Some(State::Opener { .. } | State::Joiner { .. }) => return self.refuse(from, Refusal::HasRole),
            Some(State::Idle { .. }) => {}
        }
        self.meet_deadline(from);
        let opener = self.keys.get(&key).copied();
        let Some((opener, State::Opener { joiners, next, .. })) =
            opener.and_then(|id| Some((id, &mut self.conns.get_mut(id)?.state)))
        else {
            return self.refuse(from, Refusal::UnknownKey { key });
        };
        // The number behind the last index stands for "nobody" and is never given out.
        if joiners.len() >= self.limits.joiners_per_key as usize || *next == Index::NOBODY.get() {
            return self.refuse(from, Refusal::TooManyJoiners { key });
        }
        let index = Index::new(*next);
        *next += 1;
        joiners.insert(index, from);
        self.joiners += 1;
        self.set_state(from, State::Joiner { opener, index });
        vec![
            (from, OutboundMessage::Joined { index }),
            (opener, OutboundMessage::PeerJoined { index }),
        ]
    }

    fn data(&mut self, from: ConnId, to: Addressee, shape: Shape, payload: P) -> Vec<(ConnId, OutboundMessage<P>)> {
        let (recipient, sender, index) = match self.state(from) {
            None => return Vec::new(),
            Some(State::Idle { .. }) => return self.refuse(from, Refusal::NoRole),
            Some(State::Joiner { opener, index }) => (*opener, Some(*index), None),
            Some(State::Opener { joiners, .. }) => match to {
                Addressee::Unnamed => return self.refuse(from, Refusal::NoIndex),
                Addressee::Malformed => return self.close(from, CloseReason::IndexMalformed),
                Addressee::Index(index) => match joiners.get(&index) {
                    Some(joiner) => (*joiner, None, Some(index)),
                    // An ordinary race: it must not cost the opener its other joiners.
                    None => {
                        self.counters.dropped += 1;
                        return self.refuse(from, Refusal::UnknownIndex { index });
                    }
                },
            },
        };
        // `Object` is the narrower shape, and so the lesser one.
        if self.conns.get(recipient).is_some_and(|conn| shape > conn.profile.takes) {
            return self.refuse(from, Refusal::NotAnObject { index });
        }
        self.counters.relayed += 1;
        vec![(recipient, OutboundMessage::Data { from: sender, payload })]
    }

    fn kick(&mut self, from: ConnId, index: Index) -> Vec<(ConnId, OutboundMessage<P>)> {
        let joiner = match self.conns.get_mut(from).map(|conn| &mut conn.state) {
            None => return Vec::new(),
            Some(State::Idle { .. }) => return self.refuse(from, Refusal::NoRole),
            Some(State::Joiner { .. }) => return self.refuse(from, Refusal::WrongRole),
            Some(State::Opener { joiners, .. }) => joiners.remove(&index),
        };
        let Some(joiner) = joiner else {
            return self.refuse(from, Refusal::UnknownIndex { index });
        };
        let mut outputs = Vec::new();
        self.release(joiner, RoleEnd::Kicked, &mut outputs);
        outputs.push((from, OutboundMessage::PeerLeft { index }));
        outputs
    }

    fn leave(&mut self, from: ConnId) -> Vec<(ConnId, OutboundMessage<P>)> {
        match self.state(from) {
            Some(State::Joiner { .. }) => self.resign(from),
            Some(State::Opener { .. }) => self.refuse(from, Refusal::WrongRole),
            Some(State::Idle { .. }) => self.refuse(from, Refusal::NoRole),
            None => Vec::new(),
        }
    }

    fn close_key(&mut self, from: ConnId) -> Vec<(ConnId, OutboundMessage<P>)> {
        match self.state(from) {
            Some(State::Opener { .. }) => self.resign(from),
            Some(State::Joiner { .. }) => self.refuse(from, Refusal::WrongRole),
            Some(State::Idle { .. }) => self.refuse(from, Refusal::NoRole),
            None => Vec::new(),
        }
    }

    /// A connection with a role gives it up.
    fn resign(&mut self, conn: ConnId) -> Vec<(ConnId, OutboundMessage<P>)> {
        let mut outputs = Vec::new();
        match self.conns.get_mut(conn) {
            Some(Conn { profile, state }) if profile.tenure == Tenure::Renewable => {
                let state = mem::replace(state, State::Idle { deadline: None });
                self.retire(conn, state, &mut outputs);
                outputs
            }
            // For one role and life, the way to give it up is to go.
            Some(_) => self.refuse(conn, Refusal::WrongRole),
            None => outputs,
        }
    }

    /// Says no. All refusals go through here.
    fn refuse(&mut self, conn: ConnId, refusal: Refusal) -> Vec<(ConnId, OutboundMessage<P>)> {
        self.counters.refused += 1;
        let end = match self.conns.get(conn).map(|conn| conn.profile.tenure) {
            Some(Tenure::OneRole) => refusal.closes(),
            Some(Tenure::Renewable) | None => None,
        };
        match end {
            Some(reason) => self.close(conn, reason),
            None => vec![(conn, OutboundMessage::Refused(refusal))],
        }
    }

    /// The end of a role that its connection does not have any more: what it means to others.
    fn retire(&mut self, conn: ConnId, state: State, outputs: &mut Vec<(ConnId, OutboundMessage<P>)>) {
        match state {
            State::Idle { deadline } => self.cancel_deadline(conn, deadline),
            State::Opener { key, joiners, .. } => {
                self.keys.remove(&key);
                for joiner in joiners.into_values() {
                    self.release(joiner, RoleEnd::OpenerLeft, outputs);
                }
            }
            State::Joiner { opener, index } => {
                if let Some(State::Opener { joiners, .. }) = self.conns.get_mut(opener).map(|conn| &mut conn.state) {
                    joiners.remove(&index);
                    self.joiners -= 1;
                    outputs.push((opener, OutboundMessage::PeerLeft { index }));
                }
            }
        }
    }

    /// Ends the role of a joiner that its opener does not have any more.
    fn release(&mut self, joiner: ConnId, end: RoleEnd, outputs: &mut Vec<(ConnId, OutboundMessage<P>)>) {
        self.joiners -= 1;
        match self.conns.get_mut(joiner) {
            Some(Conn { profile, state }) if profile.tenure == Tenure::Renewable => {
                *state = State::Idle { deadline: None };
                outputs.push((joiner, OutboundMessage::RoleEnded(end)));
            }
            _ => {
                self.conns.remove(joiner);
                self.counters.closed += 1;
                outputs.push((joiner, OutboundMessage::Close(end.reason())));
            }
        }
    }

    fn state(&self, conn: ConnId) -> Option<&State> {
        self.conns.get(conn).map(|conn| &conn.state)
    }

    fn set_state(&mut self, conn: ConnId, state: State) {
        if let Some(conn) = self.conns.get_mut(conn) {
            conn.state = state;
        }
    }

    /// A connection without a role asks for one, in time: whatever the answer, it has no deadline any more.
    fn meet_deadline(&mut self, conn: ConnId) {
        if let Some(State::Idle { deadline }) = self.conns.get_mut(conn).map(|conn| &mut conn.state) {
            let deadline = deadline.take();
            self.cancel_deadline(conn, deadline);
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
        for (id, conn) in self.conns.iter() {
            match &conn.state {
                State::Idle { deadline: None } => {}
                State::Idle {
                    deadline: Some(deadline),
                } => {
                    waiting += 1;
                    assert!(self.deadlines.contains(&(*deadline, id)));
                }
                State::Opener { key, joiners, next } => {
                    openers += 1;
                    assert_eq!(self.keys.get(key), Some(&id), "a key points at its opener");
                    for (index, joiner) in joiners {
                        assert!(index.get() < *next);
                        assert!(
                            matches!(self.state(*joiner), Some(State::Joiner { opener, index: i }) if *opener == id && i == index),
                            "a joiner knows its opener and its index"
                        );
                    }
                }
                State::Joiner { opener, index } => {
                    joined += 1;
                    assert!(
                        matches!(self.state(*opener), Some(State::Opener { joiners, .. }) if joiners.get(index) == Some(&id)),
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
