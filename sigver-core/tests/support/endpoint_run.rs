//! The real endpoint, called by the steps of the naive one, and the comparison of both after each step.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use sigver_core::{
    CloseReason, ConnId, ConnectError, Decoder, Endpoint, EndpointConfig, Input, Output, PairingStage, Phase, Stats,
    Time,
};

#[path = "endpoint_activity.rs"]
mod endpoint_activity;

use endpoint_activity::ReportedRoles;

use crate::{
    describe::describe,
    endpoint_model::{EndpointModel, Outputs},
    endpoint_steps::{Event, Step, address, random},
};

/// A step and the outputs that followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) step: Step,
    pub(crate) now: Duration,
    pub(crate) answer: Result<Outputs, ConnectError>,
}

pub(crate) struct Driver {
    pub(crate) endpoint: Endpoint,
    pub(crate) now: Time,
    pub(crate) ids: BTreeMap<usize, ConnId>,
    names: BTreeMap<ConnId, usize>,
    dialects: BTreeMap<usize, sigver_core::Dialect>,
    token: usize,
    reported: ReportedRoles,
    /// The total cost of the unwritten frames of each open connection.
    pub(crate) unwritten: BTreeMap<usize, usize>,
}

impl Driver {
    pub(crate) fn new(config: &EndpointConfig) -> Self {
        let mut calls = 0..;
        Self::with_random(config, move || calls.next().and_then(random))
    }

    /// Creates an endpoint with this source of randomness.
    pub(crate) fn with_random(config: &EndpointConfig, random: impl FnMut() -> Option<u128> + Send + 'static) -> Self {
        let mut config = config.clone();
        config.report_activity = true;
        Self {
            endpoint: Endpoint::new(config, random),
            now: Time::ZERO,
            ids: BTreeMap::new(),
            names: BTreeMap::new(),
            dialects: BTreeMap::new(),
            token: 0,
            reported: ReportedRoles::default(),
            unwritten: BTreeMap::new(),
        }
    }

    pub(crate) fn play(&mut self, step: Step) -> Result<Outputs, ConnectError> {
        self.token += 1;
        self.play_as(step, self.token)
    }

    /// Plays a step with this number for its data.
    pub(crate) fn play_as(&mut self, step: Step, token: usize) -> Result<Outputs, ConnectError> {
        let outputs = match step {
            Step::Connect { who, dialect, source } => {
                let id = self.endpoint.connect(self.now, dialect, address(source).into())?;
                self.ids.insert(who, id);
                self.names.insert(id, who);
                self.dialects.insert(who, dialect);
                self.reported.connect(id);
                Vec::new()
            }
            Step::Event { who, event } => match self.ids.get(&who) {
                Some(id) => self.handle(*id, event, self.dialects[&who], token),
                None => Vec::new(),
            },
            Step::Written { who, bytes } => {
                let unwritten = self.unwritten.entry(who).or_default();
                *unwritten = unwritten.saturating_sub(bytes);
                match self.ids.get(&who) {
                    Some(id) => self.endpoint.written(self.now, *id, bytes),
                    None => Vec::new(),
                }
            }
            Step::Wait { time } => {
                self.now = self.now.saturating_add(time);
                Vec::new()
            }
            Step::Timeout => self.endpoint.handle_timeout(self.now),
            Step::Drain { accept_for } => {
                self.endpoint.drain(self.now, self.now.saturating_add(accept_for));
                Vec::new()
            }
            Step::CloseAll => self.endpoint.close_all(self.now),
            Step::Close { who } => match self.ids.get(&who) {
                Some(id) => self.endpoint.close(self.now, *id, CloseReason::ClosedByOperator),
                None => Vec::new(),
            },
            Step::Kick { who } => match self.ids.get(&who) {
                Some(id) => self.endpoint.kick(self.now, *id),
                None => Vec::new(),
            },
        };
        self.reported.poll(&mut self.endpoint);
        Ok(self.read(&outputs))
    }

    /// Handles an event. A text message is passed as text or, if its number is even, as a decoded message.
    fn handle(
        &mut self,
        id: ConnId,
        event: Event,
        dialect: sigver_core::Dialect,
        token: usize,
    ) -> Vec<(ConnId, Output)> {
        let text = event.text(dialect, token).unwrap_or_default();
        let payload;
        let input = match event {
            Event::Binary => Input::Binary,
            Event::Ping { bytes } => {
                payload = "p".repeat(bytes);
                Input::Ping(payload.as_bytes())
            }
            Event::Pong => Input::Pong,
            Event::Close { code } => Input::Close(code),
            Event::Violation { reason } => Input::Violation(reason),
            Event::Disconnected => Input::Disconnected,
            Event::Open { key: None, .. } => Input::Text(&text),
            _ if token % 2 == 1 => Input::Text(&text),
            _ => match Decoder::new(dialect, &self.endpoint.config().limits).decode(&text) {
                Ok(message) => Input::Message {
                    message,
                    text_bytes: text.len(),
                    wire_bytes: text.len(),
                },
                Err(reason) => Input::Violation(reason),
            },
        };
        self.endpoint.handle(self.now, id, input)
    }

    fn read(&mut self, outputs: &[(ConnId, Output)]) -> Outputs {
        let mut read = Vec::new();
        for (to, output) in outputs {
            let who = self.names[to];
            if let Output::Send(frame) = output {
                *self.unwritten.entry(who).or_default() += frame.cost();
            }
            read.push((who, describe(output)));
        }
        read
    }
}

/// Plays the steps on the endpoint and on the model, and compares all observable state after each. Then disconnects every socket, after
/// which nothing is left.
///
/// # Panics
///
/// If they differ.
pub(crate) fn compare(config: &EndpointConfig, steps: &[Step]) -> Vec<Record> {
    let (mut driver, mut model) = (Driver::new(config), EndpointModel::new(config));
    let mut record = Vec::new();
    for step in steps {
        let answer = play(&mut driver, &mut model, *step);
        let now = model.now;
        record.push(Record {
            step: *step,
            now,
            answer,
        });
    }
    finish(&mut driver, &mut model);
    record
}

/// Disconnects every socket, and asserts that nothing is left.
pub(crate) fn finish(driver: &mut Driver, model: &mut EndpointModel) {
    let sockets: Vec<usize> = model.open().chain(model.closing()).collect();
    for who in sockets {
        let event = Event::Disconnected;
        let _ = play(driver, model, Step::Event { who, event });
    }
    assert_eq!(driver.endpoint.sockets(), 0);
    if driver.endpoint.phase() != Phase::Draining {
        // Only reservations are left.
        while let Some(next) = model.next_timeout().filter(|next| *next < Duration::MAX) {
            let time = next.saturating_sub(model.now);
            let _ = play(driver, model, Step::Wait { time });
            let _ = play(driver, model, Step::Timeout);
        }
        assert_eq!(driver.endpoint.poll_timeout(), None);
    }
}

/// Plays one step on both, and compares them.
pub(crate) fn play(driver: &mut Driver, model: &mut EndpointModel, step: Step) -> Result<Outputs, ConnectError> {
    let answer = driver.play(step);
    let slot = match step {
        Step::Connect { who, .. } => driver.ids.get(&who).map_or(0, |id| id.slot()),
        _ => 0,
    };
    let expected = model.play(step, slot);
    assert_eq!(
        answer.as_ref().map(by_recipient),
        expected.as_ref().map(by_recipient),
        "{step:?} at {:?}",
        model.now
    );
    driver.endpoint.assert_invariants();
    driver.reported.compare(&driver.endpoint);
    compare_states(driver, model, step);
    answer
}

fn compare_states(driver: &Driver, model: &EndpointModel, step: Step) {
    let endpoint = &driver.endpoint;
    assert_eq!(endpoint.phase(), model.phase(), "after {step:?}");
    assert_eq!(
        endpoint.sockets(),
        model.open().count() + model.closing().count(),
        "after {step:?}"
    );
    for (who, id) in &driver.ids {
        assert_eq!(endpoint.role(*id), model.role(*who), "of {who} after {step:?}");
    }
    let counters = endpoint.counters();
    assert_eq!(counters.hub, model.stats(), "after {step:?}");
    assert_eq!(
        (counters.received, counters.sent),
        (model.received, model.sent),
        "after {step:?}"
    );
    assert_eq!(
        (counters.backlog_bytes, counters.evicted),
        (model.backlog_bytes(), model.evicted),
        "after {step:?}"
    );
    let refused: u64 = counters.refused.iter().map(|(_, count)| count).sum();
    assert_eq!(refused, model.refused, "after {step:?}");
    for (stage, count) in PairingStage::ALL.iter().zip(counters.pairings) {
        let expected = model.pairings.get(stage.name());
        assert_eq!(count, expected.copied().unwrap_or_default(), "{stage:?} after {step:?}");
    }
    // No timer of a connection that is closed or gone wakes a driver.
    let next = endpoint.poll_timeout().map(Time::as_duration);
    assert_eq!(next, model.next_timeout(), "after {step:?}");
}

/// Returns the outputs of each connection, in order.
pub(crate) fn by_recipient(outputs: &Outputs) -> BTreeMap<usize, Vec<&str>> {
    let mut recipients: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (to, output) in outputs {
        recipients.entry(*to).or_default().push(output);
    }
    recipients
}

/// Asserts that nothing is sent to a connection after its last frame, and that nothing happens to it after it was aborted or disconnected.
pub(crate) fn assert_last_frame(record: &[Record]) {
    let (mut closed, mut gone) = (BTreeSet::new(), BTreeSet::new());
    for Record { step, answer, .. } in record {
        if let Step::Event {
            who,
            event: Event::Disconnected,
        } = step
        {
            gone.insert(*who);
        }
        for (to, output) in answer.iter().flatten() {
            let is_end_of_pairing = output.starts_with("ended-by");
            assert!(
                !gone.contains(to) || is_end_of_pairing,
                "{output:?} to {to} after its end"
            );
            if output == "abort" {
                assert!(closed.contains(to), "{to} is aborted without a close");
                gone.insert(*to);
            } else {
                assert!(!closed.contains(to), "{output:?} to {to} after its last frame");
            }
            if is_last(output) {
                closed.insert(*to);
            }
        }
    }
}

/// Whether an output is the last frame of its connection.
pub(crate) fn is_last(output: &str) -> bool {
    output.starts_with("close") || output.starts_with("reply")
}

/// Asserts that data from one sender to one recipient arrives once and in the order in which it was sent.
pub(crate) fn assert_order(record: &[Record]) {
    let mut latest: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for Record { answer, .. } in record {
        for (to, output) in answer.iter().flatten() {
            let Some(token) = token(output) else { continue };
            let Step::Event { who: sender, .. } = record[token - 1].step else {
                panic!("{output} was sent by nobody");
            };
            let before = latest.insert((sender, *to), token);
            assert!(before.is_none_or(|before| before < token), "{to} receives {output}");
        }
    }
}

fn token(output: &str) -> Option<usize> {
    let (_, token) = output.split_once(r#""token":"#)?;
    let end = token.find(|one: char| !one.is_ascii_digit())?;
    token[..end].parse().ok()
}

/// Returns the observable state of an endpoint.
pub(crate) fn state(driver: &Driver) -> (Stats, usize, Option<Time>, Phase, String) {
    let endpoint = &driver.endpoint;
    let counters = endpoint.counters();
    let counted = format!("{counters:?}");
    (
        counters.hub,
        endpoint.sockets(),
        endpoint.poll_timeout(),
        endpoint.phase(),
        counted,
    )
}
