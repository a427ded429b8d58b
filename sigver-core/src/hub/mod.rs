//! The state machine: every transition of a connection's role.
//!
//! ```text
//!                 open                      disconnected, closed: the key is free, and the role of every joiner ends
//!            ┌────────────> Opener(key) ─────────────────────────────────────────┐
//!  connect   │                                                                   v
//!  ────────> Idle ──────────────────────────────────────────────────────────> (dead)
//!            │     no role in time; single-use: a refusal that closes            ^
//!            │────────────> Joiner(opener, index) ───────────────────────────────│
//!            │    join         ^         disconnected, closed: the opener gets PeerLeft
//!            │                 │ the key is opened                               │
//!            └────────────> Waiting(key) ────────────────────────────────────────┘
//!                 join                      disconnected, closed
//! ```
//!
//! A connection with [`RoleLifetime::SingleUse`] is closed when its role ends, or when it has waited in vain. One with
//! [`RoleLifetime::Reusable`] becomes `Idle` when it closes its key, leaves, is kicked, its opener leaves, or it has waited in vain.
//!
//! Tested in `tests/laws/hub.rs` (against a naive model), `tests/exhaustive.rs` and by the transcripts.

mod invariants;
mod requests;
mod waiters;

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{fmt, marker::PhantomData, mem, num::NonZeroU32};

use crate::{
    arena::Arena,
    hub::waiters::{Arrival, Waiters},
    id::{ConnId, Index, Key, PeerId},
    limits::Limits,
    message::{InboundMessage, OutboundMessage},
    payload::Payload,
    profile::{PayloadKind, Profile, RoleLifetime},
    reason::{CloseReason, ConnectError, Refusal, RoleEnd},
    stats::Stats,
    time::Time,
};

/// Messages to send, in order, each with its recipient.
type Outputs<P> = Vec<(ConnId, OutboundMessage<P>)>;

/// The protocol as a state machine: keys, their openers and joiners, and who may send to whom.
///
/// See the [crate documentation](crate) for the run loop and the guarantees. The hub moves payloads of type `P` and keeps none between
/// calls. A message costs O(log n) in connections, keys and joiners.
///
/// With a payload of your own:
///
/// ```
/// use core::time::Duration;
/// use sigver_core::{
///     Addressee, Hub, InboundMessage, Key, Limits, OutboundMessage, PayloadKind, Profile, RoleLifetime, Time,
/// };
///
/// struct Blob(Vec<u8>);
///
/// let limits = Limits::default();
/// let mut hub = Hub::<Blob>::with_payload(limits.clone());
/// let profile = Profile { role_lifetime: RoleLifetime::Reusable, accepts: PayloadKind::Any };
/// let (opener, joiner) = (hub.connect(Time::ZERO, profile)?, hub.connect(Time::ZERO, profile)?);
/// let key = Key::new("tea", &limits)?;
/// let now = Time::ZERO;
/// let _ = hub.handle(now, opener, InboundMessage::Open { key: key.clone(), id: None });
/// let _ = hub.handle(now, joiner, InboundMessage::Join { key, id: None, wait: Duration::ZERO });
///
/// let payload = Blob(vec![1, 2, 3]);
/// let outputs = hub.handle(now, joiner, InboundMessage::Data { to: Addressee::Unnamed, kind: PayloadKind::Any, payload });
/// assert!(matches!(&outputs[..], [(to, OutboundMessage::Data { payload, .. })] if *to == opener && payload.0 == [1, 2, 3]));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Hub<P = Payload> {
    conns: Arena<Conn>,
    keys: BTreeMap<Key, ConnId>,
    /// Of keys that nobody has open.
    waiters: Waiters,
    /// One entry for each idle or waiting connection that has a deadline.
    deadlines: BTreeSet<(Time, ConnId)>,
    limits: Limits,
    /// The counters. [`Hub::stats`] computes the gauges.
    counters: Stats,
    joiners: u32,
    shut_down: bool,
    payload: PhantomData<fn(P) -> P>,
}

/// The role of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It has opened a key.
    Opener,
    /// It has joined a key.
    Joiner,
    /// It waits for a key to be opened, and will then be a joiner.
    Waiting,
}

struct Conn {
    profile: Profile,
    state: State,
}

enum State {
    Idle {
        /// The role deadline, until the first request for a role.
        deadline: Option<Time>,
    },
    /// Boxed, because most connections are joiners.
    Opener(Box<Opener>),
    Waiting(Box<Waiting>),
    Joiner {
        opener: ConnId,
        index: Index,
    },
}

struct Waiting {
    key: Key,
    id: Option<PeerId>,
    arrival: Arrival,
    /// When it has waited in vain; `None` if never.
    deadline: Option<Time>,
}

struct Opener {
    key: Key,
    id: Option<PeerId>,
    joiners: BTreeMap<Index, ConnId>,
    /// The index of the next joiner, which is also the number of joiners so far.
    next: u32,
}

impl Hub {
    /// Creates a hub without connections, for payloads of the type [`Payload`].
    pub fn new(limits: Limits) -> Self {
        Self::with_payload(limits)
    }
}

impl<P> Hub<P> {
    /// Creates a hub without connections, for payloads of another type: `Hub::<P>::with_payload(limits)`.
    pub fn with_payload(limits: Limits) -> Self {
        Self {
            conns: Arena::new(),
            keys: BTreeMap::new(),
            waiters: Waiters::new(),
            deadlines: BTreeSet::new(),
            limits,
            counters: Stats::default(),
            joiners: 0,
            shut_down: false,
            payload: PhantomData,
        }
    }

    /// Adds a connection without a role. If it requests none within [`Limits::role_deadline`], it is closed.
    ///
    /// # Errors
    ///
    /// [`ConnectError::TooManyConnections`] at [`Limits::connections`], and [`ConnectError::ShuttingDown`] after
    /// [`shutdown`](Self::shutdown).
    pub fn connect(&mut self, now: Time, profile: Profile) -> Result<ConnId, ConnectError> {
        if self.shut_down {
            return Err(ConnectError::ShuttingDown);
        }
        if self.conns.len() >= self.limits.connections.map_or(u32::MAX, NonZeroU32::get) {
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

    /// Handles a message from a connection. Returns the messages to send, in order.
    #[must_use = "the outputs must be sent"]
    pub fn handle(&mut self, now: Time, from: ConnId, message: InboundMessage<P>) -> Vec<(ConnId, OutboundMessage<P>)> {
        let mut outputs = Vec::new();
        self.handle_into(now, from, message, &mut outputs);
        outputs
    }

    /// Like [`handle`](Self::handle), but appends to `outputs`, which saves an allocation for each message.
    pub fn handle_into(
        &mut self,
        now: Time,
        from: ConnId,
        message: InboundMessage<P>,
        outputs: &mut Vec<(ConnId, OutboundMessage<P>)>,
    ) {
        match message {
            InboundMessage::Open { key, id } => self.open(from, key, id, outputs),
            InboundMessage::OpenGenerated { .. } => self.close_into(from, CloseReason::Internal, outputs),
            InboundMessage::Join { key, id, wait } => self.join(now, from, key, id, wait, outputs),
            InboundMessage::Meet { key, id } => self.meet(from, key, id, outputs),
            InboundMessage::Data { to, kind, payload } => self.data(from, to, kind, payload, outputs),
            InboundMessage::UnknownControl { to, kind, payload } => match self.state(from) {
                Some(State::Idle { .. }) => self.close_into(from, CloseReason::UnknownType, outputs),
                Some(State::Opener(_) | State::Joiner { .. } | State::Waiting(_)) | None => {
                    self.data(from, to, kind, payload, outputs);
                }
            },
            InboundMessage::Kick { index } => self.kick(from, index, outputs),
            InboundMessage::Leave => self.leave(from, outputs),
            InboundMessage::CloseKey => self.close_key(from, outputs),
            InboundMessage::Ping if self.conns.get(from).is_some() => outputs.push((from, OutboundMessage::Pong)),
            InboundMessage::Ping => {}
        }
    }

    /// Refuses a request for a role by a decision of the embedder, in place of handling it. Like every such request, it cancels the role
    /// deadline. A connection that has a role is refused with [`Refusal::HasRole`], as by [`handle`](Self::handle).
    ///
    /// ```
    /// # use sigver_core::{Dialect, Hub, Key, Limits, OutboundMessage, Refusal, Time};
    /// # let mut hub = Hub::new(Limits::default());
    /// # let guesser = hub.connect(Time::ZERO, Dialect::V1.profile())?;
    /// # let key = Key::new("tea", hub.limits())?;
    /// let outputs = hub.refuse_request(guesser, Refusal::TooManyAttempts { key });
    /// assert!(matches!(&outputs[..], [(to, OutboundMessage::Refused(_))] if *to == guesser));
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    #[must_use = "the outputs must be sent"]
    pub fn refuse_request(&mut self, conn: ConnId, refusal: Refusal) -> Vec<(ConnId, OutboundMessage<P>)> {
        let mut outputs = Vec::new();
        if self.may_take_role(conn, &mut outputs) {
            self.refuse(conn, refusal, &mut outputs);
        }
        outputs
    }

    /// Closes a connection, for example after a violation or as a slow consumer. The first output is its [`OutboundMessage::Close`]; the
    /// others notify its peers.
    ///
    /// The hub does not limit write buffers: the embedder knows their size and calls this.
    ///
    /// ```
    /// # use sigver_core::{CloseReason, Dialect, Hub, Limits, OutboundMessage, Time};
    /// # let mut hub = Hub::new(Limits::default());
    /// # let slow = hub.connect(Time::ZERO, Dialect::Plain.profile())?;
    /// # let (buffered, limit) = (2_000_000, 1_048_576);
    /// if buffered > limit {
    ///     for (to, message) in hub.close(slow, CloseReason::TooSlow) {
    ///         // 1013 to the slow consumer, leave notices to its peers
    /// #       assert!(to == slow && matches!(message, OutboundMessage::Close(CloseReason::TooSlow)));
    ///     }
    /// }
    /// assert!(hub.close(slow, CloseReason::TooSlow).is_empty()); // it is closed already
    /// # Ok::<(), sigver_core::ConnectError>(())
    /// ```
    #[must_use = "the outputs must be sent"]
    pub fn close(&mut self, conn: ConnId, reason: CloseReason) -> Vec<(ConnId, OutboundMessage<P>)> {
        let mut outputs = Vec::new();
        self.close_into(conn, reason, &mut outputs);
        outputs
    }

    /// Like [`close`](Self::close), but appends to `outputs`.
    pub fn close_into(&mut self, conn: ConnId, reason: CloseReason, outputs: &mut Vec<(ConnId, OutboundMessage<P>)>) {
        if let Some(Conn { state, .. }) = self.conns.remove(conn) {
            self.counters.closed += 1;
            outputs.push((conn, OutboundMessage::Close(reason)));
            self.retire(conn, state, outputs);
        }
    }

    /// Removes a connection whose socket is gone. The outputs notify its peers.
    #[must_use = "the outputs must be sent"]
    pub fn disconnect(&mut self, conn: ConnId) -> Vec<(ConnId, OutboundMessage<P>)> {
        let mut outputs = Vec::new();
        if let Some(Conn { state, .. }) = self.conns.remove(conn) {
            self.retire(conn, state, &mut outputs);
        }
        outputs
    }

    /// Closes every connection with [`CloseReason::ShuttingDown`] and accepts no further one.
    #[must_use = "the outputs must be sent"]
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
        self.waiters.clear();
        self.deadlines.clear();
        self.joiners = 0;
        outputs
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due; `None` if there is nothing to wait for. Any call that takes `&mut self`
    /// may change it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Closes every connection whose role deadline has passed, and refuses every join that has waited in vain.
    #[must_use = "the outputs must be sent"]
    pub fn handle_timeout(&mut self, now: Time) -> Vec<(ConnId, OutboundMessage<P>)> {
        let mut outputs = Vec::new();
        while let Some(&(deadline, conn)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            match self.state(conn) {
                Some(State::Waiting(_)) => self.end_wait(conn, &mut outputs),
                Some(State::Idle { .. } | State::Opener(_) | State::Joiner { .. }) | None => {
                    self.close_into(conn, CloseReason::NoRoleInTime, &mut outputs);
                }
            }
        }
        outputs
    }

    /// Restarts every role deadline that has passed. A join that has waited in vain may be sent again, so its wait ends.
    #[cfg(feature = "json")]
    pub(crate) fn restart_deadlines(&mut self, now: Time) {
        let Some(allowed) = self.limits.role_deadline else {
            return;
        };
        let restarted = now.saturating_add(allowed);
        let passed = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        for (deadline, id) in passed.copied().collect::<Vec<_>>() {
            if let Some(State::Idle { deadline: own }) = self.conns.get_mut(id).map(|conn| &mut conn.state) {
                *own = Some(restarted);
                self.deadlines.remove(&(deadline, id));
                self.deadlines.insert((restarted, id));
            }
        }
    }

    /// Returns an id that no connection has or will have.
    #[cfg(feature = "json")]
    pub(crate) fn dead_id(&mut self) -> ConnId {
        let id = self.conns.insert(Conn {
            profile: Profile {
                role_lifetime: RoleLifetime::SingleUse,
                accepts: PayloadKind::Any,
            },
            state: State::Idle { deadline: None },
        });
        self.conns.remove(id);
        id
    }

    /// Returns the gauges and counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.conns.len(),
            keys: self.keys.len() as u32,
            joiners: self.joiners,
            waiting: self.waiters.len(),
            ..self.counters
        }
    }

    /// Returns the role of a connection; `None` if it has none and does not wait for one, or is gone.
    #[must_use]
    pub fn role(&self, conn: ConnId) -> Option<Role> {
        match self.state(conn)? {
            State::Idle { .. } => None,
            State::Opener(_) => Some(Role::Opener),
            State::Joiner { .. } => Some(Role::Joiner),
            State::Waiting(_) => Some(Role::Waiting),
        }
    }

    /// Returns the opener of a joiner.
    #[cfg(feature = "json")]
    pub(crate) fn opener_of(&self, conn: ConnId) -> Option<ConnId> {
        match self.state(conn)? {
            State::Joiner { opener, .. } => Some(*opener),
            State::Idle { .. } | State::Waiting(_) | State::Opener { .. } => None,
        }
    }

    /// Returns the opener of a key.
    #[cfg(feature = "json")]
    pub(crate) fn opener(&self, key: &Key) -> Option<ConnId> {
        self.keys.get(key).copied()
    }

    /// Returns the limits that the hub was created with.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Refuses a request. Every refusal goes through here.
    fn refuse(&mut self, conn: ConnId, refusal: Refusal, outputs: &mut Outputs<P>) {
        self.counters.refused += 1;
        let end = match self.conns.get(conn).map(|conn| conn.profile.role_lifetime) {
            Some(RoleLifetime::SingleUse) => refusal.closes(),
            Some(RoleLifetime::Reusable) | None => None,
        };
        match end {
            Some(reason) => self.close_into(conn, reason, outputs),
            None => outputs.push((conn, OutboundMessage::Refused(refusal))),
        }
    }

    /// Notifies the peers of a connection whose role has ended.
    fn retire(&mut self, conn: ConnId, state: State, outputs: &mut Outputs<P>) {
        match state {
            State::Idle { deadline } => self.cancel_deadline(conn, deadline),
            State::Waiting(waiting) => {
                self.waiters.remove(&waiting.key, waiting.arrival);
                self.cancel_deadline(conn, waiting.deadline);
            }
            State::Opener(opener) => {
                self.keys.remove(&opener.key);
                for joiner in opener.joiners.into_values() {
                    self.release(joiner, RoleEnd::OpenerLeft, outputs);
                }
            }
            State::Joiner { opener, index } => {
                if let Some(State::Opener(its)) = self.conns.get_mut(opener).map(|conn| &mut conn.state) {
                    its.joiners.remove(&index);
                    self.joiners -= 1;
                    outputs.push((opener, OutboundMessage::PeerLeft { index }));
                }
            }
        }
    }

    /// Ends the role of a joiner that was removed from its opener.
    fn release(&mut self, joiner: ConnId, end: RoleEnd, outputs: &mut Outputs<P>) {
        self.joiners -= 1;
        match self.conns.get_mut(joiner) {
            Some(Conn { profile, state }) if profile.role_lifetime == RoleLifetime::Reusable => {
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

    /// Sets the state of a connection. Returns the previous one; `None` if the connection is gone.
    fn replace_state(&mut self, conn: ConnId, state: State) -> Option<State> {
        let conn = self.conns.get_mut(conn)?;
        Some(mem::replace(&mut conn.state, state))
    }

    /// Removes the role deadline of a connection that has asked for a role and waits.
    #[cfg(feature = "json")]
    pub(crate) fn meet_deadline(&mut self, conn: ConnId) {
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
}

impl<P> fmt::Debug for Hub<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
