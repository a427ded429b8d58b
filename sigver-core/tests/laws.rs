//! The laws of the core, each for any input that could be thought of. A law's doc says what it forbids, and by which breakage of
//! the code it was seen to fail.
//!
//! `PROPTEST_CASES=10000` searches longer. A failure is written to `laws.proptest-regressions`, which is to be committed: it is
//! tried first in every later run.

use core::{fmt::Debug, num::IntErrorKind};
use std::collections::{BTreeMap, BTreeSet};

use proptest::{
    prelude::*,
    sample::Index as Pick,
    strategy::ValueTree,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};
use serde::de::IgnoredAny;
use serde_json::Value;
use sigver_core::{
    Addressee, CloseReason, ConnId, Encoded, InboundMessage, Index, Limits, OutboundMessage, Time, wire::plain,
};

use crate::{
    json::{Object, Reading, objects},
    model::{Model, Role, Said, Step},
    runs::{KEYS, Run, runs, runs_without_global_limits},
    stage::{Event, Stage, assert_indexes, assert_last_word, assert_order},
};

#[path = "support/json.rs"]
mod json;
mod model;
#[path = "support/runs.rs"]
mod runs;
#[path = "support/stage.rs"]
mod stage;

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

/// A payload that is given to the hub is in exactly one output of the same call, or was counted as dropped, or was refused by
/// closing its sender, or came from the dead; and it comes to its end once. Nothing is duplicated (by type), lost, forged or kept.
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
                let refused = said.iter().any(|(to, said)| *to == who && is_close(said));
                let inert = !people.parts.contains_key(&who);
                let fates = delivered + dropped + u64::from(refused) + u64::from(inert);
                assert_eq!(fates, 1, "{step:?}: {said:?}");
                assert_eq!(after.relayed - before.relayed, delivered, "{step:?}");
                assert!(carried.iter().all(|carried| *carried == token));
                assert_eq!(u64::from(stage.ends_of(token)), 1 - delivered);
                drop(answer);
                assert_eq!(stage.ends_of(token), 1, "the recipient had the only one");
            } else {
                assert!(carried.is_empty(), "{step:?} carries nothing");
            }
            people.note(&Event { step, said });
        }
    });
}

/// What is said to the connections of one key is the same with and without all other connections. A connection belongs to the
/// key that it names first.
///
/// Seen to fail when indexes are counted for the whole hub, when an opener that leaves takes every key with it (`keys.clear()`),
/// and when one connection's `open` cancels every deadline.
#[test]
fn isolation() {
    for_all(runs_without_global_limits(), |Run { limits, steps }| {
        let whole = record(&limits, &steps);
        for key in 0..KEYS {
            let ours = belonging_to(key, &steps);
            let is_ours = |step: &Step| actor(step).is_none_or(|who| ours.contains(&who));
            let steps: Vec<Step> = steps.iter().copied().filter(is_ours).collect();
            let alone = record(&limits, &steps);
            assert_eq!(heard_by(&ours, &whole), heard_by(&ours, &alone), "{key}");
        }
    });
}

/// From one sender to one recipient: first in, first out; and nothing about a joiner before its `PeerJoined` or after its
/// `PeerLeft`.
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
    let ends = prop::collection::vec((any::<Pick>(), any::<bool>()), 1..16);
    for_all((runs_without_global_limits(), ends), |(run, ends)| {
        let Run { limits, mut steps } = run;
        steps.retain(|step| *step != Step::Shutdown);
        let mut shut_down = Scene::after(&limits, &steps);
        shut_down.play(Step::Shutdown);
        shut_down.assert_empty();

        let mut scene = Scene::after(&limits, &steps);
        scene.end_all(&ends, |part| part == Part::Joiner);
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

/// An opener's joiners are 0, 1, 2, … in the order in which they are let in: refused ones use no index, none comes again, and
/// each joiner is told the number that its opener is told.
///
/// Seen to fail when the number of joiners is the next index, when a refused joiner uses one up, and when the opener is told
/// another than the joiner.
#[test]
fn indexes() {
    for_all(runs(), |Run { limits, steps }| {
        assert_indexes(&record(&limits, &steps));
    });
}

/// Time alone closes exactly those that are without a role at their deadline, when it is asked to, and not before; afterwards
/// there is nothing to do until later.
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
                .idle()
                .filter(|who| due(&since[who]).is_some_and(|due| due <= now))
                .map(|who| (who, Said::Close(CloseReason::NoRoleInTime)))
                .collect();
            let said = stage.play(step);
            match step {
                Step::Connect { who } => drop(since.insert(who, now)),
                Step::Timeout => assert_eq!(said, late),
                Step::Close { .. } => {}
                _ => assert!(!said.iter().any(|(_, said)| is_out_of_time(said)), "{step:?}"),
            }
            people.note(&Event { step, said });
            let next = people.idle().filter_map(|who| due(&since[&who])).min();
            assert_eq!(stage.hub.poll_timeout(), next, "after {step:?}");
            assert!(step != Step::Timeout || next.is_none_or(|next| next > now));
        }
    });
}

/// What crosses is what was sent, byte for byte: the same text towards a joiner; the same text and one `index` towards an opener.
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
        let Some(towards_joiner) = carried(&text, None) else {
            return;
        };
        assert_eq!(towards_joiner, text);
        let towards_opener = carried(&text, Some(number));
        assert_eq!(towards_opener, Some(object.text_with_index(number)));
    });
}

/// Whatever the text is, it is a message, or a reason with one of the codes for texts, and never a panic; and every text that is
/// taken can be sent on: it comes out as an object that has the joiner's index and nothing else that is new.
///
/// Seen to fail when a lone surrogate is taken for impossible (`expect`), when text behind the object is let through, when `{}`
/// gets a comma, and when the index goes behind the last member that the server knows.
#[test]
fn total() {
    for_all(texts(), |text| match plain::decode(&text, &tight()) {
        Err(reason) => assert!(matches!(reason.code(), 1007 | 1009), "{reason:?}"),
        Ok(InboundMessage::Open { key } | InboundMessage::Join { key }) => {
            assert!(text.contains(key.as_str()) || text.contains('\\'));
        }
        Ok(InboundMessage::Data { .. } | InboundMessage::Lookalike { .. }) => {
            let whole = serde_json::from_str::<IgnoredAny>(&text);
            assert!(whole.is_ok(), "what is taken is one JSON value");
            let once = carried(&text, Some(7)).expect("data is carried");
            assert_eq!(addressee(&once), Some(Addressee::Index(Index::new(7))));
            assert_eq!(carried(&text, None), Some(text));
            let again = carried(&once, Some(7));
            assert_eq!(again, Some(once), "an index is replaced, not added again");
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
    for_all(
        (objects(), any::<u32>(), [edge(), edge(), edge()]),
        |(object, number, edges)| {
            let text = object.text();
            for limits in [Limits::default(), limits_near(&object, edges)] {
                let read = plain::decode(&text, &limits).map(reading);
                assert_eq!(read, object.reading(&limits), "{text}");
            }

            let value = serde_json::from_str::<Value>(&text);
            let (Ok(mut value), Some(out)) = (value, carried(&text, Some(number))) else {
                return;
            };
            if let Some(expected) = reading_of(&value) {
                let read = plain::decode(&text, &Limits::default()).map(reading);
                assert_eq!(read, Ok(expected), "{text}");
            }
            value["index"] = number.into();
            assert_eq!(serde_json::from_str::<Value>(&out).ok(), Some(value), "{out}");
        },
    );
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
            states.insert(model.state());
        }
        count(&mut seen, features);
    }
    let expected = [
        "a crowd",
        "a refused connection",
        "a second open or join",
        "a shutdown that closes several",
        "an opener leaves several joiners",
        "data from a later joiner",
        "data to a joiner",
        "dropped data",
        "no role in time",
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
        let kind = match object.reading(&Limits::default()) {
            Ok(Reading::Open(_) | Reading::Join(_)) => "control",
            Ok(Reading::Data(Addressee::Unnamed)) => "data",
            Ok(Reading::Data(Addressee::Index(_))) => "data to an index",
            Ok(Reading::Data(Addressee::Malformed)) => "data to a malformed index",
            Ok(Reading::Lookalike(_)) => "lookalike",
            Err(CloseReason::Duplicate(_)) => "a member twice",
            Err(_) => "control with a wrong key",
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
    dead: BTreeSet<usize>,
}

impl People {
    fn note(&mut self, event: &Event) {
        match event.step {
            Step::Connect { who } => drop(self.parts.insert(who, Part::Idle)),
            Step::Disconnect { who } => self.bury(who),
            _ => {}
        }
        for (to, said) in &event.said {
            match said {
                Said::Refused(_) => drop(self.parts.remove(to)),
                Said::Opened { key } => drop(self.parts.insert(*to, Part::Opener { key: *key })),
                Said::Joined { .. } => drop(self.parts.insert(*to, Part::Joiner)),
                Said::Close(_) => self.bury(*to),
                Said::PeerJoined { .. } | Said::Data { .. } | Said::PeerLeft { .. } => {}
            }
        }
    }

    fn idle(&self) -> impl Iterator<Item = usize> {
        self.who(|part| part == Part::Idle)
    }

    fn who(&self, is: impl Fn(Part) -> bool) -> impl Iterator<Item = usize> {
        let parts = self.parts.iter();
        parts.filter_map(move |(who, part)| is(*part).then_some(*who))
    }

    fn bury(&mut self, who: usize) {
        if self.parts.remove(&who).is_some() {
            self.dead.insert(who);
        }
    }
}

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

    fn newcomer(&mut self) -> usize {
        let who = self.next;
        self.next += 1;
        assert_eq!(self.play(Step::Connect { who }), []);
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
        assert_eq!(said, [(who, Said::Close(CloseReason::TooManyJoiners))]);
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

    /// Ends all who have such a part, in any order: some are closed and some just go.
    fn end_all(&mut self, ends: &[(Pick, bool)], is: impl Fn(Part) -> bool) {
        for (pick, close) in ends.iter().cycle() {
            let left: Vec<usize> = self.people.who(&is).collect();
            if left.is_empty() {
                return;
            }
            let who = *pick.get(&left);
            let reason = CloseReason::TooSlow;
            self.play(if *close {
                Step::Close { who, reason }
            } else {
                Step::Disconnect { who }
            });
            assert!(self.people.dead.contains(&who), "{who} was thought to be there");
        }
    }
}

/// The connections whose first open or join names `key`.
fn belonging_to(key: usize, steps: &[Step]) -> BTreeSet<usize> {
    let mut first = BTreeMap::new();
    for step in steps {
        if let Step::Open { who, key } | Step::Join { who, key } = step {
            first.entry(*who).or_insert(*key);
        }
    }
    first.retain(|_, first| *first == key);
    first.into_keys().collect()
}

/// Who does `step`, if one connection does.
fn actor(step: &Step) -> Option<usize> {
    match *step {
        Step::Connect { who }
        | Step::Open { who, .. }
        | Step::Join { who, .. }
        | Step::Data { who, .. }
        | Step::Lookalike { who, .. }
        | Step::Close { who, .. }
        | Step::Disconnect { who } => Some(who),
        Step::Wait { .. } | Step::Timeout | Step::Shutdown => None,
    }
}

/// What is said to `people` in a run, one step after the other.
fn heard_by(people: &BTreeSet<usize>, record: &[Event]) -> Vec<Vec<(usize, Said)>> {
    let heard = record.iter().map(|event| {
        let said = event.said.iter().copied();
        said.filter(|(to, _)| people.contains(to)).collect()
    });
    heard.filter(|said: &Vec<_>| !said.is_empty()).collect()
}

/// Every call that a connection can make, or that can be made about it.
fn calls_of(who: usize) -> [Step; 7] {
    let (key, token, reason) = (0, usize::MAX, CloseReason::TooSlow);
    let to = Addressee::Index(Index::new(0));
    [
        Step::Data { who, to, token },
        Step::Data {
            who,
            to: Addressee::Unnamed,
            token,
        },
        Step::Lookalike { who, to, token },
        Step::Open { who, key },
        Step::Join { who, key },
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
    if matches!(step, Step::Data { who, .. } if crowds.contains_key(&who)) && said.is_empty() {
        features.push("dropped data");
    }
    let closed: Vec<CloseReason> = said
        .iter()
        .filter_map(|(_, said)| match said {
            Said::Close(reason) => Some(*reason),
            _ => None,
        })
        .collect();
    if matches!(step, Step::Disconnect { .. }) && closed.len() >= 2 {
        features.push("an opener leaves several joiners");
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
            Said::Refused(_) => features.push("a refused connection"),
            _ => {}
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
fn limits_near(object: &Object, [key, depth, size]: [u32; 3]) -> Limits {
    let key_bytes = match object.reading(&Limits::default()) {
        Ok(Reading::Open(key) | Reading::Join(key)) => key.len() as u32,
        Ok(Reading::Data(_) | Reading::Lookalike(_)) | Err(_) => 1,
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
    let broken = (objects(), prop::collection::vec(edit, 0..4)).prop_map(|(object, edits)| {
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

/// The text that a peer gets for `text`, if that is data: from the joiner with this index, or from the opener.
fn carried(text: &str, from: Option<u32>) -> Option<String> {
    let message = plain::decode(text, &Limits::default()).ok()?;
    let (InboundMessage::Data { payload, .. } | InboundMessage::Lookalike { payload, .. }) = message else {
        return None;
    };
    let from = from.map(Index::new);
    let mut out = String::new();
    let encoded = plain::encode(&OutboundMessage::Data { from, payload }, &mut out);
    assert_eq!(encoded, Encoded::Text);
    Some(out)
}

fn addressee(text: &str) -> Option<Addressee> {
    match plain::decode(text, &Limits::default()) {
        Ok(InboundMessage::Data { to, .. } | InboundMessage::Lookalike { to, .. }) => Some(to),
        Ok(_) | Err(_) => None,
    }
}

fn reading(message: InboundMessage) -> Reading {
    match message {
        InboundMessage::Open { key } => Reading::Open(key.as_str().to_owned()),
        InboundMessage::Join { key } => Reading::Join(key.as_str().to_owned()),
        InboundMessage::Data { to, .. } => Reading::Data(to),
        InboundMessage::Lookalike { to, .. } => Reading::Lookalike(to),
    }
}

/// What data says, read from a parsed value; `None` where the value cannot tell, since it takes large integers for floats.
fn reading_of(value: &Value) -> Option<Reading> {
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
        (Some(_), Some(_)) => Reading::Lookalike(to),
        _ => Reading::Data(to),
    })
}

fn index(number: u64) -> Addressee {
    Addressee::Index(u32::try_from(number).map_or(Index::NOBODY, Index::new))
}
