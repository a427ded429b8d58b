//! Pairs that exchange an offer and an answer in a closed loop.

use sigver_benches::{
    engine::{
        Engine,
        connections::{Connections, Handler},
        event::{ConnId, Event},
    },
    error::Error,
    frame, payload,
};
use std::time::Instant;

use crate::{
    measure::latency::LatencyHistogram,
    run::{
        clients::{self, Pairs},
        drive::Workload,
        idle,
    },
};

/// Pairs in a closed loop: each one starts its next exchange when the last one is complete.
#[derive(Debug)]
pub(crate) struct ExchangeLoop {
    pairs: Pairs,
    began: Vec<Instant>,
    offer: Vec<u8>,
    answer: Vec<u8>,
    /// Minimum length of a relayed message.
    min_len: usize,
    window_start: Instant,
    /// Exchanges completed in the current window.
    pub(crate) completed: u64,
    /// Latencies of exchanges that began in the current window.
    pub(crate) latency: LatencyHistogram,
    error: Option<Error>,
}

impl ExchangeLoop {
    /// Connects the pairs and starts an exchange on each.
    pub(crate) fn start(engine: &mut Engine, count: usize) -> Result<Self, Error> {
        let offer = payload::offer();
        let answer = payload::answer(0);
        let mut exchange = Self {
            pairs: Pairs::connect(engine, count)?,
            began: vec![Instant::now(); count],
            min_len: offer.len().min(answer.len()),
            offer: frame::client_text(&offer),
            answer: frame::client_text(&answer),
            window_start: Instant::now(),
            completed: 0,
            latency: LatencyHistogram::new()?,
            error: None,
        };
        for pair in 0..count {
            exchange.offer(engine.conns(), pair);
        }
        Ok(exchange)
    }

    /// Starts a new window: resets the counter and the latencies.
    pub(crate) fn start_window(&mut self) {
        self.completed = 0;
        self.latency.reset();
        self.window_start = Instant::now();
    }

    /// Records the time so far of the pending exchanges.
    pub(crate) fn record_pending(&mut self) {
        for began in &self.began {
            self.latency.record_pending(began.max(&self.window_start).elapsed());
        }
    }

    /// Fails if no exchange was completed in the current window, in which case there is nothing to compare.
    pub(crate) fn require_completed(&self) -> Result<(), Error> {
        if self.completed > 0 {
            return Ok(());
        }
        let seconds = self.window_start.elapsed().as_secs_f64();
        Err(Error::new(format!("no exchange completed in {seconds:.1} s")))
    }

    fn offer(&mut self, conns: &mut Connections, pair: usize) {
        self.began[pair] = Instant::now();
        conns.send(self.pairs.joiners[pair], &self.offer);
    }

    fn complete(&mut self, conns: &mut Connections, pair: usize) {
        self.completed += 1;
        let began = self.began[pair];
        if began >= self.window_start {
            self.latency.record(began.elapsed());
        }
        self.offer(conns, pair);
    }
}

impl Handler for ExchangeLoop {
    fn on_event(&mut self, conns: &mut Connections, id: ConnId, tag: u64, event: Event<'_>) {
        match event {
            Event::Message(_) if tag >= idle::FIRST_IDLE_TAG => {
                self.error = Some(Error::new("idle connection received a message"));
            }
            Event::Message(text) if text.len() < self.min_len => {
                self.error = Some(Error::new("relayed message too short"));
            }
            Event::Message(_) if tag.is_multiple_of(2) => conns.send(id, &self.answer),
            Event::Message(_) => self.complete(conns, (tag / 2) as usize),
            Event::Close(code) => self.error = Some(clients::closed_by_server(code)),
            Event::Disconnected(reason) => {
                let closed = || Error::new(format!("connection closed: {reason:?}"));
                self.error.get_or_insert_with(closed);
            }
            Event::Upgraded | Event::Pong(_) | Event::Drained => {}
        }
    }
}

impl Workload for ExchangeLoop {
    fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }
}
