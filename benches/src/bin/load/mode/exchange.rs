//! `exchange`: an offer of 1.2 KB from the joiner to the opener, an answer of 1.2 KB back, and again.
//!
//! A closed loop: a pair begins its next exchange when the last one is over, so there are always as many exchanges
//! under way as there are pairs. `mostly-idle` is the same beside connections that do nothing.

use std::time::Instant;

use sigver_benches::{
    engine::{ConnId, Connections, Engine, Event, Handler},
    error::Error,
    frame, payload,
};

use crate::{
    measure::meter::{Latency, Meter},
    measure::report::Sample,
    mode::idle,
    run::bench::{Bench, Setting},
    run::drive::{self, Pairs, Work, drive},
    run::options::Common,
    run::servers::Server,
};

pub(crate) fn run(pairs: &[usize], common: Common) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    bench.run("exchange", &Setting::counts(pairs, "pairs"), |&pairs, server| {
        measure(&bench, server, pairs, 0)
    })?;
    Ok(())
}

pub(crate) fn run_mostly_idle(idle: &[usize], pairs: usize, common: Common) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    let settings = Setting::counts(idle, &format!("idle beside {pairs} pairs"));
    bench.run("mostly-idle", &settings, |&idle, server| {
        measure(&bench, server, pairs, idle)
    })?;
    Ok(())
}

fn measure(bench: &Bench, server: &Server, pairs: usize, idle: usize) -> Result<Sample, Error> {
    let mut engine = bench.engine(server)?;
    idle::connect(&mut engine, idle, idle::Roles::Half)?;
    let mut exchange = Exchange::start(&mut engine, pairs)?;
    drive(&mut engine, &mut exchange, bench.warm_up(), |_, _| false)?;

    let mut meter = Meter::start(server.pid)?;
    exchange.begin_window();
    drive(&mut engine, &mut exchange, bench.time() / 2, |_, _| false)?;
    meter.observe();
    drive(&mut engine, &mut exchange, bench.time() / 2, |_, _| false)?;
    let usage = meter.stop()?;

    let mut sample = Sample::new();
    usage.metrics(&mut sample, "exchange", exchange.completed);
    exchange.latency.metrics(&mut sample, "");
    Ok(sample)
}

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
            Event::Close(code) => self.trouble = Some(drive::closed(code)),
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
