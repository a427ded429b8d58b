//! Strategies for runs: sequences of calls in which several openers with several joiners each are common. They shrink well, because every
//! operation names a connection by its position in a group.

use core::{num::NonZeroU32, time::Duration};
use std::ops::Range;

use proptest::{collection::vec, prelude::*, strategy::Union};
use sigver_core::{Addressee, AllowedRoles, CloseReason, Disconnect, Index, Limits, PayloadKind, Profile};

use crate::model::{Client, Model, PLAIN, REUSABLE_OBJECTS_ONLY, Role, SINGLE_USE_ANY_DATA, Step, Tokens, V1};

/// The number of keys in a run.
pub(crate) const KEYS: usize = 3;

/// The name of the first connection of the second of two worlds. Names of the first world are smaller.
pub(crate) const SECOND_WORLD: usize = 1_000;

/// Limits, and the calls of a run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) limits: Limits,
    pub(crate) steps: Vec<Step>,
}

/// Returns runs under all kinds of limits.
pub(crate) fn runs() -> impl Strategy<Value = Run> {
    let connections = prop_oneof![4 => Just(u32::MAX), 1 => 0..8_u32];
    under(limits(connections))
}

/// Returns runs without a limit that all connections share.
pub(crate) fn runs_without_global_limits() -> impl Strategy<Value = Run> {
    under(limits(Just(u32::MAX)))
}

/// Returns two interleaved runs on one hub, without a common connection or key.
pub(crate) fn two_worlds() -> impl Strategy<Value = Run> {
    let worlds = [vec(ops(), 0..100), vec(ops(), 0..100)];
    (limits(Just(u32::MAX)), worlds, vec(any::<bool>(), 1..16)).prop_map(|(limits, [first, second], turns)| {
        let mut first = resolve(&limits, &first, 0).into_iter();
        let mut second = resolve(&limits, &second, 1).into_iter();
        let mut steps = Vec::new();
        for turn in turns.into_iter().cycle() {
            let (mine, other) = if turn {
                (&mut first, &mut second)
            } else {
                (&mut second, &mut first)
            };
            match mine.next().or_else(|| other.next()) {
                Some(step) => steps.push(step),
                None => break,
            }
        }
        Run { limits, steps }
    })
}

/// The role deadline in most runs.
const DEADLINE: Duration = Duration::from_millis(100);

fn under(limits: impl Strategy<Value = Limits>) -> impl Strategy<Value = Run> {
    (limits, vec(ops(), 0..260)).prop_map(|(limits, ops)| {
        let steps = resolve(&limits, &ops, 0);
        Run { limits, steps }
    })
}

fn limits(connections: impl Strategy<Value = u32>) -> impl Strategy<Value = Limits> {
    let joiners_per_key = prop_oneof![8 => 2..6_u32, 1 => 0..2_u32];
    let role_deadline = prop_oneof![
        8 => Just(Some(DEADLINE)),
        1 => Just(None),
        1 => Just(Some(Duration::ZERO)),
        1 => Just(Some(Duration::MAX)),
    ];
    let reserve = prop_oneof![
        8 => Just(Duration::from_millis(30)),
        2 => Just(Duration::from_secs(10)),
        1 => Just(Duration::ZERO),
        1 => Just(Duration::MAX),
    ];
    // Two worlds share it, so they have no such limit.
    (connections, joiners_per_key, role_deadline, reserve, 0..4_u32).prop_map(
        |(connections, joiners_per_key, role_deadline, reserve, reserved_keys)| {
            let mut limits = Limits::default();
            limits.connections = NonZeroU32::new(connections);
            limits.joiners_per_key = joiners_per_key;
            limits.role_deadline = role_deadline;
            limits.reserve = reserve;
            limits.reserved_keys = NonZeroU32::new(reserved_keys).filter(|_| connections < u32::MAX);
            limits
        },
    )
}

/// A step whose connections, keys and indexes are not chosen yet.
#[derive(Clone, Debug)]
enum Op {
    Connect(Profile),
    Open(Who, Meeting, Option<usize>, Shown),
    Join(Who, Meeting, Option<usize>, Duration),
    Meet(Who, Meeting, Option<usize>, Shown, AllowedRoles),
    NotAllowed(Who, Option<Meeting>),
    Data(Who, To, PayloadKind),
    UnknownControl(Who, To, PayloadKind),
    Kick(Who, u32),
    Leave(Who),
    CloseKey(Who),
    Ping(Who),
    Throttle(Who, Meeting),
    Close(Who, CloseReason),
    Disconnect(Who, Disconnect),
    Wait(Duration),
    Timeout,
    /// Waits for the next timeout, and handles it.
    OnTime,
    Shutdown,
}

/// The token that a request shows.
#[derive(Clone, Copy, Debug)]
enum Shown {
    Nothing,
    /// That of the key's opener.
    Right,
    Wrong,
}

/// A connection, by its position in a group, modulo the size of the group.
#[derive(Clone, Copy, Debug)]
struct Who(Group, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    Idle,
    /// Connections without a role that were openers before.
    FormerOpeners,
    Openers,
    /// Openers whose key can be taken over.
    OpenersWithToken,
    Joiners,
    Waiting,
    Ended,
    All,
}

#[derive(Clone, Copy, Debug)]
enum Meeting {
    /// Any key, by its position.
    Key(usize),
    /// An open key, by its position among the open keys.
    Open(usize),
    /// A free key, by its position among the free keys.
    Free(usize),
    /// A key that connections wait for, by its position among these keys.
    Awaited(usize),
    /// A reserved key, by its position among these keys.
    Reserved(usize),
}

#[derive(Clone, Copy, Debug)]
enum To {
    Unnamed,
    Malformed,
    Nobody,
    /// Modulo one more than the number of the sender's joiners so far.
    Index(u32),
}

fn ops() -> impl Strategy<Value = Op> {
    use Group::{FormerOpeners, Idle, Joiners, Openers, OpenersWithToken, Waiting};

    let any_key = || (0..KEYS).prop_map(Meeting::Key);
    let to_open =
        prop_oneof![8 => PLACES.prop_map(Meeting::Free), 2 => PLACES.prop_map(Meeting::Awaited), 1 => any_key()];
    let to_join = prop_oneof![12 => PLACES.prop_map(Meeting::Open), 1 => any_key()];
    let to_await =
        prop_oneof![3 => PLACES.prop_map(Meeting::Free), 6 => PLACES.prop_map(Meeting::Awaited), 1 => any_key()];
    let time = prop_oneof![Just(Duration::from_millis(30)), Just(DEADLINE)];
    prop_oneof![
        260 => profile().prop_map(Op::Connect),
        130 => (mostly(&[Idle, FormerOpeners]), to_open, id(), shown()).prop_map(|(who, meeting, id, shown)| Op::Open(who, meeting, id, shown)),
        130 => (mostly(&[Idle, FormerOpeners]), PLACES.prop_map(Meeting::Reserved), id(), shown_for_reserved()).prop_map(|(who, meeting, id, shown)| Op::Open(who, meeting, id, shown)),
        130 => (mostly(&[Idle]), PLACES, id()).prop_map(|(who, place, id)| Op::Open(who, Meeting::Open(place), id, Shown::Right)),
        240 => (mostly(&[Idle]), to_join, id()).prop_map(|(who, meeting, id)| Op::Join(who, meeting, id, Duration::ZERO)),
        130 => (mostly(&[Idle]), to_await, id(), wait()).prop_map(|(who, meeting, id, wait)| Op::Join(who, meeting, id, wait)),
        45 => (mostly(&[Idle]), any_key(), id(), shown(), allowed()).prop_map(|(who, meeting, id, shown, allowed)| Op::Meet(who, meeting, id, shown, allowed)),
        8 => (mostly(&[Idle]), prop::option::of(any_key())).prop_map(|(who, meeting)| Op::NotAllowed(who, meeting)),
        200 => (mostly(&[Openers, Joiners]), to(), kind()).prop_map(|(who, to, kind)| Op::Data(who, to, kind)),
        30 => (mostly(&[Openers, Joiners]), to(), kind()).prop_map(|(who, to, kind)| Op::UnknownControl(who, to, kind)),
        55 => (mostly(&[Openers]), 0..8_u32).prop_map(|(who, index)| Op::Kick(who, index)),
        35 => mostly(&[Joiners, Joiners, Waiting]).prop_map(Op::Leave),
        45 => mostly(&[Openers]).prop_map(Op::CloseKey),
        20 => anyone().prop_map(Op::Ping),
        40 => (mostly(&[OpenersWithToken]), how()).prop_map(|(who, how)| Op::Disconnect(who, how)),
        15 => (mostly(&[Idle]), any_key()).prop_map(|(who, meeting)| Op::Throttle(who, meeting)),
        20 => (anyone(), reason()).prop_map(|(who, reason)| Op::Close(who, reason)),
        55 => (mostly(&[Joiners, Joiners, Joiners, Openers, Openers, Waiting]), how()).prop_map(|(who, how)| Op::Disconnect(who, how)),
        30 => time.prop_map(Op::Wait),
        20 => Just(Op::Timeout),
        45 => Just(Op::OnTime),
        3 => Just(Op::Shutdown),
    ]
}

fn mostly(groups: &[Group]) -> impl Strategy<Value = Who> + use<> {
    let of = |group| (Just(group), PLACES).prop_map(|(group, place)| Who(group, place));
    let mut choices: Vec<_> = groups.iter().map(|group| (12, of(*group))).collect();
    choices.extend([(1, of(Group::All)), (1, of(Group::Ended))]);
    Union::new_weighted(choices)
}

fn anyone() -> impl Strategy<Value = Who> {
    mostly(&[Group::All])
}

const PLACES: Range<usize> = 0..16;

fn to() -> impl Strategy<Value = To> {
    prop_oneof![
        60 => (0..8_u32).prop_map(To::Index),
        2 => Just(To::Nobody),
        1 => Just(To::Unnamed),
        1 => Just(To::Malformed),
    ]
}

fn profile() -> impl Strategy<Value = Profile> {
    prop_oneof![
        5 => Just(PLAIN),
        5 => Just(V1),
        1 => Just(SINGLE_USE_ANY_DATA),
        1 => Just(REUSABLE_OBJECTS_ONLY),
    ]
}

fn how() -> impl Strategy<Value = Disconnect> {
    prop_oneof![1 => Just(Disconnect::Clean), 3 => Just(Disconnect::Lost)]
}

fn shown_for_reserved() -> impl Strategy<Value = Shown> {
    prop_oneof![Just(Shown::Nothing), Just(Shown::Right), Just(Shown::Wrong)]
}

fn shown() -> impl Strategy<Value = Shown> {
    prop_oneof![8 => Just(Shown::Nothing), 2 => Just(Shown::Right), 1 => Just(Shown::Wrong)]
}

/// The roles that a meet may result in: mostly both.
fn allowed() -> impl Strategy<Value = AllowedRoles> {
    (prop::bool::weighted(0.8), prop::bool::weighted(0.8)).prop_map(|(opener, joiner)| AllowedRoles { opener, joiner })
}

/// The time for which a join waits.
fn wait() -> impl Strategy<Value = Duration> {
    prop_oneof![
        6 => Just(Duration::from_millis(30)),
        2 => Just(DEADLINE),
        2 => Just(Duration::from_secs(10)),
        1 => Just(Duration::MAX),
    ]
}

/// A name that a client has for itself.
fn id() -> impl Strategy<Value = Option<usize>> {
    prop::option::of(0..10_usize)
}

fn kind() -> impl Strategy<Value = PayloadKind> {
    prop_oneof![3 => Just(PayloadKind::Object), 1 => Just(PayloadKind::Any)]
}

fn reason() -> impl Strategy<Value = CloseReason> {
    prop_oneof![5 => prop::sample::select(CloseReason::ALL), 1 => Just(CloseReason::TokenExpired)]
}

/// Chooses connections, keys and indexes with the model. Operations without a choice are skipped.
fn resolve(limits: &Limits, ops: &[Op], world: usize) -> Vec<Step> {
    let mut model = Model::new(limits);
    let mut steps = Vec::new();
    for (number, op) in (world * SECOND_WORLD..).zip(ops) {
        let chosen = match op {
            Op::OnTime => on_time(&model),
            _ => choose(&model, world * KEYS, number, op).into_iter().collect(),
        };
        for step in chosen {
            let _ = model.play(step);
            steps.push(step);
        }
    }
    steps
}

/// Returns the steps that wait for the next timeout and handle it, unless it is in years.
fn on_time(model: &Model) -> Vec<Step> {
    let time = model.next_timeout().unwrap_or_default().saturating_sub(model.now());
    if time > Duration::from_secs(1_000) {
        return Vec::new();
    }
    vec![Step::Wait { time }, Step::Timeout]
}

/// Chooses a step. `number` is unused so far and names a new connection or payload.
fn choose(model: &Model, first_key: usize, number: usize, op: &Op) -> Option<Step> {
    Some(match *op {
        Op::Connect(profile) => Step::Connect { who: number, profile },
        Op::Open(who, meeting, id, shown) => {
            let key = meeting.among(model, first_key)?;
            Step::Open {
                who: who.among(model)?.name,
                key,
                id,
                tokens: shown.for_key(model, key, number),
            }
        }
        Op::Join(who, meeting, id, wait) => Step::Join {
            who: who.among(model)?.name,
            key: meeting.among(model, first_key)?,
            id,
            wait,
        },
        Op::NotAllowed(who, meeting) => Step::NotAllowed {
            who: who.among(model)?.name,
            key: match meeting {
                Some(meeting) => Some(meeting.among(model, first_key)?),
                None => None,
            },
        },
        Op::Meet(who, meeting, id, shown, allowed) => {
            let key = meeting.among(model, first_key)?;
            Step::Meet {
                who: who.among(model)?.name,
                key,
                id,
                tokens: shown.for_key(model, key, number),
                allowed,
            }
        }
        Op::Data(who, to, kind) => {
            let sender = who.among(model)?;
            Step::Data {
                who: sender.name,
                to: to.of(&sender),
                kind,
                token: number,
            }
        }
        Op::UnknownControl(who, to, kind) => {
            let sender = who.among(model)?;
            Step::UnknownControl {
                who: sender.name,
                to: to.of(&sender),
                kind,
                token: number,
            }
        }
        Op::Kick(who, index) => {
            let sender = who.among(model)?;
            Step::Kick {
                who: sender.name,
                index: index % (announced_to(&sender) + 1),
            }
        }
        Op::Leave(who) => Step::Leave {
            who: who.among(model)?.name,
        },
        Op::CloseKey(who) => Step::CloseKey {
            who: who.among(model)?.name,
        },
        Op::Throttle(who, meeting) => Step::Throttle {
            who: who.among(model)?.name,
            key: meeting.among(model, first_key)?,
        },
        Op::Ping(who) => Step::Ping {
            who: who.among(model)?.name,
        },
        Op::Close(who, reason) => Step::Close {
            who: who.among(model)?.name,
            reason,
        },
        Op::Disconnect(who, how) => Step::Disconnect {
            who: who.among(model)?.name,
            how,
        },
        Op::Wait(time) => Step::Wait { time },
        Op::Timeout | Op::OnTime => Step::Timeout,
        Op::Shutdown => Step::Shutdown,
    })
}

impl Who {
    fn among(self, model: &Model) -> Option<Client> {
        let Self(group, place) = self;
        let clients = model.clients().iter();
        let wanted: Vec<&Client> = clients.filter(|client| group.has(client)).collect();
        wanted.get(place % wanted.len().max(1)).map(|client| **client)
    }
}

impl Group {
    fn has(self, client: &Client) -> bool {
        match (self, client.ended, client.role) {
            (Self::All, _, _) | (Self::Ended, Some(_), _) => true,
            (Self::Ended, None, _) | (_, Some(_), _) => false,
            (Self::Idle, None, role) => matches!(role, Role::Idle { .. }),
            (Self::FormerOpeners, None, role) => {
                matches!((role, client.former), (Role::Idle { .. }, Some(Role::Opener { .. })))
            }
            (Self::Openers, None, role) => matches!(role, Role::Opener { .. }),
            (Self::OpenersWithToken, None, _) => client.token().is_some(),
            (Self::Joiners, None, role) => matches!(role, Role::Joiner { .. }),
            (Self::Waiting, None, role) => matches!(role, Role::Waiting { .. }),
        }
    }
}

impl Shown {
    /// Returns this token of a key, and a new one.
    fn for_key(self, model: &Model, key: usize, new: usize) -> Tokens {
        let opener = model.connected().find(|client| client.key() == Some(key));
        let reserved = model.reservation_of(key).map(|reservation| reservation.token);
        Tokens {
            shown: match self {
                Self::Nothing => None,
                Self::Right => opener.and_then(Client::token).or(reserved),
                Self::Wrong => Some(usize::MAX),
            },
            // Some openers have none.
            new: (!new.is_multiple_of(8)).then_some(new),
        }
    }
}

impl Meeting {
    fn among(self, model: &Model, first: usize) -> Option<usize> {
        let is_open = |key: &usize| model.connected().any(|client| client.key() == Some(*key));
        let is_awaited = |key: &usize| {
            let is = |role| matches!(role, Role::Waiting { key: its, .. } if its == *key);
            model.connected().any(|client| is(client.role))
        };
        let keys = first..first + KEYS;
        let (place, keys): (usize, Vec<usize>) = match self {
            Self::Key(place) => (place, keys.collect()),
            Self::Open(place) => (place, keys.filter(is_open).collect()),
            Self::Free(place) => (place, keys.filter(|key| !is_open(key)).collect()),
            Self::Awaited(place) => (place, keys.filter(is_awaited).collect()),
            Self::Reserved(place) => (place, keys.filter(|key| model.reservation_of(*key).is_some()).collect()),
        };
        keys.get(place % keys.len().max(1)).copied()
    }
}

impl To {
    fn of(self, sender: &Client) -> Addressee {
        match self {
            Self::Unnamed => Addressee::Unnamed,
            Self::Malformed => Addressee::Malformed,
            Self::Nobody => Addressee::OutOfRange,
            Self::Index(index) => Addressee::Index(Index::new(index % (announced_to(sender) + 1))),
        }
    }
}

/// Returns the number of joiners that `sender` has had so far.
fn announced_to(sender: &Client) -> u32 {
    match sender.role {
        Role::Opener { announced, .. } => announced,
        Role::Idle { .. } | Role::Joiner { .. } | Role::Waiting { .. } => 0,
    }
}
