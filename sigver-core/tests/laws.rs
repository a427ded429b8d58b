//! The laws of the core, each for any input that could be thought of. A law's doc says what it forbids, and by which breakage of
//! the code it was seen to fail.
//!
//! `PROPTEST_CASES=10000` searches longer. A failure is written to `laws.proptest-regressions`, which is to be committed: it is
//! tried first in every later run.

use core::{cell::Cell, fmt::Debug, num::IntErrorKind};
use std::collections::{BTreeMap, BTreeSet};

use proptest::{
    prelude::*,
    sample::Index as Pick,
    strategy::ValueTree,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sigver_core::{
    Addressee, CloseReason, ConnId, Dialect, Encoded, InboundMessage, Index, Key, Limits, OutboundMessage, Payload,
    Profile, Refusal, RoleEnd, Shape, Stats, Tenure, Time,
};

use crate::{
    json::{Object, RANDOM, Reading, carried, random, reading},
    model::{Model, PLAIN, Role, Said, Step, V1},
    refusals::refusals,
    runs::{KEYS, Run, SECOND_WORLD, runs, runs_without_global_limits, two_worlds},
    stage::{Event, Stage, assert_indexes, assert_last_word, assert_order, resigned},
    texts::{frames, objects},
};

#[path = "support/json.rs"]
mod json;
mod model;
#[path = "support/refusals.rs"]
mod refusals;
#[path = "support/runs.rs"]
mod runs;
#[path = "support/stage.rs"]
mod stage;
#[path = "support/texts.rs"]
mod texts;

/// Every call returns what a naive reading of the protocol says, and all that can be seen of the hub agrees with it.
///
/// Seen to fail when one joiner too many is let in (`>` for `>=` in `join`), when a second `open` is let through, and when an
/// opener's data goes to its first joiner, whatever its index.
#[test]
fn model() {
    for_all(runs(), |Run { limits, steps }| {
        let (mut stage, mut model) = (Stage::new(&limits), Model::new(&limits));
        for step in steps {
            assert_eq!(stage.play(step), model.play(step), "{step:?}");
            assert_eq!(stage.stats(), model.stats(), "after {step:?}");
            let next = stage.hub.poll_timeout().map(Time::elapsed);
            assert_eq!(next, model.next_timeout(), "after {step:?}");
            stage.hub.assert_invariants();
        }
    });
}

/// A payload that is given to the hub is in exactly one output of the same call, or was counted as dropped, or as refused otherwise, or
/// broke a rule that closes its sender, or came from the dead; and it comes to its end once. Nothing is duplicated (by type), lost,
/// forged or kept.
///
/// Seen to fail when a joiner's data is swallowed, when a drop is not counted, and when a dropped payload is forgotten
/// (`mem::forget`) instead of freed.
#[test]
fn conservation() {
    for_all(runs(), |Run { limits, steps }| {
        let (mut stage, mut people) = (Stage::new(&limits), People::default());
        for step in steps {
            let before = stage.stats();
            let answer = stage.call(step);
            let after = stage.stats();
            let said = stage.read(&answer);
            let carried: Vec<usize> = said.iter().filter_map(|(_, said)| token(said)).collect();

            if let Step::Data { who, token, .. } | Step::Lookalike { who, token, .. } = step {
                let delivered = carried.len() as u64;
                let dropped = after.dropped - before.dropped;
                let refused = after.refused - before.refused - dropped;
                let names_nobody = said.iter().any(|(_, said)| is_refused_as(said, "unknown-index"));
                assert_eq!(dropped, u64::from(names_nobody), "{step:?}: {said:?}");
                let broke_a_rule = said.iter().any(|(to, said)| *to == who && is_of_a_broken_rule(said));
                let inert = !people.parts.contains_key(&who);
                let fates = delivered + dropped + refused + u64::from(broke_a_rule) + u64::from(inert);
                assert_eq!(fates, 1, "{step:?}: {said:?}");
                assert_eq!(after.relayed - before.relayed, delivered, "{step:?}");
                assert!(carried.iter().all(|carried| *carried == token));
                assert_eq!(u64::from(stage.ends_of(token)), 1 - delivered);
                drop(answer);
                assert_eq!(stage.ends_of(token), 1, "the recipient had the only one");
            } else {
                assert!(carried.is_empty(), "{step:?} carries nothing");
                let counted = |stats: Stats| (stats.relayed, stats.dropped);
                assert_eq!(counted(after), counted(before), "{step:?} carries nothing");
            }
            people.note(&Event { step, said });
        }
    });
}

/// What is refused is said to the one that asked, to nobody else, and nothing has changed: all else goes on as if it had not been
/// asked for. Here nobody has a deadline, which ends when a role is asked for.
///
/// Seen to fail when MUTATION.
#[test]
fn refusal() {
    for_all(runs(), |Run { mut limits, mut steps }| {
        limits.role_deadline = None;
        let whole = record(&limits, &steps);
        let is_refused = |event: &Event| event.said.iter().any(|(_, said)| matches!(said, Said::Refused { .. }));
        for event in whole.iter().filter(|event| is_refused(event)) {
            assert!(
                matches!(event.said[..], [(to, _)] if Some(to) == actor(&event.step)),
                "{event:?}"
            );
        }
        let mut refused = whole.iter().map(is_refused);
        steps.retain(|_| !refused.next().unwrap_or_default());
        let without: Vec<Event> = whole.iter().filter(|event| !is_refused(event)).cloned().collect();
        assert_eq!(record(&limits, &steps), without);
    });
}

/// What is said to the connections of some keys is the same with and without all other connections, as long as no connection names
/// keys of both.
///
/// Seen to fail when indexes are counted for the whole hub, when an opener that leaves takes every key with it (`keys.clear()`),
/// and when one connection's `open` cancels every deadline.
#[test]
fn isolation() {
    for_all(two_worlds(), |Run { limits, steps }| {
        let whole = record(&limits, &steps);
        for second in [false, true] {
            let is_ours = |who: usize| (who >= SECOND_WORLD) == second;
            let ours = steps.iter().filter(|step| actor(step).is_none_or(is_ours));
            let alone = record(&limits, &ours.copied().collect::<Vec<_>>());
            assert_eq!(heard_by(is_ours, &whole), heard_by(is_ours, &alone));
        }
    });
}

/// From one sender to one recipient: first in, first out; nothing about a joiner before its `PeerJoined` or after its `PeerLeft`; and
/// nothing of a role before its `Opened` or `Joined` or after its end.
///
/// Seen to fail when one payload is held back until after the next, when `PeerJoined` is left out, and when it has another index
/// than the joiner's data.
#[test]
fn order() {
    for_all(runs(), |Run { limits, steps }| {
        assert_order(&record(&limits, &steps));
    });
}

/// After `Close` nothing is said to a connection, and nothing after it is gone.
///
/// Seen to fail when joiners stay in the arena after their opener has left, so that they are heard and closed again, and when
/// they are told twice that it left.
#[test]
fn last_word() {
    for_all(runs(), |Run { limits, steps }| {
        assert_last_word(&record(&limits, &steps));
    });
}

/// Calls with ids that are dead, or were never given out, return nothing, change nothing that can be seen, and change nothing about
/// what happens later.
///
/// Seen to fail when all ids have the same generation, so that a dead one names the slot's next owner, when `close` says `Close`
/// to the dead, too, and when their data counts as dropped.
#[test]
fn inert_ghosts() {
    for_all(runs(), |Run { limits, steps }| {
        let (mut haunted, mut people) = (Stage::new(&limits), People::default());
        for event in record(&limits, &steps) {
            assert_eq!(haunted.play(event.step), event.said, "{:?}", event.step);
            people.note(&event);
            let before = (haunted.stats(), haunted.hub.poll_timeout());
            for call in people.dead.iter().flat_map(|who| calls_of(*who)) {
                assert_eq!(haunted.play(call), [], "{call:?} after {:?}", event.step);
            }
            for slot in 0..4 {
                let nobody = ConnId::from_bits(u64::from(u32::MAX) << 32 | slot);
                assert!(haunted.hub.close(nobody, CloseReason::TooSlow).is_empty());
                assert!(haunted.hub.disconnect(nobody).is_empty());
            }
            assert_eq!((haunted.stats(), haunted.hub.poll_timeout()), before);
        }
    });
}

/// When joiners are gone, their places are free; when all are gone, in whatever way, every gauge is 0 and there is nothing to wait
/// for; and but for a shutdown, the hub is then as good as new.
///
/// Seen to fail when a joiner that leaves stays in its opener's table, when an opener that leaves stays in the table of keys, when
/// the deadline of a connection that leaves without a role stays, and when a shutdown leaves the keys.
#[test]
fn no_leak() {
    let ends = prop::collection::vec((any::<Pick>(), prop::sample::select(ENDS)), 1..16);
    for_all((runs_without_global_limits(), ends), |(run, ends)| {
        let Run { limits, mut steps } = run;
        steps.retain(|step| *step != Step::Shutdown);
        let mut shut_down = Scene::after(&limits, &steps);
        shut_down.play(Step::Shutdown);
        shut_down.assert_empty();

        let mut scene = Scene::after(&limits, &steps);
        scene.end_all(&ends, |part| part == Part::Joiner);
        assert_eq!(scene.stage.stats().joiners, 0);
        for key in scene.open_keys() {
            scene.fill(key, limits.joiners_per_key);
        }
        scene.end_all(&ends, |_| true);
        scene.assert_empty();
        for key in 0..KEYS {
            scene.open(key);
            let indexes = scene.fill(key, limits.joiners_per_key);
            assert!(indexes.into_iter().eq(0..limits.joiners_per_key));
        }
    });
}

/// An opener's joiners are 0, 1, 2, … in the order in which they are let in, from the start each time that it opens a key: refused ones
/// use no index, none comes again, and each joiner is told the number that its opener is told.
///
/// Seen to fail when the number of joiners is the next index, when a refused joiner uses one up, and when the opener is told
/// another than the joiner.
#[test]
fn indexes() {
    for_all(runs(), |Run { limits, steps }| {
        assert_indexes(&record(&limits, &steps));
    });
}

/// Time alone closes exactly those that have asked for no role by their deadline, whatever the answer would have been, when it is asked to,
/// and not before; who had a role once has all the time; afterwards there is nothing to do until later.
///
/// Seen to fail when a deadline must be over and not just met (`>=` for `>` in `handle_timeout`), when everyone without a role is
/// closed, and when only one connection is closed at a time.
#[test]
fn time() {
    for_all(runs(), |Run { limits, steps }| {
        let (mut stage, mut people) = (Stage::new(&limits), People::default());
        let mut since = BTreeMap::new();
        for step in steps {
            let now = stage.now;
            let due = |since: &Time| since.checked_add(limits.role_deadline?);
            let late: Vec<_> = people
                .waiting()
                .filter(|who| due(&since[who]).is_some_and(|due| due <= now))
                .map(|who| (who, Said::Close(CloseReason::NoRoleInTime)))
                .collect();
            let said = stage.play(step);
            match step {
                Step::Connect { who, .. } => drop(since.insert(who, now)),
                Step::Timeout => assert_eq!(said, late),
                Step::Close { .. } => {}
                _ => assert!(!said.iter().any(|(_, said)| is_out_of_time(said)), "{step:?}"),
            }
            people.note(&Event { step, said });
            let next = people.waiting().filter_map(|who| due(&since[&who])).min();
            assert_eq!(stage.hub.poll_timeout(), next, "after {step:?}");
            assert!(step != Step::Timeout || next.is_none_or(|next| next > now));
        }
    });
}

/// What crosses is what was sent, byte for byte: the same text towards a plain joiner; the same text and one `index` towards a plain
/// opener; the same text as the `data` of a frame towards either in `sigver.v1`. It is the whole frame of a plain sender, and the value
/// of `data` of one in `sigver.v1`, whatever JSON it is; only what has no place for one index does not go to a plain peer.
///
/// The protocol page leaves open where the white space around an added member goes; what is pinned here is what
/// `Payload::splice` promises.
///
/// Seen to fail when the text goes on one byte too late behind the spliced index, when the index comes first, when white space
/// around the object is trimmed, and when the payload goes through `serde_json::Value`.
#[test]
fn fidelity() {
    for_all((objects(), any::<u32>()), |(object, number)| {
        let text = object.text();
        let Some(towards_joiner) = carried(Dialect::Plain, &text, Dialect::Plain, None) else {
            return;
        };
        assert_eq!(towards_joiner, text);
        let towards_opener = carried(Dialect::Plain, &text, Dialect::Plain, Some(number));
        assert_eq!(towards_opener, Some(object.text_with_index(number)));
        assert_enveloped(Dialect::Plain, &text, &text, number);
    });
    for_all((frames(), any::<u32>()), |(frame, number)| {
        let text = frame.text();
        let Ok(InboundMessage::Data { to, shape, .. }) = Dialect::V1.decode(&text, &Limits::default(), random) else {
            return;
        };
        let data = frame.data().expect("what is sent has data");
        assert_enveloped(Dialect::V1, &text, data, number);
        if shape == Shape::Object {
            let towards_joiner = carried(Dialect::V1, &text, Dialect::Plain, None);
            assert_eq!(towards_joiner.as_deref(), Some(data));
            if to == Addressee::Unnamed {
                let towards_opener = carried(Dialect::V1, &text, Dialect::Plain, Some(number));
                assert_eq!(towards_opener, frame.data_with_index(number));
            }
        }
    });
}

/// Whatever the text is, it is a message, or a reason with one of the codes for texts, and never a panic; and every text that is
/// taken can be sent on: it comes out as an object that has the joiner's index and nothing else that is new.
///
/// Seen to fail when a lone surrogate is taken for impossible (`expect`), when text behind the object is let through, when `{}`
/// gets a comma, and when the index goes behind the last member that the server knows.
#[test]
fn total() {
    for_all(texts(), |text| {
        for dialect in Dialect::ALL {
            assert_is_taken_or_not(*dialect, &text);
        }
    });
}

/// What a text says to us is what it says by an independent reading, and what we say is what we meant by another's.
///
/// The first reading is known from how the text was made, and covers all of them, also where they just meet a limit; the second is
/// `serde_json`'s own, for those texts that its values can hold.
///
/// Seen to fail when an index may be any digits or goes through a float, when `"index":null` is taken for none, when escapes in
/// `type`, `key` and `index` are not decoded, when a member may come twice, and when any limit is off by one.
#[test]
fn codec() {
    let texts = prop_oneof![objects(), frames()];
    for_all(
        (texts, any::<u32>(), [edge(), edge(), edge()]),
        |(object, number, edges)| {
            let text = object.text();
            for dialect in Dialect::ALL {
                for limits in [Limits::default(), limits_near(*dialect, &object, edges)] {
                    let read = dialect.decode(&text, &limits, random).map(reading);
                    assert_eq!(read, object.reading(*dialect, &limits), "{dialect:?}: {text}");
                }
            }

            let value = serde_json::from_str::<Value>(&text);
            let out = carried(Dialect::Plain, &text, Dialect::Plain, Some(number));
            let (Ok(mut value), Some(out)) = (value, out) else {
                return;
            };
            if let Some(expected) = reading_of(&value, &text) {
                let read = Dialect::Plain.decode(&text, &Limits::default(), random).map(reading);
                assert_eq!(read, Ok(expected), "{text}");
            }
            value["index"] = number.into();
            assert_eq!(serde_json::from_str::<Value>(&out).ok(), Some(value), "{out}");
        },
    );
}

/// Every output of `sigver.v1` but a close is one JSON object with the members that the protocol page lists and no other, each once, and
/// says what was meant, whatever is in the key.
///
/// Seen to fail when MUTATION.
#[test]
fn vocabulary() {
    let indexes = prop_oneof![any::<u32>(), Just(0), Just(u32::MAX - 1), Just(u32::MAX)];
    for_all((keys(), indexes, objects()), |(key, index, object)| {
        let text = object.text();
        let payload = || match Dialect::Plain.decode(&text, &Limits::default(), random) {
            Ok(InboundMessage::Data { payload, .. } | InboundMessage::Lookalike { payload, .. }) => Some(payload),
            Ok(_) | Err(_) => None,
        };
        for (message, meant) in outputs(&key, Index::new(index), payload) {
            let mut out = String::from("as it was");
            assert_eq!(Dialect::V1.encode(&message, &mut out), Encoded::Text);
            let frame = out.strip_prefix("as it was").expect("text is appended");
            // Floats, and what a value cannot hold, are for the law of fidelity.
            let (Ok(said), Some(meant)) = (serde_json::from_str::<Value>(frame), meant) else {
                assert!(matches!(message, OutboundMessage::Data { .. }), "{frame}");
                continue;
            };
            assert_eq!(said, meant, "{frame}");
            if !matches!(message, OutboundMessage::Data { .. }) {
                assert_eq!(frame.len(), meant.to_string().len(), "a member comes twice: {frame}");
            }
        }
    });
}

/// The laws say little about states that no run reaches: each of these features is in one run of ten at least.
#[test]
fn generated_runs_reach_deep_states() {
    let mut seen = BTreeMap::new();
    let mut states = BTreeSet::new();
    for Run { limits, steps } in samples(&runs()) {
        let mut model = Model::new(&limits);
        let mut features = BTreeSet::new();
        for step in steps {
            let crowds = crowds(&model);
            let said = model.play(step);
            features.extend(features_of(step, &said, &crowds));
            features.extend(features_of_clients(&model, &said));
            states.insert(model.state());
        }
        count(&mut seen, features);
    }
    let expected = [
        "a close of a key with several joiners",
        "a crowd",
        "a joiner leaves and joins again",
        "a kick of one that goes on",
        "a kick that closes",
        "a refused connection",
        "a refused role that keeps the connection",
        "a second open or join",
        "a shutdown that closes several",
        "an index starts again from 0",
        "an opener leaves several joiners",
        "both profiles under one key",
        "data from a later joiner",
        "data that is no object",
        "data to a joiner",
        "dropped data",
        "no role in time",
        "something of another role",
        "something without a role",
        "the first of several joiners leaves",
        "too many joiners",
        "two openers with two joiners each",
    ];
    assert_eq!(more_often_than(SAMPLES / 10, &seen), expected, "of {seen:?}");
    assert!(states.len() > 5_000, "only {} states", states.len());
}

/// The laws say little about texts that nobody makes: each of these kinds is one in thirty at least.
#[test]
fn generated_texts_are_of_every_kind() {
    let mut seen = BTreeMap::new();
    for object in samples(&objects()) {
        let kind = match object.reading(Dialect::Plain, &Limits::default()) {
            Err(CloseReason::Duplicate(_)) => "a member twice",
            Err(_) => "control with a wrong key",
            Ok(reading) => kind(&reading),
        };
        let by_value = match serde_json::from_str::<Value>(&object.text()) {
            Ok(_) => "within what a value can hold",
            Err(_) => "beyond what a value can hold",
        };
        let nesting = if object.depth() > 2 { "deep" } else { "flat" };
        count(&mut seen, [kind, by_value, nesting]);
    }
    let expected = [
        "a member twice",
        "beyond what a value can hold",
        "control",
        "control with a wrong key",
        "data",
        "data to a malformed index",
        "data to an index",
        "deep",
        "flat",
        "lookalike",
        "within what a value can hold",
    ];
    assert_eq!(more_often_than(SAMPLES / 30, &seen), expected, "of {seen:?}");

    let mut seen = BTreeMap::new();
    for frame in samples(&frames()) {
        let kind = match frame.reading(Dialect::V1, &Limits::default()) {
            Err(CloseReason::Duplicate(_)) => "a member twice",
            Err(CloseReason::UnknownMessage) => "an unknown message",
            Err(CloseReason::DataMissing) => "no data",
            Err(_) => "another malformed message",
            Ok(Reading::Data(Addressee::Unnamed, Shape::Any, _)) => "data that is no object",
            Ok(reading) => kind(&reading),
        };
        count(&mut seen, [kind]);
    }
    let expected = [
        "a member twice",
        "an unknown message",
        "another malformed message",
        "control",
        "data",
        "data that is no object",
        "data to an index",
        "no data",
    ];
    assert_eq!(more_often_than(SAMPLES / 30, &seen), expected, "of {seen:?}");
}

fn kind(reading: &Reading) -> &'static str {
    match reading {
        Reading::Open(_) | Reading::Join(_) | Reading::Kick(_) | Reading::Leave | Reading::CloseKey => "control",
        Reading::Data(Addressee::Unnamed, ..) => "data",
        Reading::Data(Addressee::Index(_), ..) => "data to an index",
        Reading::Data(Addressee::Malformed, ..) => "data to a malformed index",
        Reading::Lookalike(..) => "lookalike",
    }
}

const SAMPLES: u32 = 250;

fn count(seen: &mut BTreeMap<&'static str, u32>, features: impl IntoIterator<Item = &'static str>) {
    for feature in features {
        *seen.entry(feature).or_default() += 1;
    }
}

fn more_often_than(times: u32, seen: &BTreeMap<&'static str, u32>) -> Vec<&'static str> {
    let often = seen.iter().filter(|(_, count)| **count > times);
    often.map(|(feature, _)| *feature).collect()
}

fn samples<S: Strategy>(strategy: &S) -> impl Iterator<Item = S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..SAMPLES).map(move |_| {
        let tree = strategy.new_tree(&mut runner);
        tree.expect("nothing is filtered out for long").current()
    })
}

/// Tries `law` on many values, and on every value on which one failed before.
fn for_all<S: Strategy>(values: S, law: impl Fn(S::Value))
where
    S::Value: Debug,
{
    const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/laws.proptest-regressions");
    let mut runner = TestRunner::new(Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        ..Config::default()
    });
    let result = runner.run(&values, |value| {
        law(value);
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}\n{runner}");
    }
}

/// What is said in a run of a new hub.
fn record(limits: &Limits, steps: &[Step]) -> Vec<Event> {
    let mut stage = Stage::new(limits);
    let play = |&step| Event {
        step,
        said: stage.play(step),
    };
    steps.iter().map(play).collect()
}

/// What a connection is, as far as can be heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Idle,
    Opener { key: usize },
    Joiner,
}

/// Who is there and who was there, as far as can be heard.
#[derive(Default)]
struct People {
    parts: BTreeMap<usize, Part>,
    /// Those of any number of roles.
    renewable: BTreeSet<usize>,
    /// Those that have never asked for a role.
    waiting: BTreeSet<usize>,
    dead: BTreeSet<usize>,
}

impl People {
    fn note(&mut self, event: &Event) {
        match event.step {
            Step::Connect { who, profile } => self.welcome(who, profile),
            Step::Open { who, .. } | Step::Join { who, .. } => drop(self.waiting.remove(&who)),
            Step::Disconnect { who } => self.bury(who),
            _ => {}
        }
        for (to, said) in &event.said {
            match said {
                Said::NotLetIn(_) => self.forget(*to),
                Said::Opened { key } => self.becomes(*to, Part::Opener { key: *key }),
                Said::Joined { .. } => self.becomes(*to, Part::Joiner),
                Said::RoleEnded(_) => self.becomes(*to, Part::Idle),
                Said::Close(_) => self.bury(*to),
                Said::PeerJoined { .. } | Said::Data { .. } | Said::PeerLeft { .. } | Said::Refused { .. } => {}
            }
        }
        if let Some(who) = resigned(event) {
            self.becomes(who, Part::Idle);
        }
    }

    fn waiting(&self) -> impl Iterator<Item = usize> {
        self.waiting.iter().copied()
    }

    fn who(&self, is: impl Fn(Part) -> bool) -> impl Iterator<Item = usize> {
        let parts = self.parts.iter();
        parts.filter_map(move |(who, part)| is(*part).then_some(*who))
    }

    fn welcome(&mut self, who: usize, profile: Profile) {
        self.parts.insert(who, Part::Idle);
        self.waiting.insert(who);
        if profile.tenure == Tenure::Renewable {
            self.renewable.insert(who);
        }
    }

    /// The dead become nothing any more.
    fn becomes(&mut self, who: usize, part: Part) {
        if let Some(now) = self.parts.get_mut(&who) {
            *now = part;
        }
    }

    fn bury(&mut self, who: usize) {
        if self.parts.contains_key(&who) {
            self.forget(who);
            self.dead.insert(who);
        }
    }

    fn forget(&mut self, who: usize) {
        self.parts.remove(&who);
        self.waiting.remove(&who);
    }
}

/// How a connection, or its role, can come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is closed by the embedder.
    Close,
    /// It just goes.
    Disconnect,
    /// It gives up its role, if it has one and may, and just goes otherwise.
    Resign,
}

const ENDS: &[End] = &[End::Close, End::Disconnect, End::Resign];

/// A stage that is played on without a script.
struct Scene {
    stage: Stage,
    people: People,
    /// The name of the next newcomer: higher than a script's.
    next: usize,
}

impl Scene {
    fn after(limits: &Limits, steps: &[Step]) -> Self {
        let mut scene = Self {
            stage: Stage::new(limits),
            people: People::default(),
            next: 1_000,
        };
        for step in steps {
            scene.play(*step);
        }
        scene
    }

    fn play(&mut self, step: Step) -> Vec<(usize, Said)> {
        let said = self.stage.play(step);
        let event = Event { step, said };
        self.people.note(&event);
        event.said
    }

    fn assert_empty(&self) {
        let stats = self.stage.stats();
        assert_eq!((stats.connections, stats.keys, stats.joiners), (0, 0, 0));
        assert_eq!(self.stage.hub.poll_timeout(), None);
        self.stage.hub.assert_invariants();
    }

    /// They speak one dialect and the other by turns.
    fn newcomer(&mut self) -> usize {
        let who = self.next;
        self.next += 1;
        let profile = if who % 2 == 0 { PLAIN } else { V1 };
        assert_eq!(self.play(Step::Connect { who, profile }), []);
        who
    }

    fn open(&mut self, key: usize) {
        let who = self.newcomer();
        let said = self.play(Step::Open { who, key });
        assert_eq!(said, [(who, Said::Opened { key })]);
    }

    /// Lets `count` newcomers join `key` and one more be refused; returns the indexes that were given.
    fn fill(&mut self, key: usize, count: u32) -> Vec<u32> {
        let mut indexes = Vec::new();
        for _ in 0..count {
            let who = self.newcomer();
            match self.play(Step::Join { who, key })[..] {
                [(to, Said::Joined { index }), _] if to == who => indexes.push(index),
                ref said => panic!("no place for another joiner: {said:?}"),
            }
        }
        let who = self.newcomer();
        let said = self.play(Step::Join { who, key });
        let is_no = |said: &Said| is_too_many(said) && is_close(said) != self.people.renewable.contains(&who);
        assert!(
            matches!(&said[..], [(to, said)] if *to == who && is_no(said)),
            "{said:?}"
        );
        indexes
    }

    fn open_keys(&self) -> Vec<usize> {
        let parts = self.people.parts.values();
        parts
            .filter_map(|part| match part {
                Part::Opener { key } => Some(*key),
                Part::Idle | Part::Joiner => None,
            })
            .collect()
    }

    /// Ends all who have such a part, or the part, in any order and in every way.
    fn end_all(&mut self, ends: &[(Pick, End)], is: impl Fn(Part) -> bool) {
        for (pick, end) in ends.iter().cycle() {
            let left: Vec<usize> = self.people.who(&is).collect();
            if left.is_empty() {
                return;
            }
            let who = *pick.get(&left);
            let part = self.people.parts[&who];
            let resigns = *end == End::Resign && self.people.renewable.contains(&who);
            let reason = CloseReason::TooSlow;
            self.play(match (end, part) {
                (End::Close, _) => Step::Close { who, reason },
                (End::Resign, Part::Joiner) if resigns => Step::Leave { who },
                (End::Resign, Part::Opener { .. }) if resigns => Step::CloseKey { who },
                (End::Resign | End::Disconnect, _) => Step::Disconnect { who },
            });
            assert_ne!(self.people.parts.get(&who), Some(&part), "{who} was thought to end");
        }
    }
}

/// Who does `step`, if one connection does.
fn actor(step: &Step) -> Option<usize> {
    match *step {
        Step::Connect { who, .. }
        | Step::Open { who, .. }
        | Step::Join { who, .. }
        | Step::Data { who, .. }
        | Step::Lookalike { who, .. }
        | Step::Kick { who, .. }
        | Step::Leave { who }
        | Step::CloseKey { who }
        | Step::Close { who, .. }
        | Step::Disconnect { who } => Some(who),
        Step::Wait { .. } | Step::Timeout | Step::Shutdown => None,
    }
}

/// What is said in a run to those who `are` meant, one step after the other.
fn heard_by(are: impl Fn(usize) -> bool, record: &[Event]) -> Vec<Vec<(usize, Said)>> {
    let heard = record.iter().map(|event| {
        let said = event.said.iter().copied();
        said.filter(|(to, _)| are(*to)).collect()
    });
    heard.filter(|said: &Vec<_>| !said.is_empty()).collect()
}

/// Every call that a connection can make, or that can be made about it.
fn calls_of(who: usize) -> [Step; 10] {
    let (key, index, token) = (0, 0, usize::MAX);
    let (reason, shape) = (CloseReason::TooSlow, Shape::Any);
    let (to, nobody) = (Addressee::Index(Index::new(0)), Addressee::Unnamed);
    [
        Step::Data { who, to, shape, token },
        Step::Data {
            who,
            to: nobody,
            shape,
            token,
        },
        Step::Lookalike { who, to, shape, token },
        Step::Open { who, key },
        Step::Join { who, key },
        Step::Kick { who, index },
        Step::Leave { who },
        Step::CloseKey { who },
        Step::Close { who, reason },
        Step::Disconnect { who },
    ]
}

fn token(said: &Said) -> Option<usize> {
    match said {
        Said::Data { token, .. } => Some(*token),
        _ => None,
    }
}

fn is_close(said: &Said) -> bool {
    matches!(said, Said::Close(_))
}

/// Whether a connection is closed without a refusal for what is wrong with its data.
fn is_of_a_broken_rule(said: &Said) -> bool {
    matches!(
        said,
        Said::Close(CloseReason::UnknownType | CloseReason::IndexMalformed)
    )
}

fn is_too_many(said: &Said) -> bool {
    *said == Said::Close(CloseReason::TooManyJoiners) || is_refused_as(said, "too-many-joiners")
}

fn is_refused_as(said: &Said, as_code: &str) -> bool {
    matches!(said, Said::Refused { code, .. } if *code == as_code)
}

fn is_out_of_time(said: &Said) -> bool {
    *said == Said::Close(CloseReason::NoRoleInTime)
}

/// How many joiners each opener has.
fn crowds(model: &Model) -> BTreeMap<usize, usize> {
    let mut crowds = BTreeMap::new();
    for client in model.living() {
        match client.role {
            Role::Idle { .. } => {}
            Role::Opener { .. } => drop(crowds.entry(client.name).or_insert(0)),
            Role::Joiner { opener, .. } => *crowds.entry(opener).or_insert(0) += 1,
        }
    }
    crowds
}

/// What is remarkable about a step, given what it led to and the crowds before it.
fn features_of(step: Step, said: &[(usize, Said)], crowds: &BTreeMap<usize, usize>) -> Vec<&'static str> {
    let mut features = Vec::new();
    if crowds.values().filter(|crowd| **crowd >= 2).count() >= 2 {
        features.push("two openers with two joiners each");
    }
    if crowds.values().any(|crowd| *crowd >= 4) {
        features.push("a crowd");
    }
    let closed: Vec<CloseReason> = said
        .iter()
        .filter_map(|(_, said)| match said {
            Said::Close(reason) => Some(*reason),
            _ => None,
        })
        .collect();
    let left = |said: &&(usize, Said)| {
        matches!(
            said.1,
            Said::RoleEnded(RoleEnd::OpenerLeft) | Said::Close(CloseReason::OpenerLeft)
        )
    };
    let left = said.iter().filter(left).count();
    if matches!(step, Step::Disconnect { .. }) && left >= 2 {
        features.push("an opener leaves several joiners");
    }
    if matches!(step, Step::CloseKey { .. }) && left >= 2 {
        features.push("a close of a key with several joiners");
    }
    if step == Step::Shutdown && closed.len() >= 3 {
        features.push("a shutdown that closes several");
    }
    for (to, said) in said {
        match said {
            Said::PeerLeft { index: 0 } if crowds.get(to).is_some_and(|crowd| *crowd >= 2) => {
                features.push("the first of several joiners leaves");
            }
            Said::Data { from: Some(1..), .. } => features.push("data from a later joiner"),
            Said::Data { from: None, .. } => features.push("data to a joiner"),
            Said::Close(CloseReason::TooManyJoiners) => features.push("too many joiners"),
            Said::Close(CloseReason::HasRole) => features.push("a second open or join"),
            Said::Close(CloseReason::NoRoleInTime) => features.push("no role in time"),
            Said::Close(CloseReason::Kicked) => features.push("a kick that closes"),
            Said::RoleEnded(RoleEnd::Kicked) => features.push("a kick of one that goes on"),
            Said::NotLetIn(_) => features.push("a refused connection"),
            Said::Refused { code, .. } => features.extend(match *code {
                "has-role" => Some("a second open or join"),
                "key-taken" | "unknown-key" => Some("a refused role that keeps the connection"),
                "no-role" => Some("something without a role"),
                "not-an-object" => Some("data that is no object"),
                "too-many-joiners" => Some("too many joiners"),
                "unknown-index" if matches!(step, Step::Data { .. }) => Some("dropped data"),
                "wrong-role" => Some("something of another role"),
                _ => None,
            }),
            _ => {}
        }
    }
    features
}

/// What is remarkable about those that are there, and about those who are told something.
fn features_of_clients(model: &Model, said: &[(usize, Said)]) -> Vec<&'static str> {
    let mut features = Vec::new();
    let is_renewable = |who| model.living().any(|client| client.name == who && client.renewable);
    for client in model.living() {
        match (client.role, client.former) {
            (Role::Joiner { .. }, Some(Role::Joiner { .. })) => features.push("a joiner leaves and joins again"),
            (Role::Joiner { opener, .. }, _) if client.renewable != is_renewable(opener) => {
                features.push("both profiles under one key");
            }
            (Role::Opener { .. }, Some(Role::Opener { announced: 1.., .. }))
                if said.contains(&(client.name, Said::PeerJoined { index: 0 })) =>
            {
                features.push("an index starts again from 0");
            }
            (Role::Idle { .. } | Role::Opener { .. } | Role::Joiner { .. }, _) => {}
        }
    }
    features
}

/// Limits that a short text can meet.
fn tight() -> Limits {
    limits(8, 4, 1_000)
}

/// One more than what a limit leaves over: 0 where the text is just over it.
fn edge() -> impl Strategy<Value = u32> {
    prop_oneof![1 => Just(0), 4 => Just(1), 4 => 2..100_u32]
}

/// Limits that `object` just meets, or just does not.
fn limits_near(dialect: Dialect, object: &Object, [key, depth, size]: [u32; 3]) -> Limits {
    let key_bytes = match object.reading(dialect, &Limits::default()) {
        Ok(Reading::Open(key) | Reading::Join(key)) => key.len() as u32,
        Ok(_) | Err(_) => 1,
    };
    let message_bytes = object.text().len() as u32;
    limits(
        key_bytes + key - 1,
        object.depth() + depth - 1,
        message_bytes + size - 1,
    )
}

fn limits(key_bytes: u32, depth: u32, message_bytes: u32) -> Limits {
    let mut limits = Limits::default();
    limits.key_bytes = key_bytes;
    limits.depth = depth;
    limits.message_bytes = message_bytes;
    limits
}

/// Texts of any kind: valid ones, valid ones with something broken, soups of what JSON is made of, and anything.
fn texts() -> impl Strategy<Value = String> {
    let edit = (any::<Pick>(), any::<Pick>(), "[\\[\\]{}\",:\\\\u0-9eE+ -]{0,2}");
    let broken = (prop_oneof![objects(), frames()], prop::collection::vec(edit, 0..4)).prop_map(|(object, edits)| {
        let mut text: Vec<char> = object.text().chars().collect();
        for (from, to, instead) in edits {
            let (from, to) = (from.index(text.len() + 1), to.index(text.len() + 1));
            let end = if to > from && to - from < 4 { to } else { from };
            text.splice(from..end, instead.chars());
        }
        text.into_iter().collect()
    });
    let words = [
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "\"type\":",
        "\"key\":",
        "\"index\":",
        "\"open\"",
        "\"send\"",
        "\"data\":",
        "0",
        "-",
        "1e9",
        "null",
        "\\ud800",
        " ",
        "\n",
        "{\"a\":",
        "é",
    ];
    let soup =
        |length| prop::collection::vec(prop::sample::select(words.to_vec()), length).prop_map(|words| words.concat());
    let followed = (objects(), soup(1..3)).prop_map(|(object, more)| object.text() + &more);
    prop_oneof![
        4 => broken,
        1 => followed,
        2 => soup(0..24),
        1 => any::<String>(),
    ]
}

/// What `speaker` says with `text` comes to peers in `sigver.v1` as `data`.
fn assert_enveloped(speaker: Dialect, text: &str, data: &str, number: u32) {
    let towards_joiner = carried(speaker, text, Dialect::V1, None);
    assert_eq!(towards_joiner, Some(format!(r#"{{"type":"data","data":{data}}}"#)));
    let towards_opener = carried(speaker, text, Dialect::V1, Some(number));
    let expected = format!(r#"{{"type":"data","index":{number},"data":{data}}}"#);
    assert_eq!(towards_opener, Some(expected));
}

fn assert_is_taken_or_not(dialect: Dialect, text: &str) {
    let asked = Cell::new(0);
    let random = || {
        asked.set(asked.get() + 1);
        Some(RANDOM)
    };
    let message = dialect.decode(text, &tight(), random);
    let may_ask = dialect == Dialect::V1 && matches!(message, Err(CloseReason::KeyTooLong));
    assert!(asked.get() == 0 || may_ask, "a key is made for {text}");
    match message {
        Err(reason) => assert!(matches!(reason.code(), 1007 | 1009), "{reason:?}"),
        Ok(InboundMessage::Open { key } | InboundMessage::Join { key }) => {
            assert!(text.contains(key.as_str()) || text.contains('\\'));
        }
        Ok(InboundMessage::Data { to, shape, payload } | InboundMessage::Lookalike { to, shape, payload }) => {
            let whole = serde_json::from_str::<IgnoredAny>(text);
            assert!(whole.is_ok(), "what is taken is one JSON value");
            let data = serde_json::from_str::<IgnoredAny>(payload.as_str());
            assert!(
                data.is_ok() && text.contains(payload.as_str()),
                "what is carried is one JSON value"
            );
            let goes_to_plain_openers = match dialect {
                Dialect::Plain => true,
                Dialect::V1 => shape == Shape::Object && to == Addressee::Unnamed,
            };
            if !goes_to_plain_openers {
                return;
            }
            assert_eq!(
                carried(dialect, text, Dialect::Plain, None).as_deref(),
                Some(payload.as_str())
            );
            let once = carried(dialect, text, Dialect::Plain, Some(7)).expect("data is carried");
            let again = match dialect {
                Dialect::Plain => {
                    assert_eq!(addressee(&once), Some(Addressee::Index(Index::new(7))));
                    once.clone()
                }
                // It need not be data in the plain dialect.
                Dialect::V1 => format!(r#"{{"type":"send","data":{once}}}"#),
            };
            let again = carried(dialect, &again, Dialect::Plain, Some(7));
            assert_eq!(again, Some(once), "an index is replaced, not added again");
        }
        Ok(InboundMessage::Kick { .. } | InboundMessage::Leave | InboundMessage::CloseKey) => {
            assert_eq!(dialect, Dialect::V1, "the plain dialect has no words for it");
        }
    }
}

fn addressee(text: &str) -> Option<Addressee> {
    match Dialect::Plain.decode(text, &Limits::default(), random) {
        Ok(InboundMessage::Data { to, .. } | InboundMessage::Lookalike { to, .. }) => Some(to),
        Ok(_) | Err(_) => None,
    }
}

/// What plain data says, read from a parsed value; `None` where the value cannot tell, since it takes large integers for floats.
fn reading_of(value: &Value, text: &str) -> Option<Reading> {
    let to = match value.get("index") {
        None => Addressee::Unnamed,
        Some(Value::Number(number)) if number.as_f64()? >= u64::MAX as f64 => return None,
        Some(Value::Number(number)) => number.as_u64().map_or(Addressee::Malformed, index),
        Some(Value::String(text)) => match text.parse::<u64>() {
            Ok(number) if *text == number.to_string() => index(number),
            Err(error) if *error.kind() == IntErrorKind::PosOverflow => return None,
            Ok(_) | Err(_) => Addressee::Malformed,
        },
        Some(_) => Addressee::Malformed,
    };
    Some(match (value.get("type"), value.get("key")) {
        (Some(_), Some(_)) => Reading::Lookalike(to, Shape::Object, text.to_owned()),
        _ => Reading::Data(to, Shape::Object, text.to_owned()),
    })
}

fn index(number: u64) -> Addressee {
    Addressee::Index(u32::try_from(number).map_or(Index::NOBODY, Index::new))
}

/// Keys of all that JSON has to escape, and of all that it has not.
fn keys() -> impl Strategy<Value = Key> {
    let character = prop_oneof![
        2 => any::<char>(),
        1 => prop::char::range('\0', '\u{a0}'),
        1 => prop::sample::select(&['"', '\\', '/', '\u{2028}', '\u{feff}', '🫖']),
    ];
    prop::collection::vec(character, 1..64).prop_map(|characters| {
        let text: String = characters.into_iter().collect();
        Key::new(&text, &Limits::default()).expect("short enough for a key")
    })
}

/// Everything that can be said in `sigver.v1`, and what the protocol page has for it. Data is there if `payload` has some, and without
/// a meaning where a value cannot hold it.
fn outputs(key: &Key, index: Index, payload: impl Fn() -> Option<Payload>) -> Vec<(OutboundMessage, Option<Value>)> {
    let (k, n) = (key.as_str(), index.get());
    let mut outputs = vec![
        (
            OutboundMessage::Opened { key: key.clone() },
            Some(json!({ "type": "opened", "key": k })),
        ),
        (
            OutboundMessage::Joined { index },
            Some(json!({ "type": "joined", "index": n })),
        ),
        (
            OutboundMessage::PeerJoined { index },
            Some(json!({ "type": "join", "index": n })),
        ),
        (
            OutboundMessage::PeerLeft { index },
            Some(json!({ "type": "leave", "index": n })),
        ),
        (
            OutboundMessage::RoleEnded(RoleEnd::OpenerLeft),
            Some(json!({ "type": "closed", "code": "opener-left" })),
        ),
        (
            OutboundMessage::RoleEnded(RoleEnd::Kicked),
            Some(json!({ "type": "closed", "code": "kicked" })),
        ),
    ];
    for refusal in refusals(key, index) {
        let mut error = json!({ "type": "error", "code": refusal.code(), "message": refusal.to_string() });
        match refusal {
            Refusal::KeyTaken { .. } | Refusal::UnknownKey { .. } | Refusal::TooManyJoiners { .. } => {
                error["key"] = k.into();
            }
            Refusal::UnknownIndex { .. } | Refusal::NotAnObject { index: Some(_) } if n < u32::MAX => {
                error["index"] = n.into();
            }
            _ => {}
        }
        outputs.push((OutboundMessage::Refused(refusal), Some(error)));
    }
    for from in [None, Some(index)] {
        if let Some(payload) = payload() {
            let data = serde_json::from_str::<Value>(payload.as_str());
            let meant = data.ok().map(|data| match from {
                None => json!({ "type": "data", "data": data }),
                Some(_) => json!({ "type": "data", "index": n, "data": data }),
            });
            outputs.push((OutboundMessage::Data { from, payload }, meant));
        }
    }
    outputs
}
