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
//! A connection with [`RoleLifetime::SingleUse`] is closed when its role ends, or when its wait ends without a role. One with
//! [`RoleLifetime::Reusable`] becomes `Idle` when it closes its key, leaves, is kicked, its opener leaves, or its wait ends without a role.
//!
//! Tested in `tests/laws/hub.rs` (against a naive model), `tests/exhaustive.rs` and by the transcripts.

mod invariants;
mod requests;
mod reserved;
mod takeover;
mod waiters;

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::{fmt, marker::PhantomData, mem, num::NonZeroU32};

use crate::{
    arena::Arena,
    hub::{
        reserved::{Reservation, Reservations},
        waiters::{Arrival, Waiters},
    },
    id::{ConnId, Index, Key, PeerId},
    limits::Limits,
    message::{InboundMessage, OutboundMessage},
    payload::Payload,
    profile::{PayloadKind, Profile, RoleLifetime},
    reason::{CloseReason, ConnectError, Refusal, RoleEnd},
    stats::Stats,
    time::Time,
    token::Token,
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
/// let _ = hub.handle(now, opener, InboundMessage::Open { key: key.clone(), id: None, token: None, new_token: None });
/// let _ = hub.handle(now, joiner, InboundMessage::Join { key, id: None, wait: Duration::ZERO });
///
/// let payload = Blob(vec![1, 2, 3]);
/// let outputs = hub.handle(now, joiner, InboundMessage::Data { to: Addressee::Unnamed, kind: PayloadKind::Any, payload });
/// assert!(matches!(&outputs[..], [(to, OutboundMessage::Data { payload, .. })] if *to == opener && payload.0 == [1, 2, 3]));
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Hub<P = Payload> {
    conns: Arena<Conn>,
    keys: BTreeMap<Key, Holder>,
    /// One entry for each reserved key.
    reservations: Reservations,
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

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disconnect {
    /// The client closed it with a close frame. Its key is free at once.
    Clean,
    /// The transport ended without a close frame. The key of an opener with a token is reserved for it
    /// ([`Limits::reserve`](crate::Limits::reserve)).
    Lost,
}

/// Who has a key.
enum Holder {
    Opener(ConnId),
    /// Nobody, but it is kept for the token.
    Reserved {
        token: Token,
        reservation: Reservation,
    },
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
        id: Option<PeerId>,
    },
}

struct Waiting {
    key: Key,
    id: Option<PeerId>,
    arrival: Arrival,
    /// When the wait ends without a role; `None` if it does not end.
    deadline: Option<Time>,
}

struct Opener {
    key: Key,
    id: Option<PeerId>,
    /// Moves the role to the connection that shows it. `None`: nothing does.
    token: Option<Token>,
    /// Whether the key is reserved if the connection is lost.
    reservable: bool,
    joiners: BTreeMap<Index, ConnId>,
    /// The index of the next joiner, which is also the number of joiners so far.
    next: u32,
}

/// What a connection brings that becomes an opener.
struct NewOpener {
    id: Option<PeerId>,
    token: Option<Token>,
    /// Whether it opens the key and does not meet: those that meet again find a free key.
    reservable: bool,
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
            reservations: Reservations::new(),
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
        if self.waits_unnoticed(from) {
            return self.end_wait(from, outputs);
        }
        match message {
            InboundMessage::Open {
                key,
                id,
                token,
                new_token,
            } => {
                let new = NewOpener {
                    id,
                    token: new_token,
                    reservable: true,
                };
                self.open(from, key, token.as_ref(), new, outputs);
            }
            InboundMessage::OpenGenerated { .. } => self.end(from, CloseReason::Internal, None, outputs),
            InboundMessage::Join { key, id, wait } => self.join(now, from, key, id, wait, outputs),
            InboundMessage::Meet {
                key,
                id,
                token,
                new_token,
                allowed,
            } => {
                let new = NewOpener {
                    id,
                    token: new_token,
                    reservable: false,
                };
                self.meet(from, key, token.as_ref(), new, allowed, outputs);
            }
            InboundMessage::NotAllowed { key } => {
                if self.may_take_role(from, outputs) {
                    self.refuse(from, Refusal::NotAllowed { key }, outputs);
                }
            }
            InboundMessage::Data { to, kind, payload } => self.data(from, to, kind, payload, outputs),
            InboundMessage::UnknownControl { to, kind, payload } => match self.state(from) {
                Some(State::Idle { .. }) => self.end(from, CloseReason::UnknownType, None, outputs),
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
    /// others notify its peers. If the reason is [`TokenExpired`](CloseReason::TokenExpired), a [`RoleEnd`] may precede them.
    ///
    /// The hub does not limit write buffers: the embedder knows their size and calls this. If the reason is
    /// [`TooSlow`](CloseReason::TooSlow) or [`Silent`](CloseReason::Silent), the key of an opener with a token is reserved for it
    /// ([`Limits::reserve`]). Otherwise, it is free at once.
    ///
    /// ```
    /// # use sigver_core::{CloseReason, Dialect, Hub, Limits, OutboundMessage, Time};
    /// # let (mut hub, now) = (Hub::new(Limits::default()), Time::ZERO);
    /// # let slow = hub.connect(now, Dialect::Plain.profile())?;
    /// # let (buffered, limit) = (2_000_000, 1_048_576);
    /// if buffered > limit {
    ///     for (to, message) in hub.close(now, slow, CloseReason::TooSlow) {
    ///         // 1013 to the slow consumer, leave notices to its peers
    /// #       assert!(to == slow && matches!(message, OutboundMessage::Close(CloseReason::TooSlow)));
    ///     }
    /// }
    /// assert!(hub.close(now, slow, CloseReason::TooSlow).is_empty()); // it is closed already
    /// # Ok::<(), sigver_core::ConnectError>(())
    /// ```
    #[must_use = "the outputs must be sent"]
    pub fn close(&mut self, now: Time, conn: ConnId, reason: CloseReason) -> Vec<(ConnId, OutboundMessage<P>)> {
        let mut outputs = Vec::new();
        self.close_into(now, conn, reason, &mut outputs);
        outputs
    }

    /// Like [`close`](Self::close), but appends to `outputs`.
    pub fn close_into(
        &mut self,
        now: Time,
        conn: ConnId,
        reason: CloseReason,
        outputs: &mut Vec<(ConnId, OutboundMessage<P>)>,
    ) {
        if reason == CloseReason::TokenExpired {
            self.announce_expiry(conn, outputs);
        }
        self.end(conn, reason, reason.is_loss().then_some(now), outputs);
    }

    /// Removes a connection whose socket is gone. The outputs notify its peers.
    #[must_use = "the outputs must be sent"]
    pub fn disconnect(&mut self, now: Time, conn: ConnId, how: Disconnect) -> Vec<(ConnId, OutboundMessage<P>)> {
        let mut outputs = Vec::new();
        if let Some(Conn { state, .. }) = self.conns.remove(conn) {
            self.retire(conn, state, (how == Disconnect::Lost).then_some(now), &mut outputs);
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
        self.reservations.clear();
        self.waiters.clear();
        self.deadlines.clear();
        self.joiners = 0;
        outputs
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is due; `None` if there is nothing to wait for. Any call that takes `&mut self`
    /// may change it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        deadline.into_iter().chain(self.reservations.next()).min()
    }

    /// Closes every connection whose role deadline has passed, refuses every join whose wait is over, and ends every reservation whose
    /// time is over.
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
                    self.end(conn, CloseReason::NoRoleInTime, None, &mut outputs);
                }
            }
        }
        while let Some(key) = self.reservations.pop_due(now) {
            self.keys.remove(&key);
        }
        outputs
    }

    /// Restarts every role deadline and every reservation that has passed, and the wait of every client that cannot send its join again.
    #[cfg(feature = "json")]
    pub(crate) fn restart_deadlines(&mut self, now: Time) {
        let role_deadline = now.saturating_add(self.limits.role_deadline.unwrap_or_default());
        let end_of_grace = now.saturating_add(self.limits.plain_join_grace);
        let passed = self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now);
        for (deadline, id) in passed.copied().collect::<Vec<_>>() {
            let waits_unnoticed = self.waits_unnoticed(id);
            let (own, restarted) = match self.conns.get_mut(id).map(|conn| &mut conn.state) {
                Some(State::Idle { deadline }) => (deadline, role_deadline),
                Some(State::Waiting(waiting)) if waits_unnoticed => (&mut waiting.deadline, end_of_grace),
                Some(State::Waiting(_) | State::Opener(_) | State::Joiner { .. }) | None => continue,
            };
            *own = Some(restarted);
            self.deadlines.remove(&(deadline, id));
            self.deadlines.insert((restarted, id));
        }
        let restarted = now.saturating_add(self.limits.reserve);
        let passed: Vec<_> = core::iter::from_fn(|| self.reservations.pop_due(now)).collect();
        for key in passed {
            if let Some(Holder::Reserved { reservation, .. }) = self.keys.get_mut(&key) {
                *reservation = self.reservations.insert(restarted, key);
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
            keys: self.keys.len() as u32 - self.reservations.len(),
            reserved: self.reservations.len(),
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

    /// Returns the opener of a joiner, and the joiner's number there.
    #[cfg(feature = "json")]
    pub(crate) fn place(&self, conn: ConnId) -> Option<(ConnId, Index)> {
        match self.state(conn)? {
            State::Joiner { opener, index, .. } => Some((*opener, *index)),
            State::Idle { .. } | State::Waiting(_) | State::Opener { .. } => None,
        }
    }

    /// Returns the key of a connection's role.
    #[cfg(feature = "json")]
    pub(crate) fn key(&self, conn: ConnId) -> Option<&Key> {
        match self.state(conn)? {
            State::Idle { .. } => None,
            State::Opener(opener) => Some(&opener.key),
            State::Waiting(waiting) => Some(&waiting.key),
            State::Joiner { opener, .. } => match self.state(*opener)? {
                State::Opener(opener) => Some(&opener.key),
                State::Idle { .. } | State::Waiting(_) | State::Joiner { .. } => None,
            },
        }
    }

    /// Frees a reserved key. Returns whether it was reserved.
    #[cfg(feature = "json")]
    pub(crate) fn end_reservation(&mut self, key: &Key) -> bool {
        let Some(Holder::Reserved { reservation, .. }) = self.keys.get(key) else {
            return false;
        };
        self.reservations.remove(*reservation);
        self.keys.remove(key);
        true
    }

    /// Returns the opener of a key.
    #[cfg(feature = "json")]
    pub(crate) fn opener(&self, key: &Key) -> Option<ConnId> {
        match self.keys.get(key)? {
            Holder::Opener(opener) => Some(*opener),
            Holder::Reserved { .. } => None,
        }
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
            Some(reason) => self.end(conn, reason, None, outputs),
            None => outputs.push((conn, OutboundMessage::Refused(refusal))),
        }
    }

    /// Sends [`RoleEnd::TokenExpired`] to a connection that has a role, if its roles are reusable.
    fn announce_expiry(&self, conn: ConnId, outputs: &mut Outputs<P>) {
        if let Some(Conn { profile, state }) = self.conns.get(conn) {
            let has_role = matches!(state, State::Opener(_) | State::Joiner { .. });
            if has_role && profile.role_lifetime == RoleLifetime::Reusable {
                outputs.push((conn, OutboundMessage::RoleEnded(RoleEnd::TokenExpired)));
            }
        }
    }

    /// Closes a connection. `lost` is the current time if the hub reserves its key.
    fn end(&mut self, conn: ConnId, reason: CloseReason, lost: Option<Time>, outputs: &mut Outputs<P>) {
        if let Some(Conn { state, .. }) = self.conns.remove(conn) {
            self.counters.closed += 1;
            outputs.push((conn, OutboundMessage::Close(reason)));
            self.retire(conn, state, lost, outputs);
        }
    }

    /// Notifies the peers of a connection whose role has ended. `lost` is the current time if the hub reserves its key.
    fn retire(&mut self, conn: ConnId, state: State, lost: Option<Time>, outputs: &mut Outputs<P>) {
        match state {
            State::Idle { deadline } => self.cancel_deadline(conn, deadline),
            State::Waiting(waiting) => {
                self.waiters.remove(&waiting.key, waiting.arrival);
                self.cancel_deadline(conn, waiting.deadline);
            }
            State::Opener(opener) => {
                self.keys.remove(&opener.key);
                if let (Some(now), Some(token), true) = (lost, opener.token, opener.reservable) {
                    self.reserve(now, opener.key, token);
                }
                for joiner in opener.joiners.into_values() {
                    self.release(joiner, RoleEnd::OpenerLeft, outputs);
                }
            }
            State::Joiner { opener, index, .. } => {
                if let Some(State::Opener(its)) = self.conns.get_mut(opener).map(|conn| &mut conn.state) {
                    its.joiners.remove(&index);
                    self.joiners -= 1;
                    outputs.push((opener, OutboundMessage::PeerLeft { index }));
                }
            }
        }
    }

    /// Reserves a free key. If there are as many reservations as there may be, this ends the oldest.
    fn reserve(&mut self, now: Time, key: Key, token: Token) {
        if self.limits.reserve.is_zero() {
            return;
        }
        let most = self.limits.reserved_keys.or(self.limits.connections);
        if self.reservations.len() >= most.map_or(u32::MAX, NonZeroU32::get) {
            if let Some(oldest) = self.reservations.pop_first() {
                self.keys.remove(&oldest);
            }
        }
        let until = now.saturating_add(self.limits.reserve);
        let reservation = self.reservations.insert(until, key.clone());
        self.keys.insert(key, Holder::Reserved { token, reservation });
    }

    /// Ends the role of a joiner that was removed from its opener.
    fn release(&mut self, joiner: ConnId, end: RoleEnd, outputs: &mut Outputs<P>) {
        self.joiners -= 1;
        let Some(conn) = self.conns.get_mut(joiner) else { return };
        conn.state = State::Idle { deadline: None };
        match (conn.profile.role_lifetime, end.reason()) {
            (RoleLifetime::SingleUse, Some(reason)) => self.end(joiner, reason, None, outputs),
            (RoleLifetime::SingleUse, None) | (RoleLifetime::Reusable, _) => {
                outputs.push((joiner, OutboundMessage::RoleEnded(end)));
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

    /// Whether a connection is an opener whose key is reserved if it is lost.
    #[cfg(feature = "json")]
    pub(crate) fn is_reservable(&self, conn: ConnId) -> bool {
        matches!(self.state(conn), Some(State::Opener(opener)) if opener.reservable && opener.token.is_some())
    }

    /// Frees the key of an opener at once if it is lost.
    #[cfg(feature = "json")]
    pub(crate) fn forgo_reservation(&mut self, conn: ConnId) {
        if let Some(State::Opener(opener)) = self.conns.get_mut(conn).map(|conn| &mut conn.state) {
            opener.reservable = false;
        }
    }

    /// Whether a connection with a single-use role waits for a key. Its dialect has no message for that.
    fn waits_unnoticed(&self, conn: ConnId) -> bool {
        self.conns.get(conn).is_some_and(|conn| {
            conn.profile.role_lifetime == RoleLifetime::SingleUse && matches!(conn.state, State::Waiting(_))
        })
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
