//! The laws of the hub, for random calls. The documentation of each law names mutations of the code that the law has detected.

use core::time::Duration;

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::Index as Pick};

use sigver_core::{
    Addressee, AllowedRoles, CloseReason, ConnId, Disconnect, Index, Limits, PayloadKind, Profile, RoleLifetime, Stats,
    Time,
};

use crate::{
    hub_driver::{Event, HubDriver, assert_indexes, assert_nothing_after_close, assert_order, resigned},
    model::{Model, PLAIN, Sent, Step, Tokens, V1},
    runs::{KEYS, Run, SECOND_WORLD, runs, runs_without_global_limits, two_worlds},
    search::for_all,
};

/// Every call returns the same as the model, and all observable state is the same.
///
/// Detects one joiner too many (`>` for `>=` in `join`), a second `open` that succeeds, and data of an opener that goes to its first joiner
/// whatever its index.
#[test]
fn hub_agrees_with_the_model() {
    for_all(runs(), |Run { limits, steps }| {
        let (mut driver, mut model) = (HubDriver::new(&limits), Model::new(&limits));
        for step in steps {
            assert_eq!(driver.play(step), model.play(step), "{step:?}");
            assert_eq!(driver.stats(), model.stats(), "after {step:?}");
            let next = driver.hub.poll_timeout().map(Time::as_duration);
            assert_eq!(next, model.next_timeout(), "after {step:?}");
            driver.hub.assert_invariants();
        }
    });
}

/// The payload of a call is in exactly one output of the call; or it is counted as dropped or refused; or its sender is closed for a
/// violation or was closed before. It is dropped exactly once. So no payload is duplicated, lost, forged or kept.
///
/// Detects data of a joiner that is lost, a dropped message that is not counted, and a dropped payload that is leaked (`mem::forget`).
#[test]
fn payload_is_delivered_once_or_accounted_for() {
    for_all(runs(), |Run { limits, steps }| {
        let (mut driver, mut observed) = (HubDriver::new(&limits), Observed::default());
        for step in steps {
            let before = driver.stats();
            let result = driver.call(step);
            let after = driver.stats();
            let sent = driver.read(&result);
            let carried: Vec<usize> = sent.iter().filter_map(|(_, sent)| token(sent)).collect();

            if let Step::Data { who, token, .. } | Step::UnknownControl { who, token, .. } = step {
                let delivered = carried.len() as u64;
                let dropped = after.dropped - before.dropped;
                let refused = after.refused - before.refused - dropped;
                let has_unknown_index = sent.iter().any(|(_, sent)| is_refused_as(sent, "unknown-index"));
                assert_eq!(dropped, u64::from(has_unknown_index), "{step:?}: {sent:?}");
                let is_violation_of_sender = sent.iter().any(|(to, sent)| *to == who && is_violation(sent));
                let is_dead = !observed.roles.contains_key(&who);
                let results = delivered + dropped + refused + u64::from(is_violation_of_sender) + u64::from(is_dead);
                assert_eq!(results, 1, "{step:?}: {sent:?}");
                assert_eq!(after.relayed - before.relayed, delivered, "{step:?}");
                assert!(carried.iter().all(|carried| *carried == token));
                assert_eq!(u64::from(driver.drops_of(token)), 1 - delivered);
                drop(result);
                assert_eq!(driver.drops_of(token), 1, "the recipient has the only one");
            } else {
                assert!(carried.is_empty(), "{step:?} has no payload");
                let counted = |stats: Stats| (stats.relayed, stats.dropped);
                assert_eq!(counted(after), counted(before), "{step:?} has no payload");
            }
            observed.record_event(&Event { step, sent });
        }
    });
}

/// A refusal goes to the sender of the request only and changes nothing: without the request, the rest of the run is the same. There are no
/// role deadlines here, because a request for a role ends the deadline. A join that waits is not refused yet.
///
/// Detects a refused joiner that uses an index, and a refusal that goes to the addressee.
#[test]
fn refused_request_changes_nothing() {
    for_all(runs(), |Run { mut limits, mut steps }| {
        limits.role_deadline = None;
        let whole = record(&limits, &steps);
        let is_refused = |event: &Event| {
            event.step != Step::Timeout && event.sent.iter().any(|(_, sent)| matches!(sent, Sent::Refused { .. }))
        };
        for event in whole.iter().filter(|event| is_refused(event)) {
            assert!(
                matches!(event.sent[..], [(to, _)] if Some(to) == actor(&event.step)),
                "{event:?}"
            );
        }
        let mut refused = whole.iter().map(is_refused);
        steps.retain(|_| !refused.next().unwrap_or_default());
        let without: Vec<Event> = whole.iter().filter(|event| !is_refused(event)).cloned().collect();
        assert_eq!(record(&limits, &steps), without);
    });
}

/// Connections of some keys receive the same messages with and without all other connections, if no connection uses keys of both groups.
///
/// Detects indexes that are counted for the whole hub, an opener that removes every key (`keys.clear()`), and an `open` that cancels every
/// deadline.
#[test]
fn different_keys_do_not_affect_each_other() {
    for_all(two_worlds(), |Run { limits, steps }| {
        let whole = record(&limits, &steps);
        for second in [false, true] {
            let is_ours = |who: usize| (who >= SECOND_WORLD) == second;
            let ours = steps.iter().filter(|step| actor(step).is_none_or(is_ours));
            let alone = record(&limits, &ours.copied().collect::<Vec<_>>());
            assert_eq!(sent_to(is_ours, &whole), sent_to(is_ours, &alone));
        }
    });
}

/// From one sender to one recipient: first in, first out. Nothing about a joiner precedes its `PeerJoined` or follows its `PeerLeft`.
/// Nothing of a role precedes its `Opened` or `Joined` or follows its end.
///
/// Detects a payload that is delivered after the next one, a missing `PeerJoined`, and a `PeerJoined` with another index than the joiner's
/// data.
#[test]
fn messages_arrive_in_order() {
    for_all(runs(), |Run { limits, steps }| {
        assert_order(&record(&limits, &steps));
    });
}

/// Nothing is sent to a connection after its `Close`, or after it is gone.
///
/// Detects joiners that stay in the arena after their opener left, and a second notice that the opener left.
#[test]
fn nothing_is_sent_after_close() {
    for_all(runs(), |Run { limits, steps }| {
        assert_nothing_after_close(&record(&limits, &steps));
    });
}

/// Calls with ids that are dead or were never assigned return nothing and change nothing, now or later.
///
/// Detects ids without a generation, so that a dead id names the next connection in its slot, a `close` that returns `Close` for a dead id,
/// and data of a dead id that is counted as dropped.
#[test]
fn dead_ids_are_inert() {
    for_all(runs(), |Run { limits, steps }| {
        let (mut driver, mut observed) = (HubDriver::new(&limits), Observed::default());
        for event in record(&limits, &steps) {
            assert_eq!(driver.play(event.step), event.sent, "{:?}", event.step);
            observed.record_event(&event);
            let before = (driver.stats(), driver.hub.poll_timeout());
            for call in observed.dead.iter().flat_map(|who| calls_of(*who)) {
                assert_eq!(driver.play(call), [], "{call:?} after {:?}", event.step);
            }
            for slot in 0..4 {
                let unassigned = ConnId::from_bits(u64::from(u32::MAX) << 32 | slot);
                let (now, hub) = (driver.now, &mut driver.hub);
                assert!(hub.close(now, unassigned, CloseReason::TooSlow).is_empty());
                assert!(hub.disconnect(now, unassigned, Disconnect::Lost).is_empty());
            }
            assert_eq!((driver.stats(), driver.hub.poll_timeout()), before);
        }
    });
}

/// When joiners end, their places are free. When all connections end, in any way, and the time of the reservations is over, every gauge is 0
/// and no timeout is due. Unless it was shut down, the hub then behaves like a new one.
///
/// Detects a joiner that stays in its opener's table, an opener whose key is not freed, the deadline of an ended connection that remains,
/// and keys that remain after a shutdown.
#[test]
fn no_state_remains_after_connections_end() {
    let ends = prop::collection::vec((any::<Pick>(), prop::sample::select(ENDS)), 1..16);
    for_all((runs_without_global_limits(), ends), |(run, ends)| {
        let Run { limits, mut steps } = run;
        steps.retain(|step| *step != Step::Shutdown);
        let mut shut_down = Session::after(&limits, &steps);
        shut_down.play(Step::Shutdown);
        shut_down.assert_empty();

        let mut session = Session::after(&limits, &steps);
        session.end_all(&ends, |role| role == ObservedRole::Joiner);
        assert_eq!(session.driver.stats().joiners, 0);
        for key in session.open_keys() {
            session.fill(key, limits.joiners_per_key);
        }
        session.end_all(&ends, |_| true);
        session.end_reservations(&limits);
        session.assert_empty();
        for key in 0..KEYS {
            session.open(key);
            let indexes = session.fill(key, limits.joiners_per_key);
            assert!(indexes.into_iter().eq(0..limits.joiners_per_key));
        }
    });
}

/// The joiners of an opener have the indexes 0, 1, 2, … in the order in which they join, from 0 for each key that it opens. Refused joiners
/// use no index, no index is reused, and joiner and opener receive the same index.
///
/// Detects an index that is the number of present joiners, a refused joiner that uses an index, and different indexes at joiner and opener.
#[test]
fn indexes_count_from_zero_without_gaps() {
    for_all(runs(), |Run { limits, steps }| {
        assert_indexes(&record(&limits, &steps));
    });
}

/// A timeout closes exactly the connections that have not requested a role by their deadline, whether the request succeeds or not. A
/// connection that had a role has no deadline. After the timeout, the next one is in the future.
///
/// Detects a deadline that must be exceeded and not just reached (`>=` for `>` in `handle_timeout`), a timeout that closes every connection
/// without a role, and one that closes a single connection.
#[test]
fn role_deadline_closes_exactly_the_late_connections() {
    for_all(runs(), |Run { limits, steps }| {
        let (mut driver, mut observed) = (HubDriver::new(&limits), Observed::default());
        let mut since = BTreeMap::new();
        for step in steps {
            let now = driver.now;
            let due = |since: &Time| since.checked_add(limits.role_deadline?);
            let late: Vec<_> = observed
                .without_request()
                .filter(|who| due(&since[who]).is_some_and(|due| due <= now))
                .map(|who| (who, Sent::Close(CloseReason::NoRoleInTime)))
                .collect();
            let sent = driver.play(step);
            let closed: Vec<_> = sent
                .iter()
                .copied()
                .filter(|(_, sent)| is_role_deadline(sent))
                .collect();
            match step {
                Step::Connect { who, .. } => drop(since.insert(who, now)),
                Step::Timeout => assert_eq!(closed, late),
                Step::Close { .. } => {}
                _ => assert_eq!(closed, [], "{step:?}"),
            }
            observed.record_event(&Event { step, sent });
            let next = observed.without_request().filter_map(|who| due(&since[&who])).min();
            let polled = driver.hub.poll_timeout();
            assert!(
                next.is_none() || polled.is_some_and(|polled| Some(polled) <= next),
                "after {step:?}"
            );
            assert!(step != Step::Timeout || next.is_none_or(|next| next > now));
        }
    });
}

/// Returns the events of a run on a new hub.
fn record(limits: &Limits, steps: &[Step]) -> Vec<Event> {
    let mut driver = HubDriver::new(limits);
    let play = |&step| Event {
        step,
        sent: driver.play(step),
    };
    steps.iter().map(play).collect()
}

/// The role of a connection, as far as its messages show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ObservedRole {
    Idle,
    Opener { key: usize },
    Joiner,
    Waiting,
}

/// The open and the dead connections, as far as messages show.
#[derive(Default)]
pub(crate) struct Observed {
    pub(crate) roles: BTreeMap<usize, ObservedRole>,
    /// Connections that may have several roles.
    pub(crate) reusable: BTreeSet<usize>,
    /// Connections that have never requested a role.
    pub(crate) without_request: BTreeSet<usize>,
    pub(crate) dead: BTreeSet<usize>,
}

impl Observed {
    pub(crate) fn record_event(&mut self, event: &Event) {
        match event.step {
            Step::Connect { who, profile } => self.connect(who, profile),
            Step::Open { who, .. }
            | Step::Join { who, .. }
            | Step::Meet { who, .. }
            | Step::NotAllowed { who, .. }
            | Step::Throttle { who, .. } => {
                self.without_request.remove(&who);
            }
            Step::Disconnect { who, .. } => self.mark_ended(who),
            _ => {}
        }
        for (to, sent) in &event.sent {
            match sent {
                Sent::Rejected(_) => self.remove(*to),
                Sent::Opened { key, .. } => self.set_role(*to, ObservedRole::Opener { key: *key }),
                Sent::Joined { .. } => self.set_role(*to, ObservedRole::Joiner),
                Sent::Waiting { .. } => self.set_role(*to, ObservedRole::Waiting),
                // In other steps, a request of a waiter is refused and its wait goes on.
                Sent::Refused { .. } if event.step == Step::Timeout => self.set_role(*to, ObservedRole::Idle),
                Sent::RoleEnded(_) => self.set_role(*to, ObservedRole::Idle),
                Sent::Close(_) => self.mark_ended(*to),
                Sent::Present { .. }
                | Sent::Reopened { .. }
                | Sent::PeerJoined { .. }
                | Sent::Data { .. }
                | Sent::PeerLeft { .. }
                | Sent::Refused { .. }
                | Sent::Pong => {}
            }
        }
        if let Some(who) = resigned(event) {
            self.set_role(who, ObservedRole::Idle);
        }
    }

    fn without_request(&self) -> impl Iterator<Item = usize> {
        self.without_request.iter().copied()
    }

    pub(crate) fn who(&self, is: impl Fn(ObservedRole) -> bool) -> impl Iterator<Item = usize> {
        let roles = self.roles.iter();
        roles.filter_map(move |(who, role)| is(*role).then_some(*who))
    }

    fn connect(&mut self, who: usize, profile: Profile) {
        self.roles.insert(who, ObservedRole::Idle);
        self.without_request.insert(who);
        if profile.role_lifetime == RoleLifetime::Reusable {
            self.reusable.insert(who);
        }
    }

    /// Sets the role, unless the connection is dead.
    fn set_role(&mut self, who: usize, role: ObservedRole) {
        if let Some(now) = self.roles.get_mut(&who) {
            *now = role;
        }
    }

    fn mark_ended(&mut self, who: usize) {
        if self.roles.contains_key(&who) {
            self.remove(who);
            self.dead.insert(who);
        }
    }

    fn remove(&mut self, who: usize) {
        self.roles.remove(&who);
        self.without_request.remove(&who);
    }
}

/// How a connection or its role ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The embedder closes it.
    Close,
    /// It disconnects.
    Disconnect,
    /// It ends its role, if it may have another, and disconnects otherwise.
    Resign,
}

const ENDS: &[End] = &[End::Close, End::Disconnect, End::Resign];

/// A hub after a run, for further calls.
struct Session {
    driver: HubDriver,
    observed: Observed,
    /// The name of the next client. Names of the run are smaller.
    next: usize,
}

impl Session {
    fn after(limits: &Limits, steps: &[Step]) -> Self {
        let mut session = Self {
            driver: HubDriver::new(limits),
            observed: Observed::default(),
            next: 1_000,
        };
        for step in steps {
            session.play(*step);
        }
        session
    }

    fn play(&mut self, step: Step) -> Vec<(usize, Sent)> {
        let sent = self.driver.play(step);
        let event = Event { step, sent };
        self.observed.record_event(&event);
        event.sent
    }

    fn assert_empty(&self) {
        let stats = self.driver.stats();
        assert_eq!(
            (
                stats.connections,
                stats.keys,
                stats.joiners,
                stats.waiting,
                stats.reserved
            ),
            (0, 0, 0, 0, 0)
        );
        assert_eq!(self.driver.hub.poll_timeout(), None);
        self.driver.hub.assert_invariants();
    }

    /// Waits until no key is reserved.
    fn end_reservations(&mut self, limits: &Limits) {
        let now = self.driver.now;
        let time = limits.reserve.min(Duration::MAX - now.as_duration());
        self.play(Step::Wait { time });
        assert_eq!(self.play(Step::Timeout), []);
    }

    /// Connects a client. The dialect alternates.
    fn connect_client(&mut self) -> usize {
        let who = self.next;
        self.next += 1;
        let profile = if who.is_multiple_of(2) { PLAIN } else { V1 };
        assert_eq!(self.play(Step::Connect { who, profile }), []);
        who
    }

    fn open(&mut self, key: usize) {
        let who = self.connect_client();
        let (id, tokens) = (None, Tokens::default());
        let sent = self.play(Step::Open { who, key, id, tokens });
        assert_eq!(sent, [(who, Sent::Opened { key, token: None })]);
    }

    /// Connects `count` joiners to `key`, and one more that is refused. Returns the indexes.
    fn fill(&mut self, key: usize, count: u32) -> Vec<u32> {
        let mut indexes = Vec::new();
        for _ in 0..count {
            let who = self.connect_client();
            match self.play(Step::Join {
                who,
                key,
                id: None,
                wait: Duration::ZERO,
            })[..]
            {
                [(to, Sent::Joined { index, .. }), _] if to == who => indexes.push(index),
                ref sent => panic!("joiner is refused: {sent:?}"),
            }
        }
        let who = self.connect_client();
        let sent = self.play(Step::Join {
            who,
            key,
            id: None,
            wait: Duration::ZERO,
        });
        let is_refusal =
            |sent: &Sent| is_too_many_joiners(sent) && is_close(sent) != self.observed.reusable.contains(&who);
        assert!(
            matches!(&sent[..], [(to, sent)] if *to == who && is_refusal(sent)),
            "{sent:?}"
        );
        indexes
    }

    fn open_keys(&self) -> Vec<usize> {
        let roles = self.observed.roles.values();
        roles
            .filter_map(|role| match role {
                ObservedRole::Opener { key } => Some(*key),
                ObservedRole::Idle | ObservedRole::Joiner | ObservedRole::Waiting => None,
            })
            .collect()
    }

    /// Ends all connections with such a role, or the roles, in any order and in every way.
    fn end_all(&mut self, ends: &[(Pick, End)], is: impl Fn(ObservedRole) -> bool) {
        for (pick, end) in ends.iter().cycle() {
            let left: Vec<usize> = self.observed.who(&is).collect();
            if left.is_empty() {
                return;
            }
            let who = *pick.get(&left);
            let role = self.observed.roles[&who];
            let resigns = *end == End::Resign && self.observed.reusable.contains(&who);
            let reason = CloseReason::TooSlow;
            self.play(match (end, role) {
                (End::Close, _) => Step::Close { who, reason },
                (End::Resign, ObservedRole::Joiner | ObservedRole::Waiting) if resigns => Step::Leave { who },
                (End::Resign, ObservedRole::Opener { .. }) if resigns => Step::CloseKey { who },
                (End::Resign | End::Disconnect, _) => Step::Disconnect {
                    who,
                    how: Disconnect::Lost,
                },
            });
            assert_ne!(self.observed.roles.get(&who), Some(&role), "{who} has not ended");
        }
    }
}

/// Returns the connection that a step is about, if it is one.
fn actor(step: &Step) -> Option<usize> {
    match *step {
        Step::Connect { who, .. }
        | Step::Open { who, .. }
        | Step::Join { who, .. }
        | Step::Meet { who, .. }
        | Step::Data { who, .. }
        | Step::UnknownControl { who, .. }
        | Step::Kick { who, .. }
        | Step::Leave { who }
        | Step::CloseKey { who }
        | Step::Ping { who }
        | Step::Throttle { who, .. }
        | Step::NotAllowed { who, .. }
        | Step::Close { who, .. }
        | Step::Disconnect { who, .. } => Some(who),
        Step::Wait { .. } | Step::Timeout | Step::Shutdown => None,
    }
}

/// Returns what is sent to the connections that `are` selects, step by step.
fn sent_to(are: impl Fn(usize) -> bool, record: &[Event]) -> Vec<Vec<(usize, Sent)>> {
    let received = record.iter().map(|event| {
        let sent = event.sent.iter().copied();
        sent.filter(|(to, _)| are(*to)).collect()
    });
    received.filter(|sent: &Vec<_>| !sent.is_empty()).collect()
}

/// Returns every call that a connection can make, and every call about it.
fn calls_of(who: usize) -> [Step; 14] {
    let (key, id, index, token) = (0, None, 0, usize::MAX);
    let tokens = Tokens {
        shown: Some(0),
        new: Some(0),
    };
    let (reason, kind) = (CloseReason::TooSlow, PayloadKind::Any);
    let (to, unnamed) = (Addressee::Index(Index::new(0)), Addressee::Unnamed);
    [
        Step::Data { who, to, kind, token },
        Step::Data {
            who,
            to: unnamed,
            kind,
            token,
        },
        Step::UnknownControl { who, to, kind, token },
        Step::Open { who, key, id, tokens },
        Step::Join {
            who,
            key,
            id: None,
            wait: Duration::from_secs(1),
        },
        Step::Meet {
            who,
            key,
            id,
            tokens,
            allowed: AllowedRoles::BOTH,
        },
        Step::NotAllowed { who, key: Some(key) },
        Step::Kick { who, index },
        Step::Leave { who },
        Step::CloseKey { who },
        Step::Ping { who },
        Step::Throttle { who, key },
        Step::Close { who, reason },
        Step::Disconnect {
            who,
            how: Disconnect::Lost,
        },
    ]
}

fn token(sent: &Sent) -> Option<usize> {
    match sent {
        Sent::Data { token, .. } => Some(*token),
        _ => None,
    }
}

fn is_close(sent: &Sent) -> bool {
    matches!(sent, Sent::Close(_))
}

/// Whether the connection is closed for its data, without a refusal.
fn is_violation(sent: &Sent) -> bool {
    matches!(
        sent,
        Sent::Close(CloseReason::UnknownType | CloseReason::IndexMalformed)
    )
}

fn is_too_many_joiners(sent: &Sent) -> bool {
    *sent == Sent::Close(CloseReason::TooManyJoiners) || is_refused_as(sent, "too-many-joiners")
}

fn is_refused_as(sent: &Sent, as_code: &str) -> bool {
    matches!(sent, Sent::Refused { code, .. } if *code == as_code)
}

pub(crate) fn is_unknown_key(sent: &Sent) -> bool {
    *sent == Sent::Close(CloseReason::UnknownKey) || is_refused_as(sent, "unknown-key")
}

fn is_role_deadline(sent: &Sent) -> bool {
    *sent == Sent::Close(CloseReason::NoRoleInTime)
}
