//! The laws of openers that read more slowly than their joiners send, for random calls.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::select};
use sigver_core::{Dialect, EndpointConfig};

use crate::{
    endpoint_run::{Record, assert_last_frame, assert_order, compare, is_last},
    endpoint_runs::{Op, Run, resolve},
    endpoint_steps::{Event, Step, To},
    search::{SAMPLES, count, for_a_third, more_often_than, samples},
};

/// Every call returns the same as the model, for each connection in the same order. Data arrives in order and once.
#[test]
fn slow_opener_agrees_with_the_model() {
    for_a_third(crowds(), |run| {
        let record = compare(&run.config, &run.steps);
        assert_last_frame(&record);
        assert_order(&record);
    });
}

/// What a joiner sends to an opener that goes on reading arrives, if both stay: however slowly the opener reads, and whatever the others do.
#[test]
fn nothing_is_lost_while_both_sides_stay() {
    let runs = (crowds(), 100..1_000_usize);
    for_a_third(runs, |(mut run, room)| {
        run.config.close_timeout = Duration::MAX;
        run.config.keep_alive = Duration::MAX;
        run.steps.retain(|step| {
            let is_end = |event: &Event| {
                matches!(
                    event,
                    Event::Disconnected | Event::Close { .. } | Event::Kick { .. } | Event::Leave
                )
            };
            !matches!(step, Step::Event { who: 0, .. }) && !matches!(step, Step::Event { event, .. } if is_end(event))
        });
        let opener = [
            Step::Connect {
                who: 0,
                dialect: Dialect::V1,
                source: 1,
            },
            Step::Event {
                who: 0,
                event: Event::Open {
                    key: Some(0),
                    id: None,
                    shown: None,
                },
            },
        ];
        run.steps.retain(|step| !matches!(step, Step::Connect { who: 0, .. }));
        let reads = Step::Written { who: 0, bytes: room };
        let steps = [&opener[..], &run.steps, &vec![reads; 150]].concat();
        let record = compare(&run.config, &steps);
        let outputs = || record.iter().flat_map(|record| record.answer.iter().flatten());
        let closed: BTreeSet<usize> = outputs()
            .filter(|(_, output)| is_last(output))
            .map(|(who, _)| *who)
            .collect();
        let received: Vec<&str> = outputs()
            .filter(|(to, _)| *to == 0)
            .map(|(_, output)| output.as_str())
            .collect();
        let mut joined = BTreeSet::new();
        let mut lost = Vec::new();
        for (token, Record { step, answer, .. }) in (1..).zip(&record) {
            if let Step::Event {
                who,
                event: Event::Data { to: To::Unnamed, .. },
            } = step
            {
                let (object, array) = (format!(r#""token":{token}}}"#), format!(r#""data":[{token}]"#));
                let has_arrived = received
                    .iter()
                    .any(|output| output.contains(&object) || output.contains(&array));
                if joined.contains(who) && !closed.contains(who) && !has_arrived {
                    lost.push(token);
                }
            }
            let answers = answer.iter().flatten();
            joined.extend(
                answers
                    .filter(|(_, output)| output.starts_with(r#"{"type":"joined""#))
                    .map(|(who, _)| *who),
            );
        }
        assert!(lost.is_empty(), "{lost:?}");
    });
}

#[test]
fn generated_crowds_reach_deep_states() {
    let mut seen = BTreeMap::new();
    for run in samples(&crowds()) {
        let mut features = BTreeSet::new();
        for Record { step, answer, .. } in compare(&run.config, &run.steps) {
            let outputs = answer.unwrap_or_default();
            let has = |text: &str| outputs.iter().any(|(_, output)| output.contains(text));
            for feature in ["stop reading", "resume reading", "probe progress", "TooSlow"] {
                if has(feature) {
                    features.insert(feature);
                }
            }
            if matches!(step, Step::Written { .. }) && has(r#""data""#) {
                features.insert("data waited");
            }
            if matches!(step, Step::Written { .. }) && has("resume reading") && has(r#""joined""#) {
                features.insert("a join waited");
            }
        }
        count(&mut seen, features);
    }
    let expected = [
        "a join waited",
        "data waited",
        "probe progress",
        "resume reading",
        "stop reading",
        "TooSlow",
    ];
    let often = more_often_than(SAMPLES / 50, &seen);
    let missing: Vec<_> = expected.iter().filter(|feature| !often.contains(feature)).collect();
    assert!(missing.is_empty(), "{missing:?} of {seen:?}");
}

/// An opener of `sigver.v1`, clients that join its key and send, and an opener that reads a little now and then.
fn crowds() -> impl Strategy<Value = Run> {
    let ops = prop::collection::vec((op(), any::<usize>()), 20..160);
    let backlog = select(vec![1, 300, 1_000, 3_000, 10_000]);
    let timeout = select(vec![Duration::from_secs(5), Duration::MAX, Duration::ZERO]);
    (backlog, timeout, ops).prop_map(|(backlog_bytes, close_timeout, ops)| {
        let mut config = EndpointConfig::default();
        config.backlog_bytes = backlog_bytes;
        config.close_timeout = close_timeout;
        config.messages_per_second = None;
        config.bytes_per_second = None;
        let beginning = [
            (Op::Connect(Dialect::V1, 1), 1),
            (
                Op::Event(Event::Open {
                    key: Some(0),
                    id: None,
                    shown: None,
                }),
                1,
            ),
            (Op::WrittenAll, 0),
        ];
        Run {
            steps: resolve(&config, beginning.into_iter().chain(ops)),
            config,
        }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let data = prop::bool::weighted(0.8).prop_map(|is_object| Event::Data {
        to: To::Unnamed,
        is_object,
    });
    let event = prop_oneof![
        60 => data,
        14 => Just(Event::Join { key: 0, id: None, wait: 0 }),
        4 => (0..6_u32).prop_map(|index| Event::Kick { index }),
        3 => (0..6_u32).prop_map(|index| Event::Data { to: To::Index(index), is_object: true }),
        2 => Just(Event::Leave),
        1 => Just(Event::CloseKey),
        2 => Just(Event::Open { key: Some(0), id: None, shown: None }),
        3 => (0..40_usize).prop_map(|bytes| Event::Ping { bytes }),
        2 => Just(Event::Close { code: Some(1000) }),
        2 => Just(Event::Disconnected),
        1 => Just(Event::InvalidJson),
    ];
    prop_oneof![
        12 => Just(Op::Connect(Dialect::V1, 1)),
        4 => Just(Op::Connect(Dialect::Plain, 1)),
        90 => event.prop_map(Op::Event),
        12 => (0..400_usize).prop_map(Op::Written),
        1 => Just(Op::WrittenAll),
        6 => (1..4_usize).prop_map(Op::OnTime),
        3 => (0..3_000_u64).prop_map(|millis| Op::Wait(Duration::from_millis(millis))),
    ]
}
