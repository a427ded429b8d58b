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
    measure::latency::Latency,
    run::{
        admission::{self, Pairs},
        drive::Work,
        idle,
    },
};

/// Pairs that exchange without end.
#[derive(Debug)]
pub(crate) struct Exchange {
    pairs: Pairs,
    began: Vec<Instant>,
    offer: Vec<u8>,
    answer: Vec<u8>,
    /// No relayed message can be shorter.
    least: usize,
    window: Instant,
    /// Exchanges that were over since the window began.
    pub(crate) completed: u64,
    /// Latencies of exchanges that began in the window.
    pub(crate) latency: Latency,
    trouble: Option<Error>,
}

impl Exchange {
    /// Makes the pairs and lets each begin.
    pub(crate) fn start(engine: &mut Engine, count: usize) -> Result<Self, Error> {
        let offer = payload::offer();
        let answer = payload::answer(0);
        let mut exchange = Self {
            pairs: Pairs::establish(engine, count)?,
            began: vec![Instant::now(); count],
            least: offer.len().min(answer.len()),
            offer: frame::client_text(&offer),
            answer: frame::client_text(&answer),
            window: Instant::now(),
            completed: 0,
            latency: Latency::new()?,
            trouble: None,
        };
        for pair in 0..count {
            exchange.offer(engine.conns(), pair);
        }
        Ok(exchange)
    }

    /// Forgets what was measured so far.
    pub(crate) fn begin_window(&mut self) {
        self.completed = 0;
        self.latency.reset();
        self.window = Instant::now();
    }

    /// Counts an exchange that is still under way with what it has taken so far, if none took longer: a pair that
    /// is starved must not look like one that is quick.
    pub(crate) fn record_pending(&mut self) {
        for began in &self.began {
            let so_far = began.max(&self.window).elapsed();
            if so_far.as_secs_f64() * 1e6 > self.latency.quantile(1.0) {
                self.latency.record(so_far);
            }
        }
    }

    fn offer(&mut self, conns: &mut Connections, pair: usize) {
        self.began[pair] = Instant::now();
        conns.send(self.pairs.joiners[pair], &self.offer);
    }

    fn complete(&mut self, conns: &mut Connections, pair: usize) {
        self.completed += 1;
        let began = self.began[pair];
        if began >= self.window {
            self.latency.record(began.elapsed());
        }
        self.offer(conns, pair);
    }
}

impl Handler for Exchange {
    fn on_event(&mut self, conns: &mut Connections, id: ConnId, tag: u64, event: Event<'_>) {
        match event {
            Event::Message(_) if tag >= idle::FIRST_TAG => {
                self.trouble = Some(Error::new("an idle connection got a message"));
            }
            Event::Message(text) if text.len() < self.least => {
                self.trouble = Some(Error::new("a relayed message is too short"));
            }
            Event::Message(_) if tag % 2 == 0 => conns.send(id, &self.answer),
            Event::Message(_) => self.complete(conns, (tag / 2) as usize),
            Event::Close(code) => self.trouble = Some(admission::closed(code)),
            Event::Ended(ending) => {
                let ended = || Error::new(format!("a connection ended: {ending:?}"));
                self.trouble.get_or_insert_with(ended);
            }
            Event::Upgraded | Event::Pong(_) | Event::Drained => {}
        }
    }
}

impl Work for Exchange {
    fn trouble(&mut self) -> Option<Error> {
        self.trouble.take()
    }
}
