//! The laws of waits, takeovers and reservations, for random calls.

use std::collections::BTreeMap;

use sigver_core::{CloseReason, Disconnect, RoleEnd, Time};

use crate::{
    hub::{Observed, ObservedRole, is_unknown_key},
    hub_driver::{Event, HubDriver},
    model::{Sent, Step},
    runs::{Run, runs},
    search::for_all,
};

/// Only a request that shows the token of the key's opener takes the role over. The previous opener keeps its connection. Each joiner with
/// reusable roles is told, keeps its index and its name, and is listed to the new opener; the others are closed. Nothing else happens.
///
/// Detects a token that stays valid after it was used, a takeover without a token, a joiner that is not told or not listed, one that refers to
/// the previous opener, and a plain joiner that stays.
#[test]
fn takeover_needs_the_token_and_keeps_the_joiners() {
    /// By index, each with its name for itself.
    type Joiners = BTreeMap<u32, (usize, Option<usize>)>;

    for_all(runs(), |Run { limits, steps }| {
        let (mut driver, mut observed) = (HubDriver::new(&limits), Observed::default());
        // For each opener, its token and its joiners.
        let mut openers: BTreeMap<usize, (Option<usize>, Joiners)> = BTreeMap::new();
        for step in steps {
            let sent = driver.play(step);
            let previous = sent
                .iter()
                .find_map(|(to, sent)| (*sent == Sent::RoleEnded(RoleEnd::TakenOver)).then_some(*to));
            let shows = match step {
                Step::Open { key, tokens, .. } | Step::Meet { key, tokens, .. } => {
                    tokens.shown.map(|token| (key, token))
                }
                _ => None,
            };
            let is_opener = |key| observed.who(move |role| role == ObservedRole::Opener { key }).next();
            let right = shows.and_then(|(key, token)| {
                let opener = is_opener(key)?;
                (openers[&opener].0 == Some(token)).then_some(opener)
            });
            let asks = matches!(step, Step::Open { who, .. } | Step::Meet { who, .. } if observed.roles.get(&who) == Some(&ObservedRole::Idle));
            let may = !matches!(step, Step::Meet { allowed, .. } if !allowed.opener);
            assert_eq!(previous, right.filter(|_| asks && may), "{step:?}: {sent:?}");
            if let (Some(previous), Step::Open { who, id, .. } | Step::Meet { who, id, .. }) = (previous, step) {
                let (_, mut joiners) = openers.remove(&previous).expect("an opener");
                let mut expected = vec![(previous, Sent::RoleEnded(RoleEnd::TakenOver))];
                joiners.retain(|_, (joiner, _)| {
                    let stays = observed.reusable.contains(joiner);
                    let notice = if stays {
                        Sent::Reopened { id }
                    } else {
                        Sent::Close(CloseReason::OpenerLeft)
                    };
                    expected.push((*joiner, notice));
                    stays
                });
                let is_opened = |sent: &(usize, Sent)| sent.0 == who && matches!(sent.1, Sent::Opened { .. });
                let (notices, present) = sent.split_at(expected.len());
                assert_eq!(notices, expected);
                assert!(is_opened(&present[0]), "{sent:?}");
                let listed = joiners
                    .iter()
                    .map(|(index, (_, id))| (who, Sent::Present { index: *index, id: *id }));
                assert!(present[1..].iter().copied().eq(listed), "{sent:?}");
                openers.insert(who, (None, joiners));
            }
            let mut joined = None;
            for (to, sent) in &sent {
                match sent {
                    Sent::Opened { token, .. } => openers.entry(*to).or_default().0 = *token,
                    Sent::Joined { .. } => joined = Some(*to),
                    Sent::PeerJoined { index, id } => {
                        let joiner = joined.take().expect("a joiner is told first");
                        openers.entry(*to).or_default().1.insert(*index, (joiner, *id));
                    }
                    Sent::PeerLeft { index } => drop(openers.entry(*to).or_default().1.remove(index)),
                    _ => {}
                }
            }
            observed.record_event(&Event { step, sent });
            openers.retain(|who, _| matches!(observed.roles.get(who), Some(ObservedRole::Opener { .. })));
        }
    });
}

/// A key of an opener that was lost is neither opened nor joined without its token until the time of its reservation is over or, with as many
/// reservations as there may be, another one begins. Only the key of an opener that has a token and has opened the key is reserved, and only if
/// the opener was lost.
///
/// Detects a key that is reserved after a close frame or a violation, one of an opener that has met, a reservation that ends late, that no
/// token ends, or that any token ends, and one that outlives the next.
#[test]
fn reserved_key_is_kept_for_its_token() {
    for_all(runs(), |Run { limits, steps }| {
        let (mut driver, mut observed) = (HubDriver::new(&limits), Observed::default());
        // For each opener, its token and whether it has opened the key.
        let mut openers: BTreeMap<usize, (Option<usize>, bool)> = BTreeMap::new();
        // For each reserved key, its token and its end, the oldest first.
        let mut reserved: Vec<(usize, usize, Time)> = Vec::new();
        let most = limits.reserved_keys.or(limits.connections);
        for step in steps {
            let now = driver.now;
            let sent = driver.play(step);
            if step == Step::Timeout {
                reserved.retain(|(.., until)| *until > now);
            }
            let opened = sent.iter().find_map(|(to, sent)| match sent {
                Sent::Opened { key, token } => Some((*to, *key, *token)),
                _ => None,
            });
            let joined = sent.iter().any(|(_, sent)| matches!(sent, Sent::Joined { .. }));
            let (key, shown) = match step {
                Step::Open { key, tokens, .. } | Step::Meet { key, tokens, .. } => (Some(key), tokens.shown),
                Step::Join { key, .. } => (Some(key), None),
                _ => (None, None),
            };
            if let Some((key, token, _)) = reserved.iter().find(|(its, ..)| Some(*its) == key).copied() {
                assert!(opened.is_some() || !joined, "{step:?}: {sent:?}");
                assert!(opened.is_none() || shown == Some(token), "{step:?}: {sent:?}");
                if opened.is_some() {
                    reserved.retain(|(its, ..)| *its != key);
                }
            }
            let lost = match step {
                Step::Disconnect {
                    who,
                    how: Disconnect::Lost,
                } => Some(who),
                Step::Close {
                    who,
                    reason: CloseReason::TooSlow | CloseReason::Silent,
                } => Some(who),
                _ => None,
            };
            let lost = lost.and_then(|who| Some((observed.roles.get(&who)?, openers.get(&who)?)));
            if let Some((ObservedRole::Opener { key }, (Some(token), true))) = lost {
                if !limits.reserve.is_zero() {
                    let until = now.saturating_add(limits.reserve);
                    reserved.push((*key, *token, until));
                    let over = most.is_some_and(|most| reserved.len() > most.get() as usize);
                    reserved.drain(..usize::from(over));
                }
            }
            if let Some((who, _, token)) = opened {
                openers.insert(who, (token, matches!(step, Step::Open { .. })));
            }
            if step == Step::Shutdown {
                reserved.clear();
            }
            observed.record_event(&Event { step, sent });
            assert_eq!(driver.stats().reserved as usize, reserved.len(), "after {step:?}");
            let next = reserved.iter().map(|(.., until)| *until).min();
            let polled = driver.hub.poll_timeout();
            assert!(
                next.is_none() || polled.is_some_and(|polled| Some(polled) <= next),
                "after {step:?}"
            );
        }
    });
}

/// Connections that wait for a key join it in the order of their arrival, in the step that opens it. A timeout refuses exactly those that have
/// waited for the whole time, and closes them if they have one role for life. There are never more than the key may have joiners, nobody waits
/// for an open key, and one that has ended waits no longer.
///
/// Detects waiters that join in the order of their ids, the deadline of a waiter that has joined, a waiter that has left and joins, one that
/// is never refused, and one waiter too many.
#[test]
fn waiters_join_in_order_of_arrival_or_are_refused_in_time() {
    for_all(runs(), |Run { limits, steps }| {
        let (mut driver, mut observed) = (HubDriver::new(&limits), Observed::default());
        // The key of each waiter and the end of its wait, in order of arrival.
        let mut waiters: Vec<(usize, usize, Option<Time>)> = Vec::new();
        for step in steps {
            let now = driver.now;
            let is_due = |until: &Option<Time>| until.is_some_and(|until| until <= now);
            let mut due: Vec<usize> = waiters
                .iter()
                .filter(|waiter| is_due(&waiter.2))
                .map(|waiter| waiter.0)
                .collect();
            due.sort_unstable();
            let sent = driver.play(step);

            let joined: Vec<usize> = sent
                .iter()
                .filter(|(_, sent)| matches!(sent, Sent::Joined { .. }))
                .map(|(to, _)| *to)
                .collect();
            match step {
                Step::Open { .. } | Step::Meet { .. }
                    if sent.iter().any(|(_, sent)| matches!(sent, Sent::Opened { .. })) =>
                {
                    let opened = sent.iter().find_map(|(_, sent)| match sent {
                        Sent::Opened { key, .. } => Some(*key),
                        _ => None,
                    });
                    let awaiting = waiters.iter().filter(|waiter| Some(waiter.1) == opened);
                    assert!(
                        awaiting.map(|waiter| waiter.0).eq(joined.iter().copied()),
                        "{step:?}: {sent:?}"
                    );
                }
                Step::Timeout => {
                    let refused = sent.iter().filter(|(_, sent)| is_unknown_key(sent)).map(|(to, _)| *to);
                    assert!(refused.eq(due), "{sent:?} at {now:?}");
                }
                _ => {}
            }
            waiters.retain(|(who, _, until)| !(joined.contains(who) || step == Step::Timeout && is_due(until)));
            for (to, sent) in &sent {
                if let Sent::Waiting { key, wait } = sent {
                    waiters.push((*to, *key, now.checked_add(*wait)));
                    let count = waiters.iter().filter(|waiter| waiter.1 == *key).count();
                    assert!(count <= limits.joiners_per_key as usize);
                }
            }
            observed.record_event(&Event { step, sent });
            waiters.retain(|(who, ..)| observed.roles.get(who) == Some(&ObservedRole::Waiting));
            for (_, key, _) in &waiters {
                assert!(
                    observed
                        .who(|role| role == ObservedRole::Opener { key: *key })
                        .next()
                        .is_none()
                );
            }
            assert_eq!(driver.stats().waiting as usize, waiters.len(), "after {step:?}");
        }
    });
}
