//! Exhaustive tests of small scopes: three connections, two keys, and all sequences of up to five operations.
//!
//! `every_state` is a breadth-first search that tries every operation in every distinct state. A `Hub` cannot be cloned, so each step to
//! another state starts with a new hub and the shortest path to the state. Steps that do not change the state share a hub.
//!
//! Two runs lead to the same state if the naive model is the same after them: the role of each connection, its remaining time and its
//! former role, and for ended connections their last role and the order in which they ended. The protocol does not depend on the past of
//! connections. It is part of the state because a hidden fault would be a remainder of it: a key, an index, a deadline, a reused slot. Runs
//! are not distinguished by the order of earlier operations of open connections that left no trace in the model, nor by data, of which the
//! hub keeps counts only. Keys are interchangeable, so they are used in order.
//!
//! `every_run` does not depend on this argument: it plays all runs of half the length, rounded up.
//!
//! `SIGVER_EXHAUSTIVE_DEPTH=8` and `SIGVER_EXHAUSTIVE_CONNECTIONS=4` extend the search, preferably in a release build.

use core::{
    hash::{BuildHasherDefault, Hasher},
    num::NonZeroU32,
    time::Duration,
};
use std::{
    collections::HashSet,
    env, fmt,
    io::{self, Write},
};

use sigver_core::{Addressee, AllowedRoles, CloseReason, Disconnect, Index, Limits, PayloadKind, Profile, Time};

use crate::{
    hub_driver::{Event, HubDriver, assert_indexes, assert_nothing_after_close, assert_order},
    model::{Client, Model, PLAIN, REUSABLE_OBJECTS_ONLY, SINGLE_USE_ANY_DATA, State, Step, Tokens, V1},
};

#[path = "support/hub_driver.rs"]
mod hub_driver;
mod model;

const KEYS: usize = 2;
/// The role deadline, the time for which a join waits, and the time for which a key is reserved.
const DEADLINE: Duration = Duration::from_secs(60);
/// Addressees and kinds of data. No joiner has the last index.
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

/// The roles that a meet may result in.
const MEETINGS: [AllowedRoles; 2] = [
    AllowedRoles::BOTH,
    AllowedRoles {
        opener: false,
        joiner: false,
    },
];

/// Every operation in every state of plain connections.
#[test]
fn every_state_of_plain_connections() {
    every_state(Scope::chosen(&[PLAIN], 2));
}

/// Every operation in every state of `sigver.v1` connections.
#[test]
fn every_state_of_v1_connections() {
    every_state(Scope::chosen(&[V1], 2));
}

/// Every operation in every state of both dialects under one key, with at most one joiner per key.
#[test]
fn every_state_of_both_dialects_with_one_joiner_per_key() {
    every_state(Scope::chosen(&[V1, PLAIN, V1], 1));
}

/// Every operation in every state of profiles that neither dialect has.
#[test]
fn every_state_of_embedder_profiles() {
    every_state(Scope::chosen(&[REUSABLE_OBJECTS_ONLY, SINGLE_USE_ANY_DATA, PLAIN], 2));
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

/// Every short run, whether it leads to a new state or not.
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

/// A hasher that is fast without optimization. States are mostly numbers.
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

/// The size of the search.
#[derive(Clone, Copy)]
struct Scope {
    /// Profiles of the connections in turn.
    profiles: &'static [Profile],
    connections: usize,
    joiners_per_key: u32,
    depth: u32,
}

impl Scope {
    /// Returns the scope that the environment selects.
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
            depth: number("SIGVER_EXHAUSTIVE_DEPTH", 5),
        }
    }

    fn halved(self) -> Self {
        let depth = self.depth.div_ceil(2);
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
            "{connections} connections, {KEYS} keys, {joiners_per_key} joiners per key, {depth} operations, {profiles:?}"
        )
    }
}

/// Reports how much was checked, even if the output of passing tests is captured.
fn report(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "exhaustive: {what}");
}

/// A run, and the model after it.
struct Run {
    limits: Limits,
    record: Vec<Event>,
    model: Model,
}

/// A run that can be continued.
struct Replay {
    driver: HubDriver,
    record: Vec<Event>,
    model: Model,
}

impl Run {
    /// Returns the run in which the connections connect.
    fn start(scope: &Scope) -> Self {
        let mut limits = Limits::default();
        limits.role_deadline = Some(DEADLINE);
        limits.joiners_per_key = scope.joiners_per_key;
        limits.reserve = DEADLINE;
        limits.reserved_keys = NonZeroU32::new(scope.joiners_per_key);
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

    /// Returns the possible next steps: every operation of every connection, dead ones included; a new connection in place of a dead one;
    /// time; and a shutdown.
    fn possible_steps(&self, scope: &Scope) -> Vec<Step> {
        // Replaced with a number when the step is played.
        let token = 0;
        let reason = CloseReason::TooSlow;
        let mut steps = vec![Step::Wait { time: DEADLINE }, Step::Timeout, Step::Shutdown];
        if self.model.connected().count() < scope.connections {
            steps.push(scope.connect(self.model.clients().len()));
        }
        let keys = self.named_keys() + 1;
        for client in self.model.clients() {
            let who = client.name;
            // Enough to detect the name of another peer: more would only multiply the states.
            let id = (who % 2 == 0).then_some(who);
            for key in 0..KEYS.min(keys) {
                for shown in self.tokens_for(key) {
                    let tokens = Tokens { shown, new: Some(who) };
                    steps.push(Step::Open { who, key, id, tokens });
                    // An opener that has met differs in one thing only, so one of the connections is enough.
                    if who == 0 {
                        let most = if shown.is_none() { 2 } else { 1 };
                        steps.extend(MEETINGS[..most].iter().map(|&allowed| Step::Meet {
                            who,
                            key,
                            id,
                            tokens,
                            allowed,
                        }));
                    }
                }
                steps.extend([Duration::ZERO, DEADLINE].map(|wait| Step::Join { who, key, id, wait }));
            }
            steps.extend(DATA.map(|(to, kind)| Step::Data { who, to, kind, token }));
            steps.extend(
                DATA[1..3]
                    .iter()
                    .map(|&(to, kind)| Step::UnknownControl { who, to, kind, token }),
            );
            steps.extend(KICKED.map(|index| Step::Kick { who, index }));
            steps.push(Step::Throttle { who, key: 0 });
            steps.push(Step::NotAllowed { who, key: Some(0) });
            steps.extend([Step::Leave { who }, Step::CloseKey { who }, Step::Ping { who }]);
            steps.push(Step::Close { who, reason });
            steps.extend([Disconnect::Clean, Disconnect::Lost].map(|how| Step::Disconnect { who, how }));
        }
        steps
    }

    /// Returns the tokens to show for a key: none, the right one, and a wrong one. The token of an opener is its number.
    fn tokens_for(&self, key: usize) -> Vec<Option<usize>> {
        let opener = self.model.connected().find(|client| client.key() == Some(key));
        let reserved = self.model.reservation_of(key).map(|reservation| reservation.token);
        let right = opener.and_then(Client::token).or(reserved);
        let is_held = opener.is_some() || reserved.is_some();
        let others = right.into_iter().chain(is_held.then_some(usize::MAX));
        [None].into_iter().chain(others.map(Some)).collect()
    }

    /// Returns the number of keys that the run has used. They are used in order.
    fn named_keys(&self) -> usize {
        let named = self.record.iter().filter_map(|event| match event.step {
            Step::Open { key, .. } | Step::Join { key, .. } | Step::Meet { key, .. } => Some(key + 1),
            _ => None,
        });
        named.max().unwrap_or(0)
    }

    /// Returns the state of the model after one more step.
    fn state_after(&self, step: Step) -> State {
        let mut model = self.model.clone();
        let _ = model.play(step);
        model.state()
    }

    /// Returns this run with one more step.
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
        let mut driver = HubDriver::new(&self.limits);
        for event in &self.record {
            let _ = driver.call(event.step);
        }
        Replay {
            driver,
            record: self.record.clone(),
            model: self.model.clone(),
        }
    }
}

impl Replay {
    /// Plays one more step, and compares the hub with the model.
    fn play(&mut self, step: Step) {
        let step = with_token(step, self.record.len());
        let sent = self.driver.play(step);
        self.record.push(Event {
            step,
            sent: sent.clone(),
        });

        let Self { driver, record, model } = self;
        assert_eq!(sent, model.play(step), "{record:#?}");
        assert_eq!(driver.stats(), model.stats(), "{record:#?}");
        let next = driver.hub.poll_timeout().map(Time::as_duration);
        assert_eq!(next, model.next_timeout(), "{record:#?}");
        if let Step::Data { token, .. } | Step::UnknownControl { token, .. } = step {
            assert_eq!(driver.drops_of(token), 1, "{record:#?}");
        }
        driver.hub.assert_invariants();
    }

    /// Asserts the laws for the whole run.
    fn assert_laws(&self) {
        assert_order(&self.record);
        assert_nothing_after_close(&self.record);
        assert_indexes(&self.record);
    }
}

/// Returns the step with this number for its payload, if it has one.
fn with_token(mut step: Step, number: usize) -> Step {
    if let Step::Data { token, .. } | Step::UnknownControl { token, .. } = &mut step {
        *token = number;
    }
    step
}
