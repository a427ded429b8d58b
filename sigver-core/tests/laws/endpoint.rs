//! The laws of [`Endpoint`](sigver_core::Endpoint), for random calls.

use core::{
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sigver_core::{CloseReason, ConnId, Dialect, EndpointConfig, Phase, Time};

use crate::{
    endpoint_run::{Driver, Record, assert_last_frame, assert_order, by_recipient, compare, is_last, state},
    endpoint_runs::{Run, runs},
    endpoint_steps::{Event, Step, To, address},
    search::{SAMPLES, count, for_a_third, for_all, more_often_than, samples},
};

/// Every call returns the same as the model, for each connection in the same order, and all observable state is the same: roles, sockets,
/// phase, counters and timeouts.
#[test]
fn endpoint_agrees_with_the_model() {
    for_a_third(runs(), |run| drop(compare(&run.config, &run.steps)));
}

#[test]
fn nothing_is_sent_after_the_last_frame() {
    for_a_third(runs(), |run| assert_last_frame(&record(&run)));
}

#[test]
fn data_arrives_in_order_and_once() {
    for_a_third(runs(), |run| assert_order(&record(&run)));
}

/// Events of closing, aborted, disconnected and unknown connections return nothing and change nothing, now or later.
#[test]
fn dead_ids_are_inert() {
    for_a_third(runs(), |run| {
        let mut driver = Driver::new(&run.config);
        let (mut dead, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for (token, Record { step, answer, .. }) in (1..).zip(record(&run)) {
            assert_eq!(driver.play_as(step, token), answer, "{step:?}");
            let closed = answer.iter().flatten().filter(|(_, output)| is_last(output));
            dead.extend(closed.map(|(who, _)| *who));
            let aborted = answer.iter().flatten().filter(|(_, output)| output == "abort");
            gone.extend(aborted.map(|(who, _)| *who));
            if let Step::Event {
                who,
                event: Event::Disconnected,
            } = step
            {
                dead.insert(who);
                gone.insert(who);
            }
            let before = state(&driver);
            for who in &dead {
                for event in EVENTS {
                    let step = Step::Event { who: *who, event };
                    assert_eq!(driver.play_as(step, token), Ok(Vec::new()), "{step:?}");
                }
                // Of a closing connection, written frames postpone the abort.
                if gone.contains(who) {
                    let written = Step::Written { who: *who, bytes: 9 };
                    assert_eq!(driver.play_as(written, token), Ok(Vec::new()));
                }
            }
            for slot in 0..4 {
                let never = ConnId::from_bits(u64::from(u32::MAX) << 32 | slot);
                let outputs = driver.endpoint.handle(driver.now, never, sigver_core::Input::Binary);
                assert!(outputs.is_empty());
            }
            assert_eq!(state(&driver), before);
        }
    });
}

#[test]
fn same_calls_have_the_same_outputs() {
    for_a_third(runs(), |run| assert_eq!(record(&run), record(&run)));
}

/// Connections of different keys and addresses do not affect each other, except through global limits.
#[test]
fn different_keys_do_not_affect_each_other() {
    for_a_third((runs(), runs()), |(run, other)| {
        let mut config = run.config.clone();
        config.limits.connections = None;
        config.backlog_total_bytes = None;
        // The minute of failed attempts begins at the same time for all sources.
        config.key_attempts_per_minute = None;
        let ours = run.steps.into_iter().filter_map(|step| renamed(step, 0));
        let theirs = other.steps.into_iter().filter_map(|step| renamed(step, OTHERS));
        // A late call is late for everybody, so none is late here.
        let alone: Vec<Step> = ours.flat_map(in_seconds).collect();
        let mut theirs: Vec<Step> = theirs.filter(|step| !matches!(step, Step::Wait { .. })).collect();

        // All tokens come from one source. Here they are equal.
        let [mut driver, mut crowded] = [(); 2].map(|()| Driver::with_random(&config, || Some(0)));
        for (number, step) in (1..).zip(alone) {
            let token = 2 * number;
            for other in theirs.split_off(theirs.len().saturating_sub(2)) {
                let outputs = crowded.play_as(other, token + 1);
                assert!(other == Step::Timeout || outputs.into_iter().flatten().all(|(to, _)| to >= OTHERS));
                if other == Step::Timeout {
                    let _ = driver.play_as(other, token + 1);
                }
            }
            let expected = driver.play_as(step, token);
            let mut outputs = crowded.play_as(step, token);
            if let Ok(outputs) = &mut outputs {
                outputs.retain(|(to, _)| *to < OTHERS);
            }
            let [outputs, expected] = [&outputs, &expected].map(|outputs| outputs.as_ref().map(by_recipient));
            assert_eq!(outputs, expected, "{step:?}");
        }
    });
}

/// Returns a step with a time-out after each second of waiting, and after the rest.
fn in_seconds(step: Step) -> Vec<Step> {
    let Step::Wait { time } = step else { return vec![step] };
    let second = Duration::from_secs(1);
    let seconds = time.as_secs() as usize;
    let rest = Step::Wait {
        time: time - second * seconds as u32,
    };
    let whole = [Step::Wait { time: second }, Step::Timeout];
    [whole.repeat(seconds), vec![rest, Step::Timeout]].concat()
}

/// The unwritten frames of an open connection are within the limit, unless there is only one.
#[test]
fn write_buffer_stays_within_its_limit() {
    for_a_third(runs(), |run| {
        let mut driver = Driver::new(&run.config);
        let mut frames: BTreeMap<usize, usize> = BTreeMap::new();
        let mut closed = BTreeSet::new();
        for step in run.steps {
            if let Step::Written { who, bytes } = step {
                if driver.unwritten.get(&who).is_some_and(|unwritten| *unwritten <= bytes) {
                    frames.insert(who, 0);
                }
            }
            let outputs = driver.play(step).unwrap_or_default();
            for (who, output) in outputs {
                let is_frame = ["pause", "stop", "resume", "probe", "ended", "abort"]
                    .iter()
                    .all(|other| !output.starts_with(other));
                *frames.entry(who).or_default() += usize::from(is_frame);
                if is_last(&output) {
                    closed.insert(who);
                }
            }
            for (who, unwritten) in &driver.unwritten {
                let count = frames.entry(*who).or_default();
                if *unwritten == 0 {
                    *count = 0;
                }
                let is_within = *unwritten <= run.config.backlog_bytes as usize || *count == 1;
                assert!(
                    is_within || closed.contains(who),
                    "{who}: {unwritten} in {count} frames"
                );
            }
        }
    });
}

/// All backlogs together exceed their limit at most by what was added since an event or timeout was handled: the frames that were returned,
/// and for each step an event or a frame that waits.
#[test]
fn backlogs_together_stay_within_their_limit() {
    for_a_third(runs(), |run| {
        let limit = run.config.backlog_total_bytes.map_or(u64::MAX, NonZeroU64::get);
        let mut driver = Driver::new(&run.config);
        let mut open = BTreeSet::new();
        let mut added = 0;
        for step in run.steps {
            let is_handled = match step {
                Step::Event { who, event } => event != Event::Disconnected && open.contains(&who),
                Step::Timeout => true,
                Step::Connect { .. } | Step::Written { .. } | Step::Wait { .. } => false,
                Step::Drain { .. } | Step::CloseAll | Step::Close { .. } | Step::Kick { .. } => false,
            };
            if is_handled {
                added = 0;
            }
            let unwritten = |driver: &Driver| driver.unwritten.values().sum::<usize>();
            let before = unwritten(&driver);
            let Ok(outputs) = driver.play(step) else { continue };
            if let Step::Connect { who, .. } = step {
                open.insert(who);
            }
            open.retain(|who| !outputs.iter().any(|(to, output)| to == who && is_last(output)));
            const WAITING: u64 = 400;
            added += unwritten(&driver).saturating_sub(before) as u64 + WAITING;
            let total = driver.endpoint.counters().backlog_bytes;
            assert!(total <= limit.saturating_add(added), "{total} bytes after {step:?}");
        }
    });
}

/// Each closed socket is aborted exactly after the close time-out, or after up to twelve of them if it makes progress, unless it is
/// disconnected before. Without a limit on all backlogs, which aborts sockets early.
#[test]
fn closed_socket_is_disconnected_or_aborted_in_time() {
    for_a_third(runs(), |mut run| {
        run.config.backlog_total_bytes = None;
        let timeout = run.config.close_timeout;
        let mut driver = Driver::new(&run.config);
        let mut due: BTreeMap<usize, Duration> = BTreeMap::new();
        let end = Step::Wait {
            time: Duration::from_secs(200),
        };
        for step in run.steps.into_iter().chain([Step::CloseAll, end]) {
            if let Step::Wait { time } = step {
                let until = driver.now.saturating_add(time);
                while let Some(next) = driver.endpoint.poll_timeout().filter(|next| *next <= until) {
                    driver.now = driver.now.max(next);
                    let outputs = driver.play(Step::Timeout).unwrap_or_default();
                    follow_closes(&mut due, driver.now, timeout, outputs);
                }
                driver.now = until;
            } else {
                let outputs = driver.play(step).unwrap_or_default();
                follow_closes(&mut due, driver.now, timeout, outputs);
            }
            if let Step::Event {
                who,
                event: Event::Disconnected,
            } = step
            {
                due.remove(&who);
            }
        }
        let is_unlimited = timeout == Duration::MAX;
        assert!(due.is_empty() || is_unlimited, "never aborted: {due:?}");
        assert_eq!(driver.endpoint.sockets(), due.len());
        assert_eq!(
            (driver.endpoint.phase(), driver.endpoint.poll_timeout()),
            (Phase::Closed, None)
        );
    });
}

fn follow_closes(due: &mut BTreeMap<usize, Duration>, now: Time, timeout: Duration, outputs: Vec<(usize, String)>) {
    for (who, output) in outputs {
        if is_last(&output) {
            due.insert(who, now.as_duration());
        } else if output == "abort" {
            let closed = due.remove(&who).expect("only a closed socket is aborted");
            let mut times = (1..=12).map(|periods| closed.saturating_add(timeout * periods));
            assert!(times.any(|time| time == now.as_duration()), "{who}");
        }
    }
}

/// Connections that are gone leave no timer, however many they were and before any time-out is due.
#[test]
fn timers_are_bounded_by_connections() {
    for_a_third(runs(), |run| {
        let mut driver = Driver::new(&run.config);
        for step in run.steps {
            let _ = driver.play(step);
            let timers = driver.endpoint.timers();
            assert!(
                timers <= 2 * driver.endpoint.sockets(),
                "{timers} timers after {step:?}"
            );
        }
    });
}

/// A client that obeys pauses sends at most one second's worth more than its rate allows.
#[test]
fn client_that_obeys_pauses_keeps_to_its_rate() {
    let messages = prop::collection::vec((0..1_500_u64, 0..80_usize), 1..60);
    for_all(
        (messages, 1..20_u32, 1..200_u32),
        |(messages, per_second, bytes_per_second)| {
            let mut config = EndpointConfig::default();
            config.limits.role_deadline = None;
            config.messages_per_second = NonZeroU32::new(per_second);
            config.bytes_per_second = NonZeroU32::new(bytes_per_second);
            let mut endpoint = sigver_core::Endpoint::new(config, || None);
            let id = endpoint.connect(Time::ZERO, Dialect::V1, address(1).into());
            let id = id.expect("a connection");
            let (mut now, mut ready) = (Time::ZERO, Time::ZERO);
            let mut sent: Vec<(Duration, usize)> = Vec::new();
            for (gap, bytes) in messages {
                now = now.saturating_add(Duration::from_millis(gap)).max(ready);
                sent.push((now.as_duration(), bytes));
                for (_, output) in endpoint.handle(now, id, sigver_core::Input::Ping(&vec![0; bytes])) {
                    match output {
                        sigver_core::Output::PauseReading(until) => {
                            assert!(until > now);
                            ready = until;
                        }
                        sigver_core::Output::Send(frame) => {
                            assert!(endpoint.written(now, id, frame.cost()).is_empty());
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            for (place, (start, _)) in sent.iter().enumerate() {
                let mut total = 0;
                for (number, (end, bytes)) in (1..).zip(&sent[place..]) {
                    let budget = |rate: u32| f64::from(rate) * (*end - *start + Duration::from_secs(1)).as_secs_f64();
                    // The last message may exceed the budget; the pause follows it.
                    assert!(f64::from(number - 1) <= budget(per_second) + 0.001);
                    assert!(total as f64 <= budget(bytes_per_second) + 0.001);
                    total += bytes;
                }
            }
        },
    );
}

/// Clients of a source that obey pauses together send at most one second's worth more than its rate allows, and one message each, also if they
/// connect again.
#[test]
fn clients_that_obey_pauses_keep_to_the_rate_of_their_source() {
    let messages = prop::collection::vec((0..1_000_u64, 0..CLIENTS, any::<bool>()), 1..60);
    for_all((messages, 1..20_u32), |(messages, per_second)| {
        let mut config = EndpointConfig::default();
        config.limits.role_deadline = None;
        config.messages_per_second_per_source = NonZeroU32::new(per_second);
        let mut endpoint = sigver_core::Endpoint::new(config, || None);
        let connect = |endpoint: &mut sigver_core::Endpoint, now| {
            let connected = endpoint.connect(now, Dialect::V1, address(1).into());
            let id = connected.expect("there is room");
            (id, endpoint.paused_until(now, id).unwrap_or(now))
        };
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect(&mut endpoint, Time::ZERO)).collect();
        let mut now = Time::ZERO;
        let mut sent: Vec<Duration> = Vec::new();
        for (gap, client, connects_again) in messages {
            let (id, ready) = &mut clients[client];
            if connects_again {
                let _ = endpoint.handle(now, *id, sigver_core::Input::Disconnected);
                (*id, *ready) = connect(&mut endpoint, now);
            }
            now = now.saturating_add(Duration::from_millis(gap)).max(*ready);
            sent.push(now.as_duration());
            for (to, output) in endpoint.handle(now, *id, sigver_core::Input::Pong) {
                assert!(to == *id && matches!(output, sigver_core::Output::PauseReading(until) if until > now));
                if let sigver_core::Output::PauseReading(until) = output {
                    *ready = until;
                }
            }
        }
        for (place, start) in sent.iter().enumerate() {
            for (number, end) in (1..).zip(&sent[place..]) {
                let budget = f64::from(per_second) * (*end - *start + Duration::from_secs(1)).as_secs_f64();
                assert!(f64::from(number) - CLIENTS as f64 <= budget + 0.001);
            }
        }
    });
}

/// The clients of one source.
const CLIENTS: usize = 3;

/// The laws only cover states that runs reach. Each of these features is in at least one of 50 runs.
#[test]
fn generated_runs_reach_deep_states() {
    let mut seen = BTreeMap::new();
    for run in samples(&runs()) {
        let record = record(&run);
        let mut features = BTreeSet::new();
        features.extend(evictions(&run));
        for Record { step, answer, .. } in &record {
            match answer {
                Err(sigver_core::ConnectError::ShuttingDown) => drop(features.insert("refused at shutdown")),
                Err(_) => drop(features.insert("refused at the limit")),
                Ok(outputs) => {
                    for (to, output) in outputs {
                        let is_other = !matches!(step, Step::Event { who, .. } if who == to);
                        features.extend(feature(output));
                        if is_other && output.contains("TooSlow") {
                            features.insert("recipient too slow");
                        }
                    }
                }
            }
        }
        count(&mut seen, features);
    }
    let expected = [
        "abort",
        "both sides send",
        "drain",
        "error",
        "evicted while closing",
        "evicted while open",
        "kick",
        "made key",
        "no role in time",
        "pause",
        "ping",
        "plain data",
        "plain join refused after its grace",
        "pong",
        "random source fails",
        "recipient too slow",
        "refused at shutdown",
        "refused at the limit",
        "reply",
        "resume reading",
        "silent",
        "stop reading",
        "too slow",
    ];
    let often = more_often_than(SAMPLES / 50, &seen);
    let missing: Vec<_> = expected.iter().filter(|feature| !often.contains(feature)).collect();
    assert!(missing.is_empty(), "{missing:?} of {seen:?}");
}

/// Returns how connections with the largest backlogs were ended.
fn evictions(run: &Run) -> Vec<&'static str> {
    let mut driver = Driver::new(&run.config);
    let mut features = Vec::new();
    for step in &run.steps {
        let before = driver.endpoint.counters().evicted;
        let outputs = driver.play(*step).unwrap_or_default();
        if driver.endpoint.counters().evicted > before {
            let is_abort = outputs.iter().any(|(_, output)| output == "abort");
            features.push(if is_abort {
                "evicted while closing"
            } else {
                "evicted while open"
            });
        }
    }
    features
}

fn feature(output: &str) -> Option<&'static str> {
    let features = [
        ("abort", "abort"),
        (r#"{"type":"data","data""#, "both sides send"),
        ("close 1001", "drain"),
        (r#"{"type":"error""#, "error"),
        ("ended-by-kick", "kick"),
        (r#""key":"0000"#, "made key"),
        ("NoRoleInTime", "no role in time"),
        ("pause", "pause"),
        ("ping", "ping"),
        (r#"{"token":"#, "plain data"),
        ("pong", "pong"),
        ("1011 Internal", "random source fails"),
        ("reply", "reply"),
        ("UnknownKey", "plain join refused after its grace"),
        ("resume reading", "resume reading"),
        ("stop reading", "stop reading"),
        ("Silent", "silent"),
        ("TooSlow", "too slow"),
    ];
    let found = features.iter().find(|(part, _)| output.contains(part));
    found.map(|(_, feature)| *feature)
}

/// The first number of a client of the other keys.
const OTHERS: usize = 1_000_000;

/// Returns the step with other keys, addresses and clients; `None` if it is about all clients.
fn renamed(step: Step, offset: usize) -> Option<Step> {
    let other_key = |key: usize| if offset == 0 { key } else { key + 10 };
    Some(match step {
        Step::Connect { who, dialect, source } => Step::Connect {
            who: who + offset,
            dialect,
            source: if offset == 0 { source } else { source + 100 },
        },
        Step::Event { who, event } => {
            let event = match event {
                // All random keys come from one source.
                Event::Open { key, id, shown } => Event::Open {
                    id,
                    shown,
                    key: key.or(Some(0)).map(other_key),
                },
                Event::Meet { key, id, shown } => Event::Meet {
                    key: other_key(key),
                    id,
                    shown,
                },
                Event::Join { key, id, wait } => Event::Join {
                    key: other_key(key),
                    id,
                    wait,
                },
                other => other,
            };
            Step::Event {
                who: who + offset,
                event,
            }
        }
        Step::Written { who, bytes } => Step::Written {
            who: who + offset,
            bytes,
        },
        Step::Close { who } => Step::Close { who: who + offset },
        Step::Kick { who } => Step::Kick { who: who + offset },
        Step::Wait { .. } | Step::Timeout => step,
        Step::Drain { .. } | Step::CloseAll => return None,
    })
}

fn record(run: &Run) -> Vec<Record> {
    let mut driver = Driver::new(&run.config);
    let play = |&step| Record {
        answer: driver.play(step),
        now: driver.now.as_duration(),
        step,
    };
    run.steps.iter().map(play).collect()
}

/// An event of each kind.
const EVENTS: [Event; 17] = [
    Event::Open {
        key: Some(0),
        id: None,
        shown: None,
    },
    Event::Open {
        key: None,
        id: None,
        shown: None,
    },
    Event::Join {
        key: 0,
        id: None,
        wait: 0,
    },
    Event::Data {
        to: To::Index(0),
        is_object: true,
    },
    Event::Meet {
        key: 0,
        id: None,
        shown: None,
    },
    Event::UnknownType,
    Event::Kick { index: 0 },
    Event::Leave,
    Event::CloseKey,
    Event::PingMessage,
    Event::InvalidJson,
    Event::Binary,
    Event::Ping { bytes: 1 },
    Event::Pong,
    Event::Close { code: None },
    Event::Close { code: Some(1000) },
    Event::Violation {
        reason: CloseReason::TooBig,
    },
];
