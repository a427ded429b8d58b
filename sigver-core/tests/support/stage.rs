//! The real hub, called by [`Step`]s, with payloads that cannot be copied and whose ends are counted; and what is read off the
//! record of a run.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use sigver_core::{
    ConnId, ConnectError, Hub, InboundMessage, Index, Key, Limits, OutboundMessage, Refusal, Stats, Time,
};

use crate::model::{About, Said, Step};

/// What is carried: neither `Clone` nor `Copy`, so only its end is left to be counted.
pub(crate) struct Token {
    number: usize,
    ends: Rc<RefCell<BTreeMap<usize, u32>>>,
}

impl Drop for Token {
    fn drop(&mut self) {
        *self.ends.borrow_mut().entry(self.number).or_default() += 1;
    }
}

type Outputs = Vec<(ConnId, OutboundMessage<Token>)>;

/// What a hub returns, or whom it did not let in.
type Answer = Result<Outputs, (usize, ConnectError)>;

/// One step of a run and what was said to whom because of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) step: Step,
    pub(crate) said: Vec<(usize, Said)>,
}

/// A hub and the connections that were made to it.
pub(crate) struct Stage {
    pub(crate) hub: Hub<Token>,
    pub(crate) now: Time,
    ids: Vec<(usize, ConnId)>,
    ends: Rc<RefCell<BTreeMap<usize, u32>>>,
}

impl Stage {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            hub: Hub::with_payload(limits.clone()),
            now: Time::ZERO,
            ids: Vec::new(),
            ends: Rc::default(),
        }
    }

    /// Does what `step` says and reads what comes out of it. Where one step ends many connections that have nothing to do with
    /// each other, the order among them means nothing: it is by name here.
    pub(crate) fn play(&mut self, step: Step) -> Vec<(usize, Said)> {
        let answer = self.call(step);
        let mut said = self.read(&answer);
        if matches!(step, Step::Timeout | Step::Shutdown) {
            said.sort_by_key(|(who, _)| *who);
        }
        said
    }

    /// Does what `step` says. A connection that was never let in says nothing.
    pub(crate) fn call(&mut self, step: Step) -> Answer {
        Ok(match step {
            Step::Connect { who, profile } => {
                let id = self.hub.connect(self.now, profile).map_err(|error| (who, error))?;
                self.ids.push((who, id));
                Vec::new()
            }
            Step::Open { who, key } => self.say(who, InboundMessage::Open { key: name(key) }),
            Step::Join { who, key } => self.say(who, InboundMessage::Join { key: name(key) }),
            Step::Data { who, to, kind, token } => {
                let payload = self.token(token);
                self.say(who, InboundMessage::Data { to, kind, payload })
            }
            Step::UnknownControl { who, to, kind, token } => {
                let payload = self.token(token);
                self.say(who, InboundMessage::UnknownControl { to, kind, payload })
            }
            Step::Kick { who, index } => {
                let index = (index < u32::MAX).then(|| Index::new(index));
                self.say(who, InboundMessage::Kick { index })
            }
            Step::Leave { who } => self.say(who, InboundMessage::Leave),
            Step::CloseKey { who } => self.say(who, InboundMessage::CloseKey),
            Step::Close { who, reason } => match self.id(who) {
                Some(id) => self.hub.close(id, reason),
                None => Vec::new(),
            },
            Step::Disconnect { who } => match self.id(who) {
                Some(id) => self.hub.disconnect(id),
                None => Vec::new(),
            },
            Step::Wait { time } => {
                let now = self.now.checked_add(time);
                self.now = now.expect("runs are shorter than time itself");
                Vec::new()
            }
            Step::Timeout => self.hub.handle_timeout(self.now),
            Step::Shutdown => self.hub.shutdown(),
        })
    }

    /// An answer in the words of the model.
    pub(crate) fn read(&self, answer: &Answer) -> Vec<(usize, Said)> {
        let outputs = match answer {
            Ok(outputs) => outputs.iter(),
            Err((who, error)) => return vec![(*who, Said::NotLetIn(*error))],
        };
        outputs
            .map(|(to, message)| (self.name_of(*to), read(message)))
            .collect()
    }

    /// How often the payload with this number has come to its end.
    pub(crate) fn ends_of(&self, token: usize) -> u32 {
        self.ends.borrow().get(&token).copied().unwrap_or(0)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.hub.stats()
    }

    fn say(&mut self, who: usize, message: InboundMessage<Token>) -> Outputs {
        match self.id(who) {
            Some(id) => self.hub.handle(id, message),
            None => Vec::new(),
        }
    }

    fn id(&self, who: usize) -> Option<ConnId> {
        let found = self.ids.iter().find(|(name, _)| *name == who);
        found.map(|(_, id)| *id)
    }

    fn name_of(&self, id: ConnId) -> usize {
        let found = self.ids.iter().rev().find(|(_, known)| *known == id);
        found.expect("outputs go to connections that were made").0
    }

    fn token(&self, number: usize) -> Token {
        Token {
            number,
            ends: Rc::clone(&self.ends),
        }
    }
}

fn read(message: &OutboundMessage<Token>) -> Said {
    match message {
        OutboundMessage::Opened { key } => Said::Opened { key: number(key) },
        OutboundMessage::Joined { index } => Said::Joined { index: index.get() },
        OutboundMessage::PeerJoined { index } => Said::PeerJoined { index: index.get() },
        OutboundMessage::Data { from, payload } => Said::Data {
            from: from.map(Index::get),
            token: payload.number,
        },
        OutboundMessage::PeerLeft { index } => Said::PeerLeft { index: index.get() },
        OutboundMessage::Refused(refusal) => Said::Refused {
            code: refusal.name(),
            about: about(refusal),
        },
        OutboundMessage::RoleEnded(end) => Said::RoleEnded(*end),
        OutboundMessage::Close(reason) => Said::Close(*reason),
    }
}

fn about(refusal: &Refusal) -> About {
    match refusal {
        Refusal::KeyTaken { key } | Refusal::UnknownKey { key } | Refusal::TooManyJoiners { key } => {
            About::Key(number(key))
        }
        Refusal::UnknownIndex { index: Some(index) } | Refusal::NotAnObject { index: Some(index) } => {
            About::Index(index.get())
        }
        Refusal::HasRole
        | Refusal::NoRole
        | Refusal::WrongRole
        | Refusal::NoIndex
        | Refusal::UnknownIndex { index: None }
        | Refusal::NotAnObject { index: None } => About::Nothing,
        // The enum may grow, which no match outside of the crate can rule out.
        unknown => panic!("the protocol page has no {unknown:?}"),
    }
}

fn name(key: usize) -> Key {
    Key::new(&key.to_string(), &Limits::default()).expect("a number is a legal key")
}

fn number(key: &Key) -> usize {
    let number = key.as_str().parse();
    number.expect("the hub knows only keys that were given to it")
}

/// Per sender and recipient: first in, first out. In each role of a recipient `Opened` or `Joined` comes before all else; to an
/// opener `PeerJoined` comes before all data of that index and nothing comes after its `PeerLeft`; and behind the end of a role, in
/// whatever way, nothing comes that belongs to it.
pub(crate) fn assert_order(record: &[Event]) {
    /// For each index (`None`: the opener) the number of its latest payload; `None` before the first.
    type Latest = BTreeMap<Option<u32>, Option<usize>>;

    // What those that have a role have heard in it so far.
    let mut heard: BTreeMap<usize, Latest> = BTreeMap::new();
    for event in record {
        for (to, said) in &event.said {
            let latest = heard.get_mut(to);
            match said {
                Said::NotLetIn(_) | Said::Refused { .. } => {}
                Said::Close(_) => drop(heard.remove(to)),
                Said::Opened { .. } => {
                    assert!(latest.is_none(), "{said:?} to {to}, which has a role");
                    heard.insert(*to, BTreeMap::new());
                }
                Said::Joined { .. } => {
                    assert!(latest.is_none(), "{said:?} to {to}, which has a role");
                    heard.insert(*to, BTreeMap::from([(None, None)]));
                }
                Said::PeerJoined { index } => {
                    let latest = latest.expect("an opener was told that it is one");
                    let known = latest.insert(Some(*index), None);
                    assert!(known.is_none(), "{index} joins {to} and was there");
                }
                Said::Data { from, token } => {
                    let latest = latest.and_then(|latest| latest.get_mut(from));
                    let latest = latest.expect("data comes from a peer that is there");
                    assert!(
                        latest.is_none_or(|latest| latest < *token),
                        "{to} gets {token} after {latest:?}"
                    );
                    *latest = Some(*token);
                }
                Said::PeerLeft { index } => {
                    let known = latest.and_then(|latest| latest.remove(&Some(*index)));
                    assert!(known.is_some(), "{index} leaves {to} and was not there");
                }
                Said::RoleEnded(_) => {
                    let known = heard.remove(to).is_some_and(|latest| latest.contains_key(&None));
                    assert!(known, "the role of {to} ends, which is no joiner");
                }
            }
        }
        if let Some(who) = resigned(event) {
            heard.remove(&who);
        }
        if let Step::Disconnect { who } = event.step {
            heard.remove(&who);
        }
    }
}

/// Who has given up its role in this step, if it was there to do so.
pub(crate) fn resigned(event: &Event) -> Option<usize> {
    let (Step::Leave { who } | Step::CloseKey { who }) = event.step else {
        return None;
    };
    let is_answer = |(to, said): &(usize, Said)| *to == who && matches!(said, Said::Refused { .. } | Said::Close(_));
    (!event.said.iter().any(is_answer)).then_some(who)
}

/// Nothing is said to a connection that was closed, or that is gone; so it is closed at most once.
pub(crate) fn assert_last_word(record: &[Event]) {
    let mut over = Vec::new();
    for event in record {
        if let Step::Disconnect { who } = event.step {
            over.push(who);
        }
        for (to, said) in &event.said {
            assert!(!over.contains(to), "{said:?} to {to} after its end");
            if matches!(said, Said::Close(_)) {
                over.push(*to);
            }
        }
    }
}

/// From its `Opened` on, an opener is told of 0, 1, 2, … without gaps, and each joiner is given the number that its opener is told.
pub(crate) fn assert_indexes(record: &[Event]) {
    let mut next: BTreeMap<usize, u32> = BTreeMap::new();
    for event in record {
        let (mut given, mut told) = (None, None);
        for (to, said) in &event.said {
            match said {
                Said::Opened { .. } => drop(next.insert(*to, 0)),
                Said::Joined { index } => given = Some(*index),
                Said::PeerJoined { index } => {
                    let next = next.get_mut(to).expect("an opener was told that it is one");
                    assert_eq!(index, next, "the index that {to} is told");
                    *next += 1;
                    told = Some(*index);
                }
                Said::NotLetIn(_)
                | Said::Data { .. }
                | Said::PeerLeft { .. }
                | Said::Refused { .. }
                | Said::RoleEnded(_)
                | Said::Close(_) => {}
            }
        }
        assert_eq!(given, told, "in {:?}", event.step);
    }
}
