//! The laws of the hub, each for any input that could be thought of. A law's doc says what it forbids, and by which breakage of
//! the code it was seen to fail.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::Index as Pick};
use sigver_core::{
    Addressee, CloseReason, ConnId, Index, Limits, PayloadKind, Profile, RoleEnd, RoleLifetime, Stats, Time,
};

use crate::{
    model::{Model, PLAIN, Role, Said, Step, V1},
    runs::{KEYS, Run, SECOND_WORLD, runs, runs_without_global_limits, two_worlds},
    search::{SAMPLES, count, for_all, more_often_than, samples},
    stage::{Event, Stage, assert_indexes, assert_last_word, assert_order, resigned},
};

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
            let next = stage.hub.poll_timeout().map(Time::as_duration);
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

            if let Step::Data { who, token, .. } | Step::UnknownControl { who, token, .. } = step {
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
/// Seen to fail when a joiner that is refused uses up an index, and when the addressee is told in the sender's place.
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
        if profile.role_lifetime == RoleLifetime::Reusable {
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
        | Step::UnknownControl { who, .. }
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
    let (reason, kind) = (CloseReason::TooSlow, PayloadKind::Any);
    let (to, nobody) = (Addressee::Index(Index::new(0)), Addressee::Unnamed);
    [
        Step::Data { who, to, kind, token },
        Step::Data {
            who,
            to: nobody,
            kind,
            token,
        },
        Step::UnknownControl { who, to, kind, token },
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
