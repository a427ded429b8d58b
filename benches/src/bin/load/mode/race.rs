//! `race`: an opener and a joiner that send at the same moment.
//!
//! Each pair connects two clients of the plain protocol. When both handshakes are complete, the frames `open` and `join` are written to their
//! sockets, one right after the other. A server with a thread for each connection may read the join first. It should not refuse it: the open
//! was sent before. Busy threads take the processor away from the server.

use std::{
    hint,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sigver_benches::{
    engine::{
        connections::{Connections, Handler},
        event::{ConnId, Event},
    },
    error::Error,
    frame, payload,
};

use crate::{
    measure::{
        latency::LatencyHistogram,
        metric::{Metric, Sample},
    },
    run::{
        bench::{Bench, Setting},
        clients,
        drive::{Workload, drive},
        options::CommonOptions,
        servers::Server,
    },
};

/// Number of pairs, of pairs at the same time, and of busy threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RaceLoad {
    pub(crate) pairs: usize,
    pub(crate) at_once: usize,
    pub(crate) hogs: usize,
}

/// Runs the mode. Fails if a server, except for the yardstick, has refused a joiner.
pub(crate) fn run(load: RaceLoad, common: CommonOptions) -> Result<(), Error> {
    // Started first, because pinning affects only this thread and those that it starts later.
    let _hogs = Hogs::start(load.hogs);
    let bench = Bench::new(common)?;
    let settings = [Setting {
        label: format!(
            "{} pairs, {} at once, {} busy threads",
            load.pairs, load.at_once, load.hogs
        ),
        load: load.pairs as f64,
        value: load,
    }];
    let mut refused = 0;
    bench.run("race", &settings, |&load, server| {
        let race = measure(&bench, server, load)?;
        if !server.is_yardstick {
            refused += race.refused;
        }
        Ok(race.into_sample())
    })?;
    if refused > 0 {
        return Err(Error::new(format!("{refused} joiners were refused")));
    }
    println!("no joiner was refused");
    Ok(())
}

fn measure(bench: &Bench, server: &Server, load: RaceLoad) -> Result<Race, Error> {
    let mut engine = bench.engine(server)?;
    let mut race = Race {
        pairs: Vec::with_capacity(load.pairs),
        keys: clients::unique_keys(load.pairs),
        finished: 0,
        refused: 0,
        latency: LatencyHistogram::new()?,
        error: None,
    };
    let all = drive(&mut engine, &mut race, TIMEOUT, |race, conns| {
        while race.error.is_none() && race.pairs.len() < load.pairs && race.pairs.len() - race.finished < load.at_once {
            race.connect(conns);
        }
        race.finished == load.pairs
    })?;
    if all {
        return Ok(race);
    }
    Err(Error::new(format!(
        "only {} of {} pairs finished after {} s",
        race.finished,
        load.pairs,
        TIMEOUT.as_secs()
    )))
}

/// Opener `n` has the tag `2 * n`, its joiner the tag `2 * n + 1`.
#[derive(Debug)]
struct Race {
    pairs: Vec<Pair>,
    keys: Vec<String>,
    finished: usize,
    refused: u64,
    latency: LatencyHistogram,
    error: Option<Error>,
}

#[derive(Debug)]
struct Pair {
    opener: ConnId,
    joiner: ConnId,
    upgraded: usize,
    sent_at: Option<Instant>,
    is_finished: bool,
}

impl Race {
    fn connect(&mut self, conns: &mut Connections) {
        let tag = 2 * self.pairs.len() as u64;
        match conns
            .connect(tag)
            .and_then(|opener| Ok((opener, conns.connect(tag + 1)?)))
        {
            Ok((opener, joiner)) => self.pairs.push(Pair {
                opener,
                joiner,
                upgraded: 0,
                sent_at: None,
                is_finished: false,
            }),
            Err(error) => self.error = Some(error.into()),
        }
    }

    fn finish(&mut self, number: usize, conns: &mut Connections) {
        let pair = &mut self.pairs[number];
        if !pair.is_finished {
            pair.is_finished = true;
            self.finished += 1;
            conns.close(pair.joiner, NORMAL);
            conns.close(pair.opener, NORMAL);
        }
    }

    fn into_sample(self) -> Sample {
        let mut sample = vec![
            Metric::absolute("pairs", self.pairs.len() as f64),
            Metric::absolute("refused", self.refused as f64),
        ];
        self.latency.push_metrics(&mut sample, "open to notice ");
        sample
    }
}

impl Handler for Race {
    fn on_event(&mut self, conns: &mut Connections, _: ConnId, tag: u64, event: Event<'_>) {
        let number = (tag / 2) as usize;
        let pair = &mut self.pairs[number];
        match event {
            Event::Upgraded => {
                pair.upgraded += 1;
                if pair.upgraded == 2 {
                    let key = &self.keys[number];
                    let [open, join] = [payload::open, payload::join].map(|message| frame::client_text(&message(key)));
                    pair.sent_at = Some(Instant::now());
                    conns.send(pair.opener, &open);
                    conns.send(pair.joiner, &join);
                }
            }
            Event::Message(_) => {
                if let Some(sent_at) = pair.sent_at.take() {
                    self.latency.record(sent_at.elapsed());
                }
                self.finish(number, conns);
            }
            // Closed by the server before the pair was complete.
            Event::Close(_) if !pair.is_finished && tag % 2 == 1 => {
                self.refused += 1;
                self.finish(number, conns);
            }
            Event::Close(code) if !pair.is_finished => self.error = Some(clients::closed_by_server(code)),
            Event::Disconnected(reason) if !pair.is_finished => {
                self.error = Some(Error::new(format!("connection closed: {reason:?}")));
            }
            Event::Close(_) | Event::Disconnected(_) | Event::Pong(_) | Event::Drained => {}
        }
    }
}

impl Workload for Race {
    fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }
}

/// Threads that keep the processor busy until they are dropped.
struct Hogs(Arc<AtomicBool>);

impl Hogs {
    fn start(count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..count {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    hint::spin_loop();
                }
            });
        }
        Self(stop)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const NORMAL: u16 = 1000;

const TIMEOUT: Duration = Duration::from_secs(300);
