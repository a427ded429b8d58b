//! A naive endpoint, written from its documentation: the naive hub, and a list of clients with what the policy needs of each.

use core::{num::NonZeroU32, time::Duration};
use std::collections::{BTreeMap, VecDeque};

use sigver_core::{
    Addressee, AllowedRoles, CloseReason, ConnectError, Dialect, Disconnect, EndpointConfig, Index, PayloadKind, Phase,
    RoleEnd, Stats, Traffic,
};

use crate::{
    endpoint_steps::{Event, Step, To, add_present, id_text, key_text, random, token_text, v1_data, with_index},
    model::{self, Detail, Model, Sent, Tokens},
};

#[path = "endpoint_backlogs.rs"]
mod backlogs;
mod endpoint_grace;
mod endpoint_queue;
#[path = "leaky_bucket.rs"]
mod leaky_bucket;

use leaky_bucket::{Bucket, SECOND, burst};

use backlogs::cost;

use endpoint_queue::{Blocked, Queue, Waiting};

/// Outputs as `describe` formats them, each with its client.
pub(crate) type Outputs = Vec<(usize, String)>;

struct Client {
    dialect: Dialect,
    source: u8,
    /// The endpoint closes connections of a drain in this order.
    slot: usize,
    state: State,
    /// When the next ping is due, and a number that rises with each ping that is scheduled.
    ping: Option<(Duration, usize)>,
    missed_pings: u32,
    /// The total cost of frames that were not reported as written.
    unwritten: usize,
    queue: Queue,
    /// While it is not read.
    blocked: Option<Blocked>,
    /// Whether the unwritten frames were discarded when the client was closed.
    is_discarded: bool,
    /// Since the last check of its close time-out, and the number of checks.
    has_progressed: bool,
    checks: u32,
    messages: Bucket,
    bytes: Bucket,
    paused_until: Duration,
    attempts: Bucket,
    takeovers: Bucket,
    pairing: Option<Pairing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Until the socket is aborted or checked again, if it is.
    Closing(Option<Duration>),
    Gone,
}

#[derive(Clone, Copy, Default)]
struct Pairing {
    joiner_spoke: bool,
    opener_spoke: bool,
}

struct Drain {
    queue: VecDeque<usize>,
    interval: Duration,
    next: Duration,
    accept_until: Duration,
}

pub(crate) struct EndpointModel {
    config: EndpointConfig,
    hub: Model,
    pub(crate) now: Duration,
    clients: BTreeMap<usize, Client>,
    payloads: BTreeMap<usize, String>,
    scheduled: usize,
    /// The messages of each source, and its attempts at keys.
    messages: BTreeMap<u8, Bucket>,
    attempts: BTreeMap<u8, Bucket>,
    random_calls: usize,
    /// Clients whose opener is gone, or whose key was opened.
    released: VecDeque<usize>,
    drain: Option<Drain>,
    is_closed: bool,
    /// The number of steps so far, which makes payloads unique.
    pub(crate) token: usize,
    pub(crate) received: Traffic,
    pub(crate) sent: Traffic,
    pub(crate) refused: u64,
    pub(crate) evicted: u64,
    /// How often each stage was reached, by label.
    pub(crate) pairings: BTreeMap<&'static str, u64>,
}

impl EndpointModel {
    pub(crate) fn new(config: &EndpointConfig) -> Self {
        Self {
            config: config.clone(),
            hub: Model::new(&config.limits),
            now: Duration::ZERO,
            clients: BTreeMap::new(),
            payloads: BTreeMap::new(),
            scheduled: 0,
            messages: BTreeMap::new(),
            attempts: BTreeMap::new(),
            random_calls: 0,
            released: VecDeque::new(),
            drain: None,
            is_closed: false,
            token: 0,
            received: Traffic::default(),
            sent: Traffic::default(),
            refused: 0,
            evicted: 0,
            pairings: BTreeMap::new(),
        }
    }

    /// Plays a step. `slot` is the place of a client that connects.
    pub(crate) fn play(&mut self, step: Step, slot: usize) -> Result<Outputs, ConnectError> {
        self.token += 1;
        let mut outputs = Vec::new();
        match step {
            Step::Connect { who, dialect, source } => self.connect(who, dialect, source, slot)?,
            Step::Event { who, event } => self.handle(who, event, &mut outputs),
            Step::Written { who, bytes } => self.written(who, bytes, &mut outputs),
            Step::Wait { time } => {
                self.now += time;
                self.hub.play(model::Step::Wait { time });
            }
            Step::Timeout => self.handle_timeout(&mut outputs),
            Step::Drain { accept_for } => self.begin_drain(accept_for),
            Step::CloseAll => self.close_all(&mut outputs),
            Step::Close { who } if self.is_open(who) => self.close(who, CloseReason::ClosedByOperator, &mut outputs),
            Step::Kick { who } => self.kick(who, &mut outputs),
            Step::Close { .. } => {}
        }
        while let Some(who) = self.released.pop_front() {
            self.resume(who, false, &mut outputs);
        }
        Ok(outputs)
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = usize> {
        self.having(|state| state == State::Open)
    }

    pub(crate) fn closing(&self) -> impl Iterator<Item = usize> {
        self.having(|state| matches!(state, State::Closing(_)))
    }

    fn having(&self, is: impl Fn(State) -> bool) -> impl Iterator<Item = usize> {
        let having = self.clients.iter().filter(move |(_, client)| is(client.state));
        having.map(|(who, _)| *who)
    }

    pub(crate) fn stats(&self) -> Stats {
        self.hub.stats()
    }

    pub(crate) fn role(&self, who: usize) -> Option<sigver_core::Role> {
        let client = self.hub.connected().find(|client| client.name == who)?;
        match client.role {
            model::Role::Idle { .. } => None,
            model::Role::Opener { .. } => Some(sigver_core::Role::Opener),
            model::Role::Joiner { .. } => Some(sigver_core::Role::Joiner),
            model::Role::Waiting { .. } => Some(sigver_core::Role::Waiting),
        }
    }

    /// Returns the token of a key's opener, or that for which the key is reserved.
    #[allow(dead_code, reason = "only the laws show it")]
    pub(crate) fn token_of(&self, key: usize) -> Option<usize> {
        self.hub.token_of(key)
    }

    pub(crate) fn phase(&self) -> Phase {
        match (self.is_closed, &self.drain) {
            (true, _) => Phase::Closed,
            (false, None) => Phase::Serving,
            (false, Some(_)) => Phase::Draining,
        }
    }

    /// The time from which a call of `handle_timeout` does something.
    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        let aborts = self.clients.values().filter_map(|client| match client.state {
            State::Closing(at) => at,
            State::Open => {
                let ping = client.ping.map(|(at, _)| at).into_iter();
                ping.chain(client.queue.next_check()).chain(client.refused_at()).min()
            }
            State::Gone => None,
        });
        let drain = self.drain.as_ref().map(|drain| match drain.queue.is_empty() {
            true => drain.accept_until,
            false => drain.next,
        });
        aborts.chain(drain).chain(self.hub.next_timeout()).min()
    }

    fn is_open(&self, who: usize) -> bool {
        self.clients.get(&who).is_some_and(|client| client.state == State::Open)
    }

    /// Returns `None` if that is never.
    fn after(&self, time: Duration) -> Option<Duration> {
        (time != Duration::MAX).then(|| self.now + time)
    }

    fn client(&mut self, who: usize) -> &mut Client {
        self.clients.get_mut(&who).expect("a client that connected")
    }

    fn connect(&mut self, who: usize, dialect: Dialect, source: u8, slot: usize) -> Result<(), ConnectError> {
        let is_late = |drain: &Drain| self.now >= drain.accept_until;
        if self.is_closed || self.drain.as_ref().is_some_and(is_late) {
            return Err(ConnectError::ShuttingDown);
        }
        let (now, of_source) = (self.now, self.messages.get_mut(&source));
        let pause = of_source.map_or(Duration::ZERO, |bucket| bucket.excess(now, SECOND));
        let paused_until = now + pause;
        if let [(_, Sent::Rejected(error))] = self.hub.connect(who, dialect.profile(), pause)[..] {
            return Err(error);
        }
        let bucket = Bucket {
            level: Duration::ZERO,
            updated: self.now,
        };
        let client = Client {
            dialect,
            source,
            slot,
            state: State::Open,
            ping: None,
            missed_pings: 0,
            unwritten: 0,
            queue: Queue::default(),
            blocked: None,
            is_discarded: false,
            has_progressed: false,
            checks: 0,
            messages: bucket,
            bytes: bucket,
            paused_until,
            attempts: bucket,
            takeovers: bucket,
            pairing: None,
        };
        self.clients.insert(who, client);
        self.schedule_ping(who);
        let now = self.now;
        if let Some(drain) = &mut self.drain {
            if drain.queue.is_empty() {
                drain.next = now + Duration::from_millis(10);
            }
            drain.queue.push_front(who);
        }
        Ok(())
    }

    fn schedule_ping(&mut self, who: usize) {
        self.scheduled += 1;
        let interval = self.config.keep_alive;
        let at = self.after(interval).filter(|_| !interval.is_zero());
        self.client(who).ping = at.map(|at| (at, self.scheduled));
    }

    fn handle(&mut self, who: usize, event: Event, outputs: &mut Outputs) {
        if event == Event::Disconnected {
            let was_open = self.is_open(who);
            if was_open {
                self.leave_queues(who);
            }
            if let Some(client) = self.clients.get_mut(&who) {
                client.state = State::Gone;
            }
            if was_open {
                self.end_pairing(who, "ended-by-joiner", outputs);
                let how = Disconnect::Lost;
                let sent = self.hub.play(model::Step::Disconnect { who, how });
                self.deliver(Some(who), sent, outputs);
            }
            return;
        }
        if self.is_open(who) {
            self.limit_backlogs(outputs);
        }
        if !self.is_open(who) {
            return;
        }
        self.client(who).missed_pings = 0;
        self.receive(
            who,
            Waiting {
                event,
                token: self.token,
            },
            outputs,
        );
    }

    fn dispatch(&mut self, who: usize, Waiting { event, token }: Waiting, outputs: &mut Outputs) {
        match event {
            Event::Binary => self.close(who, CloseReason::Binary, outputs),
            Event::Violation { reason } => self.close(who, reason, outputs),
            Event::Ping { bytes } => {
                self.send(who, format!("pong {}", "p".repeat(bytes)), bytes, outputs);
                self.spend(who, 1, bytes, outputs);
            }
            Event::Pong => self.spend(who, 1, 0, outputs),
            Event::Close { code } => {
                self.end_pairing(who, "ended-by-joiner", outputs);
                self.begin_close(
                    who,
                    code.map_or("reply".to_owned(), |code| format!("reply {code}")),
                    outputs,
                );
                let how = Disconnect::Clean;
                let sent = self.hub.play(model::Step::Disconnect { who, how });
                self.deliver(Some(who), sent, outputs);
            }
            _ => match self.decode(who, event, token) {
                Ok(step) => self.message(who, event, token, step, outputs),
                Err(reason) => self.close(who, reason, outputs),
            },
        }
    }

    /// Decodes a text message in the dialect of the client.
    fn decode(&mut self, who: usize, event: Event, token: usize) -> Result<model::Step, CloseReason> {
        let dialect = self.client(who).dialect;
        let text = event.text(dialect, token).unwrap_or_default();
        let data = |to, kind| model::Step::Data { who, to, kind, token };
        let addressee = |to| match to {
            To::Unnamed => Addressee::Unnamed,
            To::Index(index) => Addressee::Index(Index::new(index)),
            To::Malformed => Addressee::Malformed,
        };
        let index = |index| Addressee::Index(Index::new(index));
        let (step, payload) = match (dialect, event) {
            (_, Event::InvalidJson) => return Err(CloseReason::InvalidJson),
            (Dialect::Plain, Event::Open { key: Some(key), .. }) => {
                let (id, tokens) = (None, Tokens::default());
                (model::Step::Open { who, key, id, tokens }, text)
            }
            (Dialect::V1, Event::Open { key, id, shown }) => {
                let made = key.is_none().then(|| self.random()).transpose()?;
                let key = key.or(made).expect("one of them is there");
                let new = Some(self.random()?);
                let tokens = Tokens { shown, new };
                (model::Step::Open { who, key, id, tokens }, text)
            }
            (_, Event::Join { key, id, wait }) => {
                let id = id.filter(|_| dialect == Dialect::V1);
                let limits = &self.config.limits;
                let wait = match dialect {
                    Dialect::Plain => limits.plain_join_grace,
                    Dialect::V1 => Duration::from_secs(wait.min(limits.join_wait.as_secs())),
                };
                (model::Step::Join { who, key, id, wait }, text)
            }
            (Dialect::Plain, Event::Data { to, .. }) => (data(addressee(to), PayloadKind::Object), text),
            (Dialect::Plain, Event::Kick { index: to }) => (data(index(to), PayloadKind::Object), text),
            (Dialect::V1, Event::Meet { key, id, shown }) => {
                let new = Some(self.random()?);
                let tokens = Tokens { shown, new };
                let allowed = AllowedRoles::BOTH;
                let step = model::Step::Meet {
                    who,
                    key,
                    id,
                    tokens,
                    allowed,
                };
                (step, text)
            }
            (Dialect::Plain, Event::UnknownType | Event::Meet { .. }) => {
                let (to, kind) = (Addressee::Unnamed, PayloadKind::Object);
                (model::Step::UnknownControl { who, to, kind, token }, text)
            }
            (Dialect::Plain, _) => (data(Addressee::Unnamed, PayloadKind::Object), text),
            (Dialect::V1, Event::Data { to: To::Malformed, .. }) => return Err(CloseReason::IndexMalformed),
            (Dialect::V1, Event::Data { to, is_object }) => {
                let kind = if is_object {
                    PayloadKind::Object
                } else {
                    PayloadKind::Any
                };
                (data(addressee(to), kind), v1_data(is_object, token))
            }
            (Dialect::V1, Event::Kick { index }) => (model::Step::Kick { who, index }, text),
            (Dialect::V1, Event::Leave) => (model::Step::Leave { who }, text),
            (Dialect::V1, Event::CloseKey) => (model::Step::CloseKey { who }, text),
            (Dialect::V1, Event::PingMessage) => (model::Step::Ping { who }, text),
            (Dialect::V1, _) => return Err(CloseReason::UnknownMessage),
        };
        self.payloads.insert(token, payload);
        Ok(step)
    }

    fn random(&mut self) -> Result<usize, CloseReason> {
        let bits = random(self.random_calls);
        self.random_calls += 1;
        Ok(bits.ok_or(CloseReason::Internal)? as usize)
    }

    fn message(&mut self, who: usize, event: Event, token: usize, step: model::Step, outputs: &mut Outputs) {
        let dialect = self.client(who).dialect;
        let bytes = event.text(dialect, token).unwrap_or_default().len();
        self.received.add(bytes);
        if matches!(step, model::Step::Leave { .. }) {
            self.end_pairing(who, "ended-by-joiner", outputs);
        }
        if matches!(step, model::Step::CloseKey { .. }) {
            self.release_joiners(who);
        }
        let sent = match step {
            model::Step::Open { .. } | model::Step::Join { .. } | model::Step::Meet { .. }
                if !matches!(event, Event::Open { key: None, .. }) =>
            {
                self.attempt(who, step, outputs)
            }
            _ => self.hub.play(step),
        };
        let is_takeover = sent
            .iter()
            .any(|(_, sent)| *sent == Sent::RoleEnded(RoleEnd::TakenOver));
        if let [(previous, Sent::RoleEnded(RoleEnd::TakenOver)), ..] = sent[..] {
            self.record_takeover(who, previous);
        }
        let notices = sent.iter().filter(|(_, sent)| !matches!(sent, Sent::Present { .. }));
        let weight = if is_takeover { notices.count() } else { 1 };
        self.deliver(Some(who), sent, outputs);
        self.spend(who, weight, bytes, outputs);
    }

    fn spend(&mut self, who: usize, count: usize, bytes: usize, outputs: &mut Outputs) {
        if !self.is_open(who) {
            return;
        }
        let (now, burst, config) = (self.now, burst(&self.config), &self.config);
        let rates = [
            config.messages_per_second,
            config.bytes_per_second,
            config.messages_per_second_per_source,
        ];
        let [messages, per_second, of_source] = rates.map(|rate| rate.map_or(u32::MAX, NonZeroU32::get));
        let source = self.client(who).source;
        let source = self.messages.entry(source).or_default();
        source.spend(count, of_source, now);
        let of_source = source.excess(now, SECOND);
        let client = self.client(who);
        client.messages.spend(count, messages, now);
        client.bytes.spend(bytes, per_second, now);
        let pause = client.messages.excess(now, SECOND).max(client.bytes.excess(now, burst));
        let pause = pause.max(of_source);
        if !pause.is_zero() {
            client.paused_until = now + pause;
            outputs.push((who, format!("pause until {:?}", now + pause)));
        }
    }

    fn close(&mut self, who: usize, reason: CloseReason, outputs: &mut Outputs) {
        let sent = self.hub.play(model::Step::Close { who, reason });
        self.deliver(Some(who), sent, outputs);
    }

    fn kick(&mut self, joiner: usize, outputs: &mut Outputs) {
        let client = self.hub.connected().find(|client| client.name == joiner);
        if let Some(model::Role::Joiner { opener, index, .. }) = client.map(|client| client.role) {
            let sent = self.hub.play(model::Step::Kick { who: opener, index });
            self.deliver(Some(opener), sent, outputs);
        }
    }

    fn deliver(&mut self, sender: Option<usize>, sent: Vec<(usize, Sent)>, outputs: &mut Outputs) {
        let mut queue = VecDeque::from(sent);
        while let Some((to, sent)) = queue.pop_front() {
            self.record_sent(sender, to, sent, outputs);
            if !self.is_open(to) {
                continue;
            }
            if let Sent::Close(reason) = sent {
                self.begin_close(to, format!("close {} {reason:?}", reason.code()), outputs);
            } else if let Some(mut text) = self.encode(to, sent) {
                add_present(&mut text, &mut queue);
                let bytes = text.len();
                let from_joiner = matches!(
                    sent,
                    Sent::Data { from: Some(_), .. } | Sent::PeerJoined { .. } | Sent::PeerLeft { .. }
                );
                if from_joiner {
                    self.sent.add(bytes);
                    self.send_to_opener(to, sender.filter(|sender| *sender != to), text, outputs);
                } else if self.fits(to, bytes) {
                    self.sent.add(bytes);
                    self.send(to, text, bytes, outputs);
                } else {
                    let reason = CloseReason::TooSlow;
                    queue.extend(self.hub.play(model::Step::Close { who: to, reason }));
                }
            }
        }
    }

    fn fits(&mut self, who: usize, bytes: usize) -> bool {
        let limit = self.config.backlog_bytes as usize;
        let backlog = self.client(who).backlog();
        backlog == 0 || backlog + cost(bytes) <= limit
    }

    fn send(&mut self, who: usize, frame: String, bytes: usize, outputs: &mut Outputs) {
        if self.fits(who, bytes) {
            let client = self.client(who);
            if client.queue.frames.is_empty() {
                client.unwritten += cost(bytes);
                outputs.push((who, frame));
            } else {
                client.queue.push(None, frame, cost(bytes));
            }
        } else {
            self.close(who, CloseReason::TooSlow, outputs);
        }
    }

    fn encode(&mut self, to: usize, sent: Sent) -> Option<String> {
        let payload = |token: usize| self.payloads[&token].clone();
        if self.clients[&to].dialect == Dialect::Plain {
            return match sent {
                Sent::PeerJoined { .. } => Some(r#"{"type":"join"}"#.to_owned()),
                Sent::Data { from: None, token } => Some(payload(token)),
                Sent::Data {
                    from: Some(index),
                    token,
                } => Some(with_index(&payload(token), index)),
                _ => None,
            };
        }
        Some(match sent {
            Sent::Opened { key, token } => {
                format!(r#"{{"type":"opened","key":"{}"{}}}"#, key_text(key), token_text(token))
            }
            Sent::Reopened { id } => format!(r#"{{"type":"reopened"{}}}"#, id_text(id)),
            Sent::Waiting { key, wait } => {
                format!(
                    r#"{{"type":"waiting","key":"{}","wait":{}}}"#,
                    key_text(key),
                    wait.as_secs()
                )
            }
            Sent::Joined { index, id } => format!(r#"{{"type":"joined","index":{index}{}}}"#, id_text(id)),
            Sent::PeerJoined { index, id } => format!(r#"{{"type":"join","index":{index}{}}}"#, id_text(id)),
            Sent::PeerLeft { index } => format!(r#"{{"type":"leave","index":{index}}}"#),
            Sent::Data { from: None, token } => format!(r#"{{"type":"data","data":{}}}"#, payload(token)),
            Sent::Data {
                from: Some(index),
                token,
            } => format!(r#"{{"type":"data","index":{index},"data":{}}}"#, payload(token)),
            Sent::RoleEnded(RoleEnd::OpenerLeft) => r#"{"type":"closed","code":"opener-left"}"#.to_owned(),
            Sent::RoleEnded(RoleEnd::Kicked) => r#"{"type":"closed","code":"kicked"}"#.to_owned(),
            Sent::RoleEnded(RoleEnd::TokenExpired) => r#"{"type":"closed","code":"token-expired"}"#.to_owned(),
            Sent::RoleEnded(RoleEnd::TakenOver) => r#"{"type":"closed","code":"taken-over"}"#.to_owned(),
            Sent::Pong => r#"{"type":"pong"}"#.to_owned(),
            Sent::Refused { code, detail } => {
                let message = model::message(code);
                let beside = match detail {
                    // Stands for every number that is too large.
                    Detail::Nothing | Detail::Index(u32::MAX) => String::new(),
                    Detail::Key(key) => format!(r#","key":"{}""#, key_text(key)),
                    Detail::Index(index) => format!(r#","index":{index}"#),
                };
                format!(r#"{{"type":"error","code":"{code}","message":"{message}"{beside}}}"#)
            }
            Sent::Rejected(_) | Sent::Present { .. } | Sent::Close(_) => return None,
        })
    }

    fn record_sent(&mut self, sender: Option<usize>, to: usize, sent: Sent, outputs: &mut Outputs) {
        if matches!(sent, Sent::RoleEnded(_)) {
            self.release_joiners(to);
        }
        match sent {
            Sent::Opened { .. } => self.reach("opened"),
            Sent::Waiting { .. } => self.begin_grace(to, outputs),
            Sent::Joined { .. } => {
                self.end_grace(to);
                self.reach("joined");
                self.client(to).pairing = Some(Pairing::default());
            }
            Sent::Data { from, .. } => {
                let joiner = if from.is_some() { sender } else { Some(to) };
                let joiner = joiner.expect("data has a sender");
                let Some(mut pairing) = self.client(joiner).pairing else {
                    return;
                };
                let (spoke, stage) = match from {
                    Some(_) => (&mut pairing.joiner_spoke, "joiner-spoke"),
                    None => (&mut pairing.opener_spoke, "opener-spoke"),
                };
                if !*spoke {
                    *spoke = true;
                    self.reach(stage);
                    if pairing.joiner_spoke && pairing.opener_spoke {
                        self.reach("both-spoke");
                    }
                }
                self.client(joiner).pairing = Some(pairing);
            }
            Sent::Refused { .. } => self.refused += 1,
            Sent::RoleEnded(RoleEnd::OpenerLeft) => self.end_pairing(to, "ended-by-opener", outputs),
            Sent::RoleEnded(RoleEnd::Kicked) => self.end_pairing(to, "ended-by-kick", outputs),
            Sent::RoleEnded(RoleEnd::TokenExpired) => self.end_pairing(to, "ended-by-server", outputs),
            Sent::Close(reason) => {
                let stage = match reason {
                    CloseReason::OpenerLeft => "ended-by-opener",
                    CloseReason::Kicked => "ended-by-kick",
                    _ => "ended-by-server",
                };
                let is_decision = reason == CloseReason::ShuttingDown || reason == CloseReason::ClosedByOperator;
                self.refused += u64::from(stage == "ended-by-server" && !is_decision);
                self.end_pairing(to, stage, outputs);
            }
            Sent::Rejected(_)
            | Sent::Present { .. }
            | Sent::Reopened { .. }
            | Sent::RoleEnded(RoleEnd::TakenOver)
            | Sent::PeerJoined { .. }
            | Sent::PeerLeft { .. }
            | Sent::Pong => {}
        }
    }

    fn reach(&mut self, stage: &'static str) {
        *self.pairings.entry(stage).or_default() += 1;
    }

    fn end_pairing(&mut self, joiner: usize, stage: &'static str, outputs: &mut Outputs) {
        if self.client(joiner).pairing.take().is_some() {
            self.reach(stage);
            outputs.push((joiner, stage.to_owned()));
        }
    }

    fn handle_timeout(&mut self, outputs: &mut Outputs) {
        let is_late = |due| self.now > due + Duration::from_secs(1);
        let is_late = self.next_timeout().is_some_and(is_late);
        if is_late {
            self.hub.restart_deadlines();
        }
        self.limit_backlogs(outputs);
        let sent = self.hub.play(model::Step::Timeout);
        self.deliver(None, sent, outputs);
        self.refuse_due(outputs);

        while let Some(drain) = &mut self.drain {
            if drain.queue.is_empty() {
                if self.now < drain.accept_until {
                    break;
                }
                self.close_all(outputs);
            } else {
                if self.now < drain.next {
                    break;
                }
                drain.next += drain.interval;
                let who = drain.queue.pop_front().expect("not empty");
                self.close(who, CloseReason::ShuttingDown, outputs);
            }
        }

        let now = self.now;
        let next_check = self.after(self.config.close_timeout);
        for (who, client) in &mut self.clients {
            while matches!(client.state, State::Closing(Some(at)) if at <= now) {
                client.checks += 1;
                if client.checks < 12 && (is_late || client.has_progressed) {
                    client.state = State::Closing(next_check);
                    client.has_progressed = false;
                } else {
                    client.state = State::Gone;
                    outputs.push((*who, "abort".to_owned()));
                }
            }
        }

        self.check_stalls(is_late, outputs);

        let due = |client: &Client| client.ping.filter(|(at, _)| *at <= now);
        let due = self
            .clients
            .iter()
            .filter_map(|(who, client)| Some((due(client)?, *who)));
        let mut due: Vec<_> = due.collect();
        due.sort_unstable();
        for (_, who) in due {
            if self.is_open(who) {
                self.ping(who, outputs);
            }
        }
    }

    fn ping(&mut self, who: usize, outputs: &mut Outputs) {
        let now = self.now;
        let client = self.client(who);
        if client.blocked.is_some() || client.paused_until > now {
            client.missed_pings = 0;
        }
        if client.missed_pings == 2 {
            return self.close(who, CloseReason::Silent, outputs);
        }
        client.missed_pings += 1;
        self.schedule_ping(who);
        self.send(who, "ping".to_owned(), 0, outputs);
    }

    fn begin_drain(&mut self, accept_for: Duration) {
        if self.phase() != Phase::Serving {
            return;
        }
        let mut queue: Vec<usize> = self.open().collect();
        let is_opener = |who| self.role(who) == Some(sigver_core::Role::Opener);
        queue.sort_by_key(|who| (is_opener(*who), self.clients[who].slot));
        let share = self.config.drain / queue.len().max(1) as u32;
        self.drain = Some(Drain {
            interval: share.min(Duration::from_millis(10)),
            queue: queue.into(),
            next: self.now,
            accept_until: self.now + accept_for,
        });
    }

    fn close_all(&mut self, outputs: &mut Outputs) {
        self.drain = None;
        self.is_closed = true;
        let sent = self.hub.play(model::Step::Shutdown);
        self.deliver(None, sent, outputs);
    }
}
