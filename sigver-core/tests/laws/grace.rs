//! The laws of plain joins that arrive before the open, and of throttled requests, for random calls.

use core::{num::NonZeroU32, time::Duration};
use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::select};
use sigver_core::{Dialect, EndpointConfig};

use crate::{
    endpoint_run::{Record, assert_last_frame, assert_order, compare},
    endpoint_runs::{Op, Run, resolve},
    endpoint_steps::{Event, Step, To},
    search::{SAMPLES, count, for_a_third, more_often_than, samples},
};

/// Every call returns the same as the model, for each connection in the same order. What follows a join is handled in order and once.
#[test]
fn early_join_agrees_with_the_model() {
    for_a_third(races(), |run| {
        let record = compare(&run.config, &run.steps);
        assert_last_frame(&record);
        assert_order(&record);
    });
}

#[test]
fn generated_races_reach_deep_states() {
    let mut seen = BTreeMap::new();
    for run in samples(&races()) {
        let mut features = BTreeSet::new();
        for Record { step, answer, .. } in compare(&run.config, &run.steps) {
            let outputs = answer.unwrap_or_default();
            let has = |text: &str| outputs.iter().any(|(_, output)| output.contains(text));
            for feature in ["UnknownKey", "TooManyAttempts", "TooManyJoiners"] {
                if has(feature) {
                    features.insert(feature);
                }
            }
            let is_open = matches!(
                step,
                Step::Event {
                    event: Event::Open { .. } | Event::Meet { .. },
                    ..
                }
            );
            if is_open && has("resume reading") {
                features.insert("early join");
                if has(r#""token""#) && has("pong") {
                    features.insert("data and a ping behind it");
                }
            }
        }
        count(&mut seen, features);
    }
    let expected = [
        "UnknownKey",
        "TooManyAttempts",
        "TooManyJoiners",
        "data and a ping behind it",
        "early join",
    ];
    let often = more_often_than(SAMPLES / 50, &seen);
    let missing: Vec<_> = expected.iter().filter(|feature| !often.contains(feature)).collect();
    assert!(missing.is_empty(), "{missing:?} of {seen:?}");
}

/// Clients of few keys, most of them plain, that send before they know the outcome.
fn races() -> impl Strategy<Value = Run> {
    let ops = prop::collection::vec((op(), any::<usize>()), 20..160);
    let backlog = select(vec![1, 1_000, 100_000]);
    let (attempts, joiners) = (select(vec![1, 2, u32::MAX, u32::MAX]), select(vec![1, 2, 100]));
    (backlog, attempts, joiners, ops).prop_map(|(backlog_bytes, attempts, joiners, ops)| {
        let mut config = EndpointConfig::default();
        config.backlog_bytes = backlog_bytes;
        config.key_attempts_per_minute = NonZeroU32::new(attempts).filter(|attempts| *attempts < NonZeroU32::MAX);
        config.limits.joiners_per_key = joiners;
        config.messages_per_second = None;
        config.bytes_per_second = None;
        Run {
            steps: resolve(&config, ops.into_iter()),
            config,
        }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..2_usize;
    let data = Event::Data {
        to: To::Unnamed,
        is_object: true,
    };
    let event = prop_oneof![
        10 => key().prop_map(|key| Event::Open { key: Some(key), id: None, shown: None }),
        2 => key().prop_map(|key| Event::Meet { key, id: None, shown: None }),
        40 => key().prop_map(|key| Event::Join { key, id: None, wait: 0 }),
        20 => Just(data),
        20 => (0..40_usize).prop_map(|bytes| Event::Ping { bytes }),
        2 => Just(Event::Pong),
        3 => Just(Event::Close { code: Some(1000) }),
        6 => Just(Event::Disconnected),
        1 => Just(Event::InvalidJson),
        1 => Just(Event::Binary),
    ];
    prop_oneof![
        40 => Just(Op::Connect(Dialect::Plain, 1)),
        8 => Just(Op::Connect(Dialect::V1, 1)),
        90 => event.prop_map(Op::Event),
        4 => (0..400_usize).prop_map(Op::Written),
        20 => Just(Op::WrittenAll),
        4 => (1..4_usize).prop_map(Op::OnTime),
        8 => (0..400_u64).prop_map(|millis| Op::Wait(Duration::from_millis(millis))),
        1 => Just(Op::Timeout),
        1 => (0..3_000_u64).prop_map(|millis| Op::Wait(Duration::from_millis(millis))),
    ]
}
