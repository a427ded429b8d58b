//! The flood of `shares`: one joiner that sends as fast as it can.

use std::time::{Duration, Instant};

use sigver_benches::{
    engine::{
        Engine,
        connections::{Connections, Handler},
        event::{ConnId, Event},
    },
    error::Error,
    frame, payload,
};

use crate::{
    agent::{parent::ParentLink, result::AgentResult},
    run::clients::{ClientSpec, connect_clients},
};

pub(super) fn run(
    engine: &mut Engine,
    parent: &ParentLink,
    key: &str,
    message_len: usize,
) -> Result<AgentResult, Error> {
    let joiner = ClientSpec {
        tag: 0,
        first_message: payload::join(key),
    };
    let ids = connect_clients(engine, &[joiner], 0)?;
    parent.report_ready();
    let message = frame::client_text(&payload::filler(message_len));
    let mut state = FloodState { is_disconnected: false };
    let mut sent: usize = 0;
    let began = Instant::now();
    while !parent.stop_requested() && !state.is_disconnected {
        let mut wait = POLL_INTERVAL;
        for &id in &ids {
            if engine.conns().backlog(id) == 0 {
                engine.conns().send(id, &message);
                sent += message.len();
                wait = Duration::ZERO;
            }
        }
        engine.poll(wait, &mut state)?;
    }
    let queued: usize = ids.iter().map(|&id| engine.conns().backlog(id)).sum();
    let mut result = AgentResult::default();
    let rate = (sent - queued) as f64 / 1e6 / began.elapsed().as_secs_f64();
    result.push("flood, MB/s", rate);
    result.push(
        "flooding joiner disconnected",
        f64::from(u8::from(state.is_disconnected)),
    );
    Ok(result)
}

#[derive(Debug)]
struct FloodState {
    is_disconnected: bool,
}

impl Handler for FloodState {
    fn on_event(&mut self, _: &mut Connections, _: ConnId, _: u64, event: Event<'_>) {
        self.is_disconnected |= matches!(event, Event::Disconnected(_));
    }
}

const POLL_INTERVAL: Duration = Duration::from_millis(20);
