//! The two halves of `many`: openers in one process, their joiners in another.
//!
//! A payload is a function of its stream and number, so each half can compute what the other one sends.

use std::time::{Duration, Instant};

use sigver_benches::{
    delivery::{DeliveryChecker, DeliveryCounts},
    engine::{
        Engine,
        connections::{Connections, Handler},
        event::{ConnId, Event},
    },
    error::Error,
    frame,
    payload::{self, Side, SizeRange, Stream},
};

use crate::{
    agent::{parent::ParentLink, result::AgentResult},
    run::{
        clients::{self, ClientSpec, connect_clients},
        drive::{Workload, drive},
    },
};

/// Options of one half.
#[derive(Debug, clap::Args)]
pub(crate) struct HalfOptions {
    /// Prefix of all keys.
    #[arg(long)]
    prefix: String,
    /// Number of connections.
    #[arg(long)]
    count: u32,
    /// Payloads in each direction of each pair.
    #[arg(long)]
    messages: u32,
}

pub(super) fn run_openers(
    engine: &mut Engine,
    parent: &ParentLink,
    options: &HalfOptions,
) -> Result<AgentResult, Error> {
    let began = Instant::now();
    let conns = connect_clients(engine, &client_specs(options, payload::open), 0)?;
    let took = began.elapsed();
    parent.report_ready();
    let mut half = HalfWorkload::new(options, Side::Opener, conns);
    drive(engine, &mut half, HOLD_TIMEOUT, |_, _| parent.stop_requested())?;
    // The last payloads may still be in transit.
    drive(engine, &mut half, LATE_ARRIVAL_WAIT, |half, _| half.is_complete())?;
    Ok(half.result(took))
}

pub(super) fn run_joiners(
    engine: &mut Engine,
    parent: &ParentLink,
    options: &HalfOptions,
) -> Result<AgentResult, Error> {
    let began = Instant::now();
    let conns = connect_clients(engine, &client_specs(options, payload::join), 0)?;
    let took = began.elapsed();
    parent.report_ready();
    let mut half = HalfWorkload::new(options, Side::Joiner, conns);
    let woken = |_: &mut HalfWorkload, _: &mut Connections| parent.start_requested() || parent.stop_requested();
    drive(engine, &mut half, RELAY_TIMEOUT, woken)?;
    let began = Instant::now();
    for pair in 0..options.count {
        half.send(engine.conns(), pair);
    }
    drive(engine, &mut half, RELAY_TIMEOUT, |half, _| half.is_complete())?;
    let relaying = began.elapsed();
    let mut result = half.result(took);
    result.push("relaying, s", relaying.as_secs_f64());
    parent.report_ready();
    // The connections stay open while the parent reads the memory of the server.
    drive(engine, &mut half, HOLD_TIMEOUT, |_, _| parent.stop_requested())?;
    Ok(result)
}

#[derive(Debug)]
struct HalfWorkload {
    side: Side,
    conns: Vec<ConnId>,
    checkers: Vec<DeliveryChecker>,
    /// Payloads sent, by pair.
    sent: Vec<u32>,
    messages: u32,
    received: u64,
    counts: DeliveryCounts,
    error: Option<Error>,
}

impl HalfWorkload {
    fn new(options: &HalfOptions, side: Side, conns: Vec<ConnId>) -> Self {
        let other = match side {
            Side::Opener => Side::Joiner,
            Side::Joiner => Side::Opener,
        };
        let checker = |pair| DeliveryChecker::new([stream(pair, other)], PAYLOAD_SIZES);
        Self {
            side,
            sent: vec![0; conns.len()],
            conns,
            checkers: (0..options.count).map(checker).collect(),
            messages: options.messages,
            received: 0,
            counts: DeliveryCounts::default(),
            error: None,
        }
    }

    fn send(&mut self, conns: &mut Connections, pair: u32) {
        let place = pair as usize;
        if self.sent[place] < self.messages {
            let text = payload::build(stream(pair, self.side), self.sent[place], PAYLOAD_SIZES);
            self.sent[place] += 1;
            conns.send(self.conns[place], &frame::client_text(&text));
        }
    }

    fn is_complete(&self) -> bool {
        self.received == u64::from(self.messages) * self.conns.len() as u64
    }

    fn result(&mut self, setup: Duration) -> AgentResult {
        for checker in &self.checkers {
            checker.finish(self.messages, &mut self.counts);
        }
        let mut result = AgentResult::default();
        result.push("setup, s", setup.as_secs_f64());
        for (name, count) in self.counts.by_name() {
            result.push(name, count as f64);
        }
        result
    }
}

impl Handler for HalfWorkload {
    fn on_event(&mut self, conns: &mut Connections, _: ConnId, tag: u64, event: Event<'_>) {
        match event {
            // The join notice.
            Event::Message(text) if text == payload::JOINED => {}
            Event::Message(text) => {
                self.received += 1;
                let checker = &mut self.checkers[tag as usize];
                if let Some(stream) = checker.receive(text, &mut self.counts) {
                    self.send(conns, stream.key);
                }
            }
            Event::Close(code) => self.error = Some(clients::closed_by_server(code)),
            Event::Disconnected(reason) => {
                let closed = || Error::new(format!("connection closed: {reason:?}"));
                self.error.get_or_insert_with(closed);
            }
            Event::Upgraded | Event::Pong(_) | Event::Drained => {}
        }
    }
}

impl Workload for HalfWorkload {
    fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }
}

fn client_specs(options: &HalfOptions, role: fn(&str) -> Vec<u8>) -> Vec<ClientSpec> {
    let client = |pair| ClientSpec {
        tag: u64::from(pair),
        first_message: role(&format!("{}-{pair}", options.prefix)),
    };
    (0..options.count).map(client).collect()
}

/// Returns the stream of a pair. Each key has one joiner, with index 0.
fn stream(pair: u32, from: Side) -> Stream {
    Stream {
        key: pair,
        joiner: 0,
        from,
    }
}

const PAYLOAD_SIZES: SizeRange = SizeRange { min: 100, max: 4_000 };

const RELAY_TIMEOUT: Duration = Duration::from_secs(120);

/// Longer than the timeouts of setup and relaying in the other half.
const HOLD_TIMEOUT: Duration = Duration::from_secs(400);
const LATE_ARRIVAL_WAIT: Duration = Duration::from_secs(2);
