//! A connection storm: all clients connect at once, as after a restart of the server.

use std::time::{Duration, Instant};

use sigver_benches::{
    engine::{
        Engine,
        connections::{Connections, Handler},
        event::{ConnId, Event},
    },
    error::Error,
    frame::{self, Opcode},
    payload,
};

use crate::{
    agent::{parent::ParentLink, result::AgentResult},
    measure::latency::LatencyHistogram,
    run::clients,
};

pub(super) fn run(engine: &mut Engine, parent: &ParentLink, connections: usize) -> Result<AgentResult, Error> {
    parent.report_ready();
    let mut storm = StormWorkload {
        keys: clients::unique_keys(connections),
        began: Vec::with_capacity(connections),
        latency: LatencyHistogram::new()?,
        served: 0,
        refused: 0,
    };
    let began = Instant::now();
    for number in 0..connections {
        storm.began.push(Instant::now());
        engine.conns().connect(number as u64)?;
        if number % POLL_EVERY == 0 {
            engine.poll(Duration::ZERO, &mut storm)?;
        }
    }
    let called = began.elapsed();
    while storm.served + storm.refused < connections && began.elapsed() < SERVE_TIMEOUT && !parent.stop_requested() {
        engine.poll(POLL_INTERVAL, &mut storm)?;
    }
    let took = began.elapsed();
    let mut result = AgentResult::default();
    for (name, figure) in [
        ("connect calls within, s", called.as_secs_f64()),
        ("all served after, s", took.as_secs_f64()),
        ("served", storm.served as f64),
        ("refused", storm.refused as f64),
        ("client wait, p50, ms", storm.latency.quantile(0.5) / 1e3),
        ("client wait, p99, ms", storm.latency.quantile(0.99) / 1e3),
        ("client wait, max, ms", storm.latency.quantile(1.0) / 1e3),
    ] {
        result.push(name, figure);
    }
    Ok(result)
}

#[derive(Debug)]
struct StormWorkload {
    keys: Vec<String>,
    began: Vec<Instant>,
    /// From connect to the pong of the ping that follows the open.
    latency: LatencyHistogram,
    served: usize,
    refused: usize,
}

impl Handler for StormWorkload {
    fn on_event(&mut self, conns: &mut Connections, id: ConnId, tag: u64, event: Event<'_>) {
        let number = tag as usize;
        match event {
            Event::Upgraded => {
                let mut frames = frame::client_text(&payload::open(&self.keys[number]));
                frame::push_client_frame(&mut frames, Opcode::Ping, b"");
                conns.send(id, &frames);
            }
            Event::Pong(_) => {
                self.served += 1;
                self.latency.record(self.began[number].elapsed());
            }
            Event::Disconnected(_) => self.refused += 1,
            Event::Close(_) | Event::Drained | Event::Message(_) => {}
        }
    }
}

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Number of connects between two polls.
const POLL_EVERY: usize = 64;

const SERVE_TIMEOUT: Duration = Duration::from_secs(60);
