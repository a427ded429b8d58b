//! Random calls of an endpoint.

use core::{
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use proptest::{prelude::*, sample::select};
use sigver_core::{CloseReason, Dialect, EndpointConfig, Role};

use crate::{
    endpoint_model::EndpointModel,
    endpoint_steps::{Event, Step, To},
};

/// A configuration and the calls of a run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) config: EndpointConfig,
    pub(crate) steps: Vec<Step>,
}

/// A step whose client is not chosen yet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Connect(Dialect, u8),
    Event(Event),
    Written(usize),
    /// All frames of all clients are reported as written.
    WrittenAll,
    Wait(Duration),
    /// Waits for the next timeout, to the nanosecond, and handles it; this many times.
    OnTime(usize),
    Timeout,
    Drain(Duration),
    CloseAll,
    Close,
    Kick,
}

pub(crate) fn runs() -> impl Strategy<Value = Run> {
    let ops = prop::collection::vec((op(), any::<usize>()), 1..80);
    (config(), beginning(), ops).prop_map(|(config, beginning, ops)| Run {
        steps: resolve(&config, beginning.into_iter().chain(ops)),
        config,
    })
}

/// An opener and its joiners, of either dialect.
fn beginning() -> impl Strategy<Value = Vec<(Op, usize)>> {
    let dialects = prop::collection::vec(select(Dialect::ALL), 0..4);
    dialects.prop_map(|dialects| {
        let mut ops = Vec::new();
        for (source, dialect) in (1..).zip(dialects) {
            let event = match source {
                1 => Event::Open {
                    key: Some(0),
                    id: None,
                    shown: None,
                },
                _ => Event::Join {
                    key: 0,
                    id: None,
                    wait: 0,
                },
            };
            ops.extend([(Op::Connect(dialect, source), 1), (Op::Event(event), 1)]);
        }
        ops.push((Op::WrittenAll, 0));
        ops
    })
}

fn config() -> impl Strategy<Value = EndpointConfig> {
    let seconds = |seconds| prop_oneof![4 => Just(Duration::from_secs(seconds)), 1 => Just(Duration::MAX)];
    let limits = (
        prop_oneof![1 => 4..7_u32, 1 => Just(u32::MAX)],
        select(vec![1, 4, u32::MAX]),
        prop_oneof![Just(None), Just(Some(Duration::from_secs(30)))],
    );
    let rates = (
        select(vec![1, 3, u32::MAX]),
        select(vec![40, 200, u32::MAX]),
        select(vec![2, 5, u32::MAX, u32::MAX]),
        select(vec![1, 4, u32::MAX, u32::MAX]),
    );
    let backlogs = (
        prop_oneof![1 => 1..600_u32, 1 => Just(10_000)],
        prop_oneof![1 => Just(None), 1 => (1..400_u64).prop_map(NonZeroU64::new)],
    );
    let drain = select(vec![Duration::ZERO, Duration::from_millis(20), Duration::from_secs(5)]);
    let keep_alive = prop_oneof![6 => seconds(20), 1 => Just(Duration::ZERO)];
    (limits, keep_alive, seconds(3), backlogs, rates, drain).prop_map(
        |((connections, joiners, role_deadline), keep_alive, close_timeout, backlogs, rates, drain)| {
            let mut config = EndpointConfig::default();
            config.limits.connections = NonZeroU32::new(connections);
            config.limits.joiners_per_key = joiners;
            config.limits.role_deadline = role_deadline;
            config.keep_alive = keep_alive;
            config.close_timeout = close_timeout;
            (config.backlog_bytes, config.backlog_total_bytes) = backlogs;
            let limit = |limit| NonZeroU32::new(limit).filter(|limit| *limit < NonZeroU32::MAX);
            let (messages, bytes, of_source, key_attempts) = rates;
            config.messages_per_second = limit(messages);
            config.bytes_per_second = limit(bytes);
            config.messages_per_second_per_source = limit(of_source);
            config.key_attempts_per_minute = limit(key_attempts);
            config.drain = drain;
            config
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let wait = select(vec![0, 1, 10, 100, 333, 1_000, 3_000, 10_000, 20_000, 60_000]);
    prop_oneof![
        70 => (select(Dialect::ALL), 1..4_u8).prop_map(|(dialect, source)| Op::Connect(dialect, source)),
        300 => event().prop_map(Op::Event),
        10 => (0..60_usize).prop_map(Op::Written),
        70 => Just(Op::WrittenAll),
        10 => wait.prop_map(|millis| Op::Wait(Duration::from_millis(millis))),
        20 => (1..6_usize).prop_map(Op::OnTime),
        10 => Just(Op::Timeout),
        2 => (0..3_000_u64).prop_map(|millis| Op::Drain(Duration::from_millis(millis))),
        1 => Just(Op::CloseAll),
        5 => Just(Op::Close),
        5 => Just(Op::Kick),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let key = || 0..3_usize;
    let id = || prop::option::of(0..3_usize);
    let wait = select(vec![0, 0, 1, 10, 120]);
    let shown = || prop_oneof![4 => Just(None), 2 => Just(Some(RIGHT)), 1 => Just(Some(0))];
    let to = prop_oneof![14 => (0..3_u32).prop_map(To::Index), 3 => Just(To::Unnamed), 1 => Just(To::Malformed)];
    let reasons = [
        CloseReason::BrokenFraming,
        CloseReason::InvalidUtf8,
        CloseReason::TooBig,
        CloseReason::Internal,
    ];
    prop_oneof![
        18 => (key(), id(), shown()).prop_map(|(key, id, shown)| Event::Open { key: Some(key), id, shown }),
        10 => id().prop_map(|id| Event::Open { key: None, id, shown: None }),
        22 => (key(), id(), wait).prop_map(|(key, id, wait)| Event::Join { key, id, wait }),
        8 => (key(), id(), shown()).prop_map(|(key, id, shown)| Event::Meet { key, id, shown }),
        70 => (to, prop::bool::weighted(0.8)).prop_map(|(to, is_object)| Event::Data { to, is_object }),
        1 => Just(Event::UnknownType),
        24 => (0..2_u32).prop_map(|index| Event::Kick { index }),
        3 => Just(Event::Leave),
        3 => Just(Event::CloseKey),
        3 => Just(Event::PingMessage),
        1 => Just(Event::InvalidJson),
        1 => Just(Event::Binary),
        6 => (0..126_usize).prop_map(|bytes| Event::Ping { bytes }),
        8 => Just(Event::Pong),
        8 => prop_oneof![Just(None), (1000..1004_u16).prop_map(Some)].prop_map(|code| Event::Close { code }),
        1 => select(reasons.to_vec()).prop_map(|reason| Event::Violation { reason }),
        4 => Just(Event::Disconnected),
    ]
}

/// Stands for the token of the key's opener.
const RIGHT: usize = usize::MAX;

/// Returns the event with the token of the key's opener, if it shows that.
fn with_token(model: &EndpointModel, mut event: Event) -> Event {
    if let Event::Open {
        key: Some(key), shown, ..
    }
    | Event::Meet { key, shown, .. } = &mut event
    {
        if *shown == Some(RIGHT) {
            *shown = model.token_of(*key);
        }
    }
    event
}

/// Chooses clients with the model. Operations without a choice are skipped.
pub(crate) fn resolve(config: &EndpointConfig, ops: impl Iterator<Item = (Op, usize)>) -> Vec<Step> {
    let mut model = EndpointModel::new(config);
    let mut steps = Vec::new();
    for (number, (op, pick)) in ops.enumerate() {
        let chosen = match op {
            Op::Connect(dialect, source) => vec![Step::Connect {
                who: number,
                dialect,
                source,
            }],
            Op::Event(event) => {
                let event = with_token(&model, event);
                let chosen = choose(&model, pick, event);
                chosen.map(|who| Step::Event { who, event }).into_iter().collect()
            }
            Op::Written(bytes) => {
                let chosen = choose(&model, pick, Event::Pong);
                chosen.map(|who| Step::Written { who, bytes }).into_iter().collect()
            }
            Op::WrittenAll => {
                let bytes = usize::MAX;
                model.open().map(|who| Step::Written { who, bytes }).collect()
            }
            Op::Wait(time) => vec![Step::Wait { time }],
            Op::OnTime(times) => {
                for _ in 0..times {
                    let next = model.next_timeout().unwrap_or_default();
                    let time = next.saturating_sub(model.now);
                    for step in [Step::Wait { time }, Step::Timeout] {
                        let _ = model.play(step, number);
                        steps.push(step);
                    }
                }
                Vec::new()
            }
            Op::Timeout => vec![Step::Timeout],
            Op::Drain(accept_for) => vec![Step::Drain { accept_for }],
            Op::CloseAll => vec![Step::CloseAll],
            Op::Close => {
                let chosen = choose(&model, pick, Event::Pong);
                chosen.map(|who| Step::Close { who }).into_iter().collect()
            }
            Op::Kick => {
                // A joiner, as for a leave.
                let chosen = choose(&model, pick, Event::Leave);
                chosen.map(|who| Step::Kick { who }).into_iter().collect()
            }
        };
        for step in chosen {
            let _ = model.play(step, number);
            steps.push(step);
        }
    }
    steps
}

/// Chooses an open client for the event; sometimes any client with a socket.
fn choose(model: &EndpointModel, pick: usize, event: Event) -> Option<usize> {
    let (kind, pick) = (pick % 16, pick / 16);
    let sockets: Vec<usize> = model.open().chain(model.closing()).collect();
    let may = |who: &usize| match event {
        Event::Open { .. } | Event::Join { .. } | Event::Meet { .. } => model.role(*who).is_none(),
        Event::Data { to: To::Unnamed, .. } | Event::Leave => {
            matches!(model.role(*who), Some(Role::Joiner | Role::Waiting))
        }
        Event::Data { .. } | Event::Kick { .. } | Event::CloseKey => model.role(*who) == Some(Role::Opener),
        _ => true,
    };
    let clients: Vec<usize> = if kind == 0 || event == Event::Disconnected {
        sockets
    } else {
        model.open().filter(may).collect()
    };
    clients.get(pick % clients.len().max(1)).copied()
}
