//! Small scopes, looked at in full: three connections, two keys, and whatever they can do, up to six operations deep.
//!
//! `every_state` goes breadth first and tries every operation in every distinct state. A `Hub` cannot be cloned, so each try
//! that leads to another state starts with a new hub and the shortest way to the state; those that do not share one. Two runs are taken to lead to the same state if the naive model's
//! memory is the same after them: each connection's role and what is left of its time, the role that it had before, and for those
//! that have ended also what they were and in which order they ended. What is over means nothing to the protocol. It is kept
//! apart because a fault that is no longer to be seen would be a leftover of it (a key, an index, a deadline, a slot that is used
//! again), and what is left over by which end is then part of the state. What is not told apart is the order of living
//! connections' deeds where it left no trace in the model, and data, of which a hub keeps a count and nothing else. The keys are
//! alike, so the one that is named first is always the same.
//!
//! `every_run` does without that argument: all runs of half that length, no state left out.
//!
//! `SIGVER_EXHAUSTIVE_DEPTH=8` and `SIGVER_EXHAUSTIVE_CONNECTIONS=4` look further, preferably in a release build.

use core::{
    hash::{BuildHasherDefault, Hasher},
    time::Duration,
};
use std::{
    collections::HashSet,
    env, fmt,
    io::{self, Write},
};

use sigver_core::{Addressee, CloseReason, Index, Limits, PayloadKind, Profile, Time};

use crate::{
    model::{Client, Model, ONE_ROLE_OF_ANY_DATA, PLAIN, RENEWABLE_OF_OBJECTS, Step, V1},
    stage::{Event, Stage, assert_indexes, assert_last_word, assert_order},
};

mod model;
#[path = "support/stage.rs"]
mod stage;

const KEYS: usize = 2;
const DEADLINE: Duration = Duration::from_secs(60);
/// Whom data is addressed to, and what it is. Nobody has the last index.
const DATA: [(Addressee, PayloadKind); 7] = [
    (Addressee::Unnamed, PayloadKind::Object),
    (Addressee::Unnamed, PayloadKind::Any),
    (Addressee::Malformed, PayloadKind::Object),
    (Addressee::Index(Index::new(0)), PayloadKind::Object),
    (Addressee::Index(Index::new(1)), PayloadKind::Any),
    (Addressee::Index(Index::new(2)), PayloadKind::Object),
    (Addressee::OutOfRange, PayloadKind::Object),
];
const KICKED: [u32; 3] = [0, 1, u32::MAX];

/// Every operation in every distinct state of the plain dialect, where an opener can have a crowd.
#[test]
fn every_state_of_plain_connections() {
    every_state(Scope::chosen(&[PLAIN], 2));
}

/// Every operation in every distinct state of `sigver.v1`, where an opener can have a crowd.
#[test]
fn every_state_of_v1_connections() {
    every_state(Scope::chosen(&[V1], 2));
}

/// Every operation in every distinct state of both dialects under one key, where a key that has a joiner is full.
#[test]
fn every_state_of_both_dialects_with_one_joiner_a_key() {
    every_state(Scope::chosen(&[V1, PLAIN, V1], 1));
}

/// Every operation in every distinct state of profiles that an embedder may choose beside those of the dialects.
#[test]
fn every_state_of_profiles_of_an_embedder() {
    every_state(Scope::chosen(&[RENEWABLE_OF_OBJECTS, ONE_ROLE_OF_ANY_DATA, PLAIN], 2));
}

fn every_state(scope: Scope) {
    let start = Run::start(&scope);
    let mut seen: HashSet<_, BuildHasherDefault<WordHasher>> = HashSet::default();
    seen.insert(start.model.state());
    let mut frontier = vec![start];
    let mut steps = 0_u64;
    for _ in 0..scope.depth {
        let mut next = Vec::new();
        for run in &frontier {
            let state = run.model.state();
            let mut unchanged = run.replay();
            for step in run.possible_steps(&scope) {
                steps += 1;
                if run.state_after(step) == state {
                    unchanged.play(step);
                    continue;
                }
                let run = run.and(step);
                if seen.insert(run.model.state()) {
                    next.push(run);
                }
            }
            unchanged.assert_laws();
        }
        frontier = next;
    }
    let states = seen.len();
    report(format_args!("{states} states, {steps} steps: {scope}"));
    assert!(states > 5_000, "only {states} states");
    assert!(steps > 100_000, "only {steps} steps");
}

/// All short runs, whether they lead to something new or not.
#[test]
fn every_run() {
    fn steps_from(run: &Run, scope: &Scope) -> u64 {
        let mut steps = 0;
        for step in run.possible_steps(scope) {
            let run = run.and(step);
            steps += 1;
            if run.record.len() < scope.connections + scope.depth as usize {
                steps += steps_from(&run, scope);
            }
        }
        steps
    }

    let scope = Scope::chosen(&[V1, PLAIN, V1], 2).halved();
    let steps = steps_from(&Run::start(&scope), &scope);
    report(format_args!("{steps} steps in all runs: {scope}"));
    assert!(steps > 150_000, "only {steps} steps");
}

/// A hasher that is fast without optimization: states are mostly numbers.
#[derive(Default)]
struct WordHasher(u64);

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(word.into());
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }
}

/// How far to look.
#[derive(Clone, Copy)]
struct Scope {
    /// In the order in which the connections come; after the last it is the first's turn again.
    profiles: &'static [Profile],
    connections: usize,
    joiners_per_key: u32,
    depth: u32,
}

impl Scope {
    /// As the environment says.
    fn chosen(profiles: &'static [Profile], joiners_per_key: u32) -> Self {
        let number = |name, default| match env::var(name) {
            Ok(text) => text
                .parse()
                .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
            Err(_) => default,
        };
        Self {
            profiles,
            connections: number("SIGVER_EXHAUSTIVE_CONNECTIONS", 3) as usize,
            joiners_per_key,
            depth: number("SIGVER_EXHAUSTIVE_DEPTH", 6),
        }
    }

    fn halved(self) -> Self {
        let depth = self.depth / 2;
        Self { depth, ..self }
    }

    fn connect(&self, who: usize) -> Step {
        let profile = self.profiles[who % self.profiles.len()];
        Step::Connect { who, profile }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            profiles,
            connections,
            joiners_per_key,
            depth,
        } = self;
        write!(
            f,
            "{connections} connections, {KEYS} keys, {joiners_per_key} joiners a key, {depth} operations, {profiles:?}"
        )
    }
}

/// Says how much was looked at, also where the output of tests that pass is not shown.
fn report(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "exhaustive: {what}");
}

/// A run, and what the model makes of it.
struct Run {
    limits: Limits,
    record: Vec<Event>,
    model: Model,
}

/// A run that can be continued.
struct Replay {
    stage: Stage,
    record: Vec<Event>,
    model: Model,
}

impl Run {
    /// The connections are made.
    fn start(scope: &Scope) -> Self {
        let mut limits = Limits::default();
        limits.role_deadline = Some(DEADLINE);
        limits.joiners_per_key = scope.joiners_per_key;
        let mut run = Self {
            model: Model::new(&limits),
            limits,
            record: Vec::new(),
        };
        for who in 0..scope.connections {
            run = run.and(scope.connect(who));
        }
        run
    }

    /// What can happen next: all that the connections can do, the dead ones too; one more in the place of a dead one; time; and the
    /// end of it all.
    fn possible_steps(&self, scope: &Scope) -> Vec<Step> {
        // Each gets a number when it is played.
        let token = 0;
        let reason = CloseReason::TooSlow;
        let mut steps = vec![Step::Wait { time: DEADLINE }, Step::Timeout, Step::Shutdown];
        if self.model.living().count() < scope.connections {
            steps.push(scope.connect(self.model.clients().len()));
        }
        let keys = self.named_keys() + 1;
        for client in self.model.clients() {
            let who = client.name;
            steps.extend((0..KEYS.min(keys)).flat_map(|key| [Step::Open { who, key }, Step::Join { who, key }]));
            steps.extend(DATA.map(|(to, kind)| Step::Data { who, to, kind, token }));
            steps.extend(
                DATA[1..3]
                    .iter()
                    .map(|&(to, kind)| Step::UnknownControl { who, to, kind, token }),
            );
            steps.extend(KICKED.map(|index| Step::Kick { who, index }));
            steps.extend([Step::Leave { who }, Step::CloseKey { who }]);
            steps.extend([Step::Close { who, reason }, Step::Disconnect { who }]);
        }
        steps
    }

    /// How many keys were named. They are named in order.
    fn named_keys(&self) -> usize {
        let named = self.record.iter().filter_map(|event| match event.step {
            Step::Open { key, .. } | Step::Join { key, .. } => Some(key + 1),
            _ => None,
        });
        named.max().unwrap_or(0)
    }

    /// What the model makes of one step more.
    fn state_after(&self, step: Step) -> (Vec<Client>, bool) {
        let mut model = self.model.clone();
        let _ = model.play(step);
        model.state()
    }

    /// Returns this run and one step more.
    fn and(&self, step: Step) -> Self {
        let mut replay = self.replay();
        replay.play(step);
        replay.assert_laws();
        let Replay { record, model, .. } = replay;
        Self {
            limits: self.limits.clone(),
            record,
            model,
        }
    }

    /// Repeats this run with a new hub.
    fn replay(&self) -> Replay {
        let mut stage = Stage::new(&self.limits);
        for event in &self.record {
            let _ = stage.call(event.step);
        }
        Replay {
            stage,
            record: self.record.clone(),
            model: self.model.clone(),
        }
    }
}

impl Replay {
    /// Plays one step more, which must be as the model says.
    fn play(&mut self, step: Step) {
        let step = numbered(step, self.record.len());
        let said = self.stage.play(step);
        self.record.push(Event {
            step,
            said: said.clone(),
        });

        let Self { stage, record, model } = self;
        assert_eq!(said, model.play(step), "{record:#?}");
        assert_eq!(stage.stats(), model.stats(), "{record:#?}");
        let next = stage.hub.poll_timeout().map(Time::as_duration);
        assert_eq!(next, model.next_timeout(), "{record:#?}");
        if let Step::Data { token, .. } | Step::UnknownControl { token, .. } = step {
            assert_eq!(stage.ends_of(token), 1, "{record:#?}");
        }
        stage.hub.assert_invariants();
    }

    /// The whole run must be as the laws want it.
    fn assert_laws(&self) {
        assert_order(&self.record);
        assert_last_word(&self.record);
        assert_indexes(&self.record);
    }
}

/// Returns the step with this number for the data that it sends, if it does.
fn numbered(mut step: Step, number: usize) -> Step {
    if let Step::Data { token, .. } | Step::UnknownControl { token, .. } = &mut step {
        *token = number;
    }
    step
}
