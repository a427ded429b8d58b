//! The real hub, called by [`Step`]s, with payloads that cannot be copied and whose drops are counted; and assertions about the record of a
//! run.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use sigver_core::{
    ConnId, ConnectError, Hub, InboundMessage, Index, Key, Limits, OutboundMessage, PeerId, Refusal, RoleEnd, Stats,
    Time, Token,
};

use crate::model::{Detail, Sent, Step};

/// A payload that is neither `Clone` nor `Copy`. Its drops are counted.
pub(crate) struct Counted {
    number: usize,
    drops: Rc<RefCell<BTreeMap<usize, u32>>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        *self.drops.borrow_mut().entry(self.number).or_default() += 1;
    }
}

type Outputs = Vec<(ConnId, OutboundMessage<Counted>)>;

/// The outputs of a call, or the connection that was rejected.
type CallResult = Result<Outputs, (usize, ConnectError)>;

/// A step of a run and the messages that followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) step: Step,
    pub(crate) sent: Vec<(usize, Sent)>,
}

/// A hub and its connections.
pub(crate) struct HubDriver {
    pub(crate) hub: Hub<Counted>,
    pub(crate) now: Time,
    ids: Vec<(usize, ConnId)>,
    drops: Rc<RefCell<BTreeMap<usize, u32>>>,
}

impl HubDriver {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            hub: Hub::with_payload(limits.clone()),
            now: Time::ZERO,
            ids: Vec::new(),
            drops: Rc::default(),
        }
    }

    /// Plays a step and returns its outputs. If one step ends many unrelated connections, their order has no meaning: they are sorted by
    /// name.
    pub(crate) fn play(&mut self, step: Step) -> Vec<(usize, Sent)> {
        let result = self.call(step);
        let mut sent = self.read(&result);
        if matches!(step, Step::Timeout | Step::Shutdown) {
            sent.sort_by_key(|(who, _)| *who);
        }
        sent
    }

    /// Plays a step. The steps of a rejected connection do nothing.
    pub(crate) fn call(&mut self, step: Step) -> CallResult {
        Ok(match step {
            Step::Connect { who, profile } => {
                let id = self.hub.connect(self.now, profile).map_err(|error| (who, error))?;
                self.ids.push((who, id));
                Vec::new()
            }
            Step::Open { who, key, id, tokens } => {
                let (key, id) = (name(key), id.map(peer_id));
                let [token, new_token] = [tokens.shown, tokens.new].map(|number| number.map(token));
                let message = InboundMessage::Open {
                    key,
                    id,
                    token,
                    new_token,
                };
                self.handle(who, message)
            }
            Step::Join { who, key, id, wait } => {
                let (key, id) = (name(key), id.map(peer_id));
                self.handle(who, InboundMessage::Join { key, id, wait })
            }
            Step::Meet {
                who,
                key,
                id,
                tokens,
                allowed,
            } => {
                let (key, id) = (name(key), id.map(peer_id));
                let [token, new_token] = [tokens.shown, tokens.new].map(|number| number.map(token));
                let message = InboundMessage::Meet {
                    key,
                    id,
                    token,
                    new_token,
                    allowed,
                };
                self.handle(who, message)
            }
            Step::NotAllowed { who, key } => {
                let key = key.map(name);
                self.handle(who, InboundMessage::NotAllowed { key })
            }
            Step::Data { who, to, kind, token } => {
                let payload = self.payload(token);
                self.handle(who, InboundMessage::Data { to, kind, payload })
            }
            Step::UnknownControl { who, to, kind, token } => {
                let payload = self.payload(token);
                self.handle(who, InboundMessage::UnknownControl { to, kind, payload })
            }
            Step::Kick { who, index } => {
                let index = (index < u32::MAX).then(|| Index::new(index));
                self.handle(who, InboundMessage::Kick { index })
            }
            Step::Leave { who } => self.handle(who, InboundMessage::Leave),
            Step::CloseKey { who } => self.handle(who, InboundMessage::CloseKey),
            Step::Ping { who } => self.handle(who, InboundMessage::Ping),
            Step::Throttle { who, key } => match self.id(who) {
                Some(id) => {
                    let key = name(key);
                    self.hub.refuse_request(id, Refusal::TooManyAttempts { key })
                }
                None => Vec::new(),
            },
            Step::Close { who, reason } => match self.id(who) {
                Some(id) => self.hub.close(self.now, id, reason),
                None => Vec::new(),
            },
            Step::Disconnect { who, how } => match self.id(who) {
                Some(id) => self.hub.disconnect(self.now, id, how),
                None => Vec::new(),
            },
            Step::Wait { time } => {
                let now = self.now.checked_add(time);
                self.now = now.expect("a run is short");
                Vec::new()
            }
            Step::Timeout => self.hub.handle_timeout(self.now),
            Step::Shutdown => self.hub.shutdown(),
        })
    }

    /// Returns the result of a call as the model has it.
    pub(crate) fn read(&self, result: &CallResult) -> Vec<(usize, Sent)> {
        let outputs = match result {
            Ok(outputs) => outputs.iter(),
            Err((who, error)) => return vec![(*who, Sent::Rejected(*error))],
        };
        outputs
            .flat_map(|(to, message)| {
                let who = self.name_of(*to);
                read(message).into_iter().map(move |sent| (who, sent))
            })
            .collect()
    }

    /// Returns how often the payload with this number was dropped.
    pub(crate) fn drops_of(&self, token: usize) -> u32 {
        self.drops.borrow().get(&token).copied().unwrap_or(0)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.hub.stats()
    }

    fn handle(&mut self, who: usize, message: InboundMessage<Counted>) -> Outputs {
        match self.id(who) {
            Some(id) => self.hub.handle(self.now, id, message),
            None => Vec::new(),
        }
    }

    fn id(&self, who: usize) -> Option<ConnId> {
        let found = self.ids.iter().find(|(name, _)| *name == who);
        found.map(|(_, id)| *id)
    }

    fn name_of(&self, id: ConnId) -> usize {
        let found = self.ids.iter().rev().find(|(_, known)| *known == id);
        found.expect("outputs go to known connections").0
    }

    fn payload(&self, number: usize) -> Counted {
        Counted {
            number,
            drops: Rc::clone(&self.drops),
        }
    }
}

fn read(message: &OutboundMessage<Counted>) -> Vec<Sent> {
    vec![match message {
        OutboundMessage::Opened { key, token, joiners } => {
            let opened = Sent::Opened {
                key: number(key),
                token: token.as_ref().map(token_number),
            };
            let present = joiners.iter().map(|joiner| Sent::Present {
                index: joiner.index.get(),
                id: joiner.id.as_ref().map(id_number),
            });
            return [opened].into_iter().chain(present).collect();
        }
        OutboundMessage::Reopened { id } => Sent::Reopened {
            id: id.as_ref().map(id_number),
        },
        OutboundMessage::Waiting { key, wait } => Sent::Waiting {
            key: number(key),
            wait: *wait,
        },
        OutboundMessage::Joined { index, id } => Sent::Joined {
            index: index.get(),
            id: id.as_ref().map(id_number),
        },
        OutboundMessage::PeerJoined { index, id } => Sent::PeerJoined {
            index: index.get(),
            id: id.as_ref().map(id_number),
        },
        OutboundMessage::Data { from, payload } => Sent::Data {
            from: from.map(Index::get),
            token: payload.number,
        },
        OutboundMessage::PeerLeft { index } => Sent::PeerLeft { index: index.get() },
        OutboundMessage::Refused(refusal) => Sent::Refused {
            code: refusal.name(),
            detail: detail(refusal),
        },
        OutboundMessage::RoleEnded(end) => Sent::RoleEnded(*end),
        OutboundMessage::Pong => Sent::Pong,
        OutboundMessage::Close(reason) => Sent::Close(*reason),
    }]
}

fn detail(refusal: &Refusal) -> Detail {
    match refusal {
        Refusal::KeyTaken { key }
        | Refusal::UnknownKey { key }
        | Refusal::TooManyJoiners { key }
        | Refusal::TooManyAttempts { key }
        | Refusal::NotAllowed { key: Some(key) } => Detail::Key(number(key)),
        Refusal::UnknownIndex { index: Some(index) } | Refusal::NotAnObject { index: Some(index) } => {
            Detail::Index(index.get())
        }
        Refusal::NotAllowed { key: None }
        | Refusal::HasRole
        | Refusal::NoRole
        | Refusal::WrongRole
        | Refusal::NoIndex
        | Refusal::UnknownIndex { index: None }
        | Refusal::NotAnObject { index: None } => Detail::Nothing,
        // The enum is non-exhaustive, so the match cannot be complete.
        unknown => panic!("{unknown:?} is not in the protocol page"),
    }
}

fn name(key: usize) -> Key {
    Key::new(&key.to_string(), &Limits::default()).expect("a number is a valid key")
}

fn number(key: &Key) -> usize {
    let number = key.as_str().parse();
    number.expect("the hub has only keys of the run")
}

fn peer_id(id: usize) -> PeerId {
    PeerId::new(&id.to_string()).expect("a number is a valid id")
}

fn token(number: usize) -> Token {
    Token::from_random(number as u128)
}

fn token_number(token: &Token) -> usize {
    let number = usize::from_str_radix(token.as_str(), 16);
    number.expect("the hub has only tokens of the run")
}

fn id_number(id: &PeerId) -> usize {
    let number = id.as_str().parse();
    number.expect("the hub has only ids of the run")
}

/// Asserts the order of messages. From one sender to one recipient: first in, first out. In each role of a recipient, `Opened` or `Joined`
/// is first. An opener receives `PeerJoined` before all data of that index, and nothing of it after `PeerLeft`. Nothing of a role follows
/// its end.
pub(crate) fn assert_order(record: &[Event]) {
    /// For each index (`None`: the opener), the number of its latest payload; `None` before the first.
    type Latest = BTreeMap<Option<u32>, Option<usize>>;

    // What each connection with a role has received in it.
    let mut received: BTreeMap<usize, Latest> = BTreeMap::new();
    for event in record {
        for (to, sent) in &event.sent {
            let latest = received.get_mut(to);
            match sent {
                Sent::Rejected(_) | Sent::Refused { .. } | Sent::Pong => {}
                Sent::Waiting { .. } => assert!(latest.is_none(), "{sent:?} to {to}, which has a role"),
                Sent::Close(_) => drop(received.remove(to)),
                Sent::Opened { .. } => {
                    assert!(latest.is_none(), "{sent:?} to {to}, which has a role");
                    received.insert(*to, BTreeMap::new());
                }
                Sent::Joined { .. } => {
                    assert!(latest.is_none(), "{sent:?} to {to}, which has a role");
                    received.insert(*to, BTreeMap::from([(None, None)]));
                }
                Sent::PeerJoined { index, .. } => {
                    let latest = latest.expect("an opener received `Opened`");
                    let known = latest.insert(Some(*index), None);
                    assert!(known.is_none(), "{index} joins {to} twice");
                }
                Sent::Data { from, token } => {
                    let latest = latest.and_then(|latest| latest.get_mut(from));
                    let latest = latest.expect("data comes from a present peer");
                    assert!(
                        latest.is_none_or(|latest| latest < *token),
                        "{to} receives {token} after {latest:?}"
                    );
                    *latest = Some(*token);
                }
                Sent::PeerLeft { index } => {
                    let known = latest.and_then(|latest| latest.remove(&Some(*index)));
                    assert!(known.is_some(), "{index} leaves {to} without having joined");
                }
                Sent::Present { index, .. } => {
                    let latest = latest.expect("an opener received `Opened`");
                    latest.insert(Some(*index), None);
                }
                Sent::Reopened { .. } => {
                    let is_joiner = latest.is_some_and(|latest| latest.contains_key(&None));
                    assert!(is_joiner, "{to} is no joiner");
                }
                Sent::RoleEnded(RoleEnd::TakenOver) => {
                    let known = received.remove(to).is_some_and(|latest| !latest.contains_key(&None));
                    assert!(known, "{to} is no opener");
                }
                Sent::RoleEnded(RoleEnd::TokenExpired) => {
                    assert!(received.remove(to).is_some(), "{to} has no role");
                }
                Sent::RoleEnded(RoleEnd::OpenerLeft | RoleEnd::Kicked) => {
                    let known = received.remove(to).is_some_and(|latest| latest.contains_key(&None));
                    assert!(known, "the role of {to} ends, but it is not a joiner");
                }
            }
        }
        if let Some(who) = resigned(event) {
            received.remove(&who);
        }
        if let Step::Disconnect { who, .. } = event.step {
            received.remove(&who);
        }
    }
}

/// Returns the connection that ended its own role in this step, or was unable to because it is gone.
pub(crate) fn resigned(event: &Event) -> Option<usize> {
    let (Step::Leave { who } | Step::CloseKey { who }) = event.step else {
        return None;
    };
    let is_answer = |(to, sent): &(usize, Sent)| *to == who && matches!(sent, Sent::Refused { .. } | Sent::Close(_));
    (!event.sent.iter().any(is_answer)).then_some(who)
}

/// Asserts that nothing is sent to a connection after its close or disconnect. So it is closed at most once.
pub(crate) fn assert_nothing_after_close(record: &[Event]) {
    let mut over = Vec::new();
    for event in record {
        if let Step::Disconnect { who, .. } = event.step {
            over.push(who);
        }
        for (to, sent) in &event.sent {
            assert!(!over.contains(to), "{sent:?} to {to} after its end");
            if matches!(sent, Sent::Close(_)) {
                over.push(*to);
            }
        }
    }
}

/// Asserts that an opener receives the indexes 0, 1, 2, … after its `Opened`, and that each joiner receives the same index as its opener, just
/// before it.
pub(crate) fn assert_indexes(record: &[Event]) {
    let mut next: BTreeMap<usize, u32> = BTreeMap::new();
    for event in record {
        let (mut to_joiners, mut to_opener, mut taken_over) = (Vec::new(), Vec::new(), None);
        for (to, sent) in &event.sent {
            match sent {
                // An opener that takes a role over continues the count of the previous one.
                Sent::Opened { .. } => drop(next.insert(*to, taken_over.take().unwrap_or(0))),
                Sent::RoleEnded(RoleEnd::TakenOver) => taken_over = next.remove(to),
                Sent::Present { index, .. } => assert!(*index < next[to], "to {to}"),
                Sent::Joined { index, .. } => to_joiners.push(*index),
                Sent::PeerJoined { index, .. } => {
                    let next = next.get_mut(to).expect("an opener received `Opened`");
                    assert_eq!(index, next, "to {to}");
                    *next += 1;
                    to_opener.push(*index);
                    assert_eq!(to_joiners.len(), to_opener.len(), "in {:?}", event.step);
                }
                Sent::Rejected(_)
                | Sent::Waiting { .. }
                | Sent::Data { .. }
                | Sent::PeerLeft { .. }
                | Sent::Refused { .. }
                | Sent::Reopened { .. }
                | Sent::RoleEnded(RoleEnd::OpenerLeft | RoleEnd::Kicked | RoleEnd::TokenExpired)
                | Sent::Pong
                | Sent::Close(_) => {}
            }
        }
        assert_eq!(to_joiners, to_opener, "in {:?}", event.step);
    }
}
