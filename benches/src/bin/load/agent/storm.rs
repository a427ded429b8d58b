//! The storm: connects of all clients at once, as after a server's restart.

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
    agent::{findings::Findings, parent::Parent},
    measure::latency::Latency,
    run::admission,
};

pub(super) fn run(engine: &mut Engine, parent: &Parent, connections: usize) -> Result<Findings, Error> {
    parent.tell_ready();
    let mut storm = Storm {
        keys: admission::keys(connections),
        began: Vec::with_capacity(connections),
        latency: Latency::new()?,
        inside: 0,
        refused: 0,
    };
    let began = Instant::now();
    for number in 0..connections {
        storm.began.push(Instant::now());
        engine.conns().connect(number as u64)?;
        if number % BETWEEN == 0 {
            engine.poll(Duration::ZERO, &mut storm)?;
        }
    }
    let called = began.elapsed();
    while storm.inside + storm.refused < connections && began.elapsed() < PATIENCE && !parent.says_end() {
        engine.poll(TICK, &mut storm)?;
    }
    let took = began.elapsed();
    let mut findings = Findings::default();
    for (name, figure) in [
        ("connects called within, s", called.as_secs_f64()),
        ("all inside after, s", took.as_secs_f64()),
        ("inside", storm.inside as f64),
        ("refused", storm.refused as f64),
        ("a client's wait, p50, ms", storm.latency.quantile(0.5) / 1e3),
        ("a client's wait, p99, ms", storm.latency.quantile(0.99) / 1e3),
        ("a client's wait, max, ms", storm.latency.quantile(1.0) / 1e3),
    ] {
        findings.add(name, figure);
    }
    Ok(findings)
}

#[derive(Debug)]
struct Storm {
    keys: Vec<String>,
    began: Vec<Instant>,
    /// From the connect to the pong behind the open.
    latency: Latency,
    inside: usize,
    refused: usize,
}

impl Handler for Storm {
    fn on_event(&mut self, conns: &mut Connections, id: ConnId, tag: u64, event: Event<'_>) {
        let number = tag as usize;
        match event {
            Event::Upgraded => {
                let mut frames = frame::client_text(&payload::open(&self.keys[number]));
                frame::push_client_frame(&mut frames, Opcode::Ping, b"");
                conns.send(id, &frames);
            }
            Event::Pong(_) => {
                self.inside += 1;
                self.latency.record(self.began[number].elapsed());
            }
            Event::Ended(_) => self.refused += 1,
            Event::Close(_) | Event::Drained | Event::Message(_) => {}
        }
    }
}

const TICK: Duration = Duration::from_millis(20);

/// After so many connects the answers that have come are read.
const BETWEEN: usize = 64;

const PATIENCE: Duration = Duration::from_secs(60);
