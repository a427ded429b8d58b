//! The features of the runs that the laws of the hub are checked with.

use std::collections::{BTreeMap, BTreeSet};

use sigver_core::{CloseReason, RoleEnd};

use crate::{
    hub::is_unknown_key,
    model::{Model, Role, Sent, Step},
    runs::{Run, runs},
    search::{SAMPLES, count, more_often_than, samples},
};

/// The laws only cover states that runs reach. Each of these features is in at least one of fifteen runs.
#[test]
fn generated_runs_reach_deep_states() {
    let mut seen = BTreeMap::new();
    let mut states = BTreeSet::new();
    for Run { limits, steps } in samples(&runs()) {
        let mut model = Model::new(&limits);
        let mut features = BTreeSet::new();
        for step in steps {
            let joiner_counts = joiner_counts(&model);
            let before = model.clone();
            let sent = model.play(step);
            features.extend(features_of_reservations(step, &sent, &before, &model));
            features.extend(features_of(step, &sent, &joiner_counts));
            features.extend(features_of_clients(&model, &sent));
            states.insert(model.state());
        }
        count(&mut seen, features);
    }
    let expected = [
        "a close of a key with several joiners",
        "a joiner leaves and joins again",
        "a key that is reserved",
        "a kick that closes",
        "a kick that keeps the connection",
        "a meet that joins",
        "a meet that opens",
        "a refused connection",
        "a refused role that keeps the connection",
        "a request of a reserved key that is refused",
        "a request of another role",
        "a request without a role",
        "a reservation that ends",
        "a reservation that is used",
        "a second open or join",
        "a shutdown that closes several",
        "a takeover",
        "a takeover with joiners of both profiles",
        "a throttled request",
        "a wait that ends without a role",
        "a waiter that joins",
        "an index starts again from 0",
        "an opener leaves several joiners",
        "both profiles under one key",
        "data from a later joiner",
        "data that is not an object",
        "data to a joiner",
        "dropped data",
        "four joiners of one opener",
        "no role in time",
        "several waiters that join",
        "the first of several joiners leaves",
        "too many joiners",
        "two openers with two joiners each",
    ];
    assert_eq!(more_often_than(SAMPLES / 15, &seen), expected, "of {seen:?}");
    assert!(states.len() > 5_000, "only {} states", states.len());
}

/// Returns the number of joiners of each opener.
fn joiner_counts(model: &Model) -> BTreeMap<usize, usize> {
    let mut joiner_counts = BTreeMap::new();
    for client in model.connected() {
        match client.role {
            Role::Idle { .. } | Role::Waiting { .. } => {}
            Role::Opener { .. } => drop(joiner_counts.entry(client.name).or_insert(0)),
            Role::Joiner { opener, .. } => *joiner_counts.entry(opener).or_insert(0) += 1,
        }
    }
    joiner_counts
}

/// Returns the features of a step, given its outputs and the joiners before it.
fn features_of(step: Step, sent: &[(usize, Sent)], joiner_counts: &BTreeMap<usize, usize>) -> Vec<&'static str> {
    let mut features = Vec::new();
    if joiner_counts.values().filter(|joiners| **joiners >= 2).count() >= 2 {
        features.push("two openers with two joiners each");
    }
    if joiner_counts.values().any(|joiners| *joiners >= 4) {
        features.push("four joiners of one opener");
    }
    let closed: Vec<CloseReason> = sent
        .iter()
        .filter_map(|(_, sent)| match sent {
            Sent::Close(reason) => Some(*reason),
            _ => None,
        })
        .collect();
    let left = |sent: &&(usize, Sent)| {
        matches!(
            sent.1,
            Sent::RoleEnded(RoleEnd::OpenerLeft) | Sent::Close(CloseReason::OpenerLeft)
        )
    };
    let left = sent.iter().filter(left).count();
    if matches!(step, Step::Disconnect { .. }) && left >= 2 {
        features.push("an opener leaves several joiners");
    }
    if matches!(step, Step::CloseKey { .. }) && left >= 2 {
        features.push("a close of a key with several joiners");
    }
    let joined = sent
        .iter()
        .filter(|(_, sent)| matches!(sent, Sent::Joined { .. }))
        .count();
    let opens = sent.iter().any(|(_, sent)| matches!(sent, Sent::Opened { .. }));
    if matches!(step, Step::Meet { .. }) {
        features.extend(opens.then_some("a meet that opens"));
        features.extend((joined == 1 && !opens).then_some("a meet that joins"));
    }
    if opens {
        features.extend((joined >= 1).then_some("a waiter that joins"));
        features.extend((joined >= 2).then_some("several waiters that join"));
    }
    if sent
        .iter()
        .any(|(_, sent)| *sent == Sent::RoleEnded(RoleEnd::TakenOver))
    {
        features.push("a takeover");
        let has = |is: fn(&Sent) -> bool| sent.iter().any(|(_, sent)| is(sent));
        if has(|sent| matches!(sent, Sent::Reopened { .. })) && has(|sent| matches!(sent, Sent::Close(_))) {
            features.push("a takeover with joiners of both profiles");
        }
    }
    if step == Step::Timeout && sent.iter().any(|(_, sent)| is_unknown_key(sent)) {
        features.push("a wait that ends without a role");
    }
    if step == Step::Shutdown && closed.len() >= 3 {
        features.push("a shutdown that closes several");
    }
    for (to, sent) in sent {
        match sent {
            Sent::PeerLeft { index: 0 } if joiner_counts.get(to).is_some_and(|joiners| *joiners >= 2) => {
                features.push("the first of several joiners leaves");
            }
            Sent::Data { from: Some(1..), .. } => features.push("data from a later joiner"),
            Sent::Data { from: None, .. } => features.push("data to a joiner"),
            Sent::Close(CloseReason::TooManyJoiners) => features.push("too many joiners"),
            Sent::Close(CloseReason::HasRole) => features.push("a second open or join"),
            Sent::Close(CloseReason::NoRoleInTime) => features.push("no role in time"),
            Sent::Close(CloseReason::Kicked) => features.push("a kick that closes"),
            Sent::RoleEnded(RoleEnd::Kicked) => features.push("a kick that keeps the connection"),
            Sent::Rejected(_) => features.push("a refused connection"),
            Sent::Refused { code, .. } => features.extend(match *code {
                "has-role" => Some("a second open or join"),
                "key-taken" | "unknown-key" => Some("a refused role that keeps the connection"),
                "no-role" => Some("a request without a role"),
                "not-an-object" => Some("data that is not an object"),
                "too-many-joiners" => Some("too many joiners"),
                "too-many-attempts" => Some("a throttled request"),
                "unknown-index" if matches!(step, Step::Data { .. }) => Some("dropped data"),
                "wrong-role" => Some("a request of another role"),
                _ => None,
            }),
            _ => {}
        }
    }
    features
}

/// Returns the features of the open connections and of the messages to them.
fn features_of_clients(model: &Model, sent: &[(usize, Sent)]) -> Vec<&'static str> {
    let mut features = Vec::new();
    let is_reusable = |who| model.connected().any(|client| client.name == who && client.reusable);
    for client in model.connected() {
        match (client.role, client.former) {
            (Role::Joiner { .. }, Some(Role::Joiner { .. })) => features.push("a joiner leaves and joins again"),
            (Role::Joiner { opener, .. }, _) if client.reusable != is_reusable(opener) => {
                features.push("both profiles under one key");
            }
            (Role::Opener { .. }, Some(Role::Opener { announced: 1.., .. }))
                if sent
                    .iter()
                    .any(|sent| matches!(sent, (to, Sent::PeerJoined { index: 0, .. }) if *to == client.name)) =>
            {
                features.push("an index starts again from 0");
            }
            (Role::Idle { .. } | Role::Opener { .. } | Role::Joiner { .. } | Role::Waiting { .. }, _) => {}
        }
    }
    features
}

/// Returns the features of reserved keys.
fn features_of_reservations(step: Step, sent: &[(usize, Sent)], before: &Model, after: &Model) -> Option<&'static str> {
    let [reserved, left] = [before, after].map(|model| model.stats().reserved);
    let key = match step {
        Step::Open { key, .. } | Step::Meet { key, .. } | Step::Join { key, .. } => before.reservation_of(key),
        _ => None,
    };
    if left > reserved {
        Some("a key that is reserved")
    } else if step == Step::Timeout && left < reserved {
        Some("a reservation that ends")
    } else if key.is_some() && left < reserved {
        Some("a reservation that is used")
    } else {
        let is_refused = sent
            .iter()
            .any(|(_, sent)| matches!(sent, Sent::Refused { .. } | Sent::Close(_)));
        (key.is_some() && is_refused).then_some("a request of a reserved key that is refused")
    }
}
