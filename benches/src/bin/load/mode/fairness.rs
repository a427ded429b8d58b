//! `fairness`: what a pair that does nothing wrong feels while another client does its worst.
//!
//! The pair exchanges in this process; the attacker is an agent, a process of lower priority on the same core, so
//! that the generator's own queues are not taken for the server's. How long this process still had to wait for its
//! core is among the figures.

use std::{fmt, time::Duration};

use clap::ValueEnum;
use sigver_benches::{engine::Engine, error::Error};

use crate::{
    agent::process::{Agent, Priority},
    measure::procfs,
    measure::report::{Metric, Sample},
    mode::exchange::Exchange,
    run::bench::{Bench, Setting},
    run::drive::drive,
    run::options::Common,
    run::servers::Server,
};

/// What the attacker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// A joiner sends small messages without end to its own opener, which reads them all.
    Flood,
    /// Eight such pairs.
    Floods,
    /// An opener sends empty pings without end.
    Pings,
    /// An opener begins a message and adds empty fragments to it without end.
    Fragments,
    /// A joiner sends 100 MB to its own opener, which reads nothing.
    Greedy,
}

impl Attack {
    /// All of them, in the order in which they are shown.
    pub(crate) const ALL: [Self; 5] = [Self::Flood, Self::Floods, Self::Pings, Self::Fragments, Self::Greedy];
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flood => "flood",
            Self::Floods => "floods",
            Self::Pings => "pings",
            Self::Fragments => "fragments",
            Self::Greedy => "greedy",
        })
    }
}

pub(crate) fn run(attacks: &[Attack], common: Common) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    let settings: Vec<Setting<Attack>> = attacks
        .iter()
        .enumerate()
        .map(|(place, &attack)| Setting {
            label: attack.to_string(),
            load: place as f64,
            value: attack,
        })
        .collect();
    bench.run("fairness", &settings, |&attack, server| measure(&bench, server, attack))?;
    Ok(())
}

fn measure(bench: &Bench, server: &Server, attack: Attack) -> Result<Sample, Error> {
    let mut engine = bench.engine(server)?;
    let mut bystander = Bystander::calm(bench, &mut engine)?;
    let memory = server.pid.map(|pid| {
        // Ignored: without it the peak is that of the whole run, which has been small so far.
        let _ = procfs::forget_peak_rss(pid);
        (pid, procfs::rss(pid))
    });

    let task = ["attack".to_owned(), format!("--kind={attack}")];
    let agent = Agent::start(&server.endpoint, Priority::Low, &task)?;
    bystander.wait_ready(&mut engine, &agent)?;
    bystander.window(&mut engine, "attacked", bench.time(), |_| Ok(false))?;
    let findings = agent.finish(AGENT_TIME)?;

    let mut sample = bystander.sample;
    if let Some((pid, before)) = memory {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let (before, peak, after) = (before?, procfs::peak_rss(pid)?, procfs::rss(pid)?);
        sample.push(Metric::absolute("server RSS before, MB", megabytes(before)));
        sample.push(Metric::absolute("server RSS peak, MB", megabytes(peak)));
        sample.push(Metric::absolute("server RSS after, MB", megabytes(after)));
    }
    sample.extend(findings.figures());
    Ok(sample)
}

/// One pair whose latency is watched, here and in `storm`.
#[derive(Debug)]
pub(crate) struct Bystander {
    exchange: Exchange,
    calm_p99: f64,
    pub(crate) sample: Sample,
}

impl Bystander {
    /// Makes the pair and measures what it feels when it is alone.
    pub(crate) fn calm(bench: &Bench, engine: &mut Engine) -> Result<Self, Error> {
        let mut bystander = Self {
            exchange: Exchange::start(engine, 1)?,
            calm_p99: 0.0,
            sample: Sample::new(),
        };
        drive(engine, &mut bystander.exchange, bench.warm_up(), |_, _| false)?;
        bystander.window(engine, "calm", bench.time(), |_| Ok(false))?;
        bystander.calm_p99 = bystander.exchange.latency.quantile(0.99);
        Ok(bystander)
    }

    /// Goes on exchanging until the agent is ready.
    pub(crate) fn wait_ready(&mut self, engine: &mut Engine, agent: &Agent) -> Result<(), Error> {
        self.window_of(engine, AGENT_TIME, |_| agent.is_ready())?
            .then_some(())
            .ok_or_else(|| Error::new("an agent is not ready in time"))
    }

    /// Measures for `time`, or until `done`, and adds what was felt to the sample.
    pub(crate) fn window(
        &mut self,
        engine: &mut Engine,
        name: &str,
        time: Duration,
        done: impl FnMut(&mut Exchange) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let delay_before = procfs::own_run_delay().ok();
        self.exchange.begin_window();
        self.window_of(engine, time, done)?;
        self.exchange.record_pending();
        let delay_after = procfs::own_run_delay().ok();

        let latency = &self.exchange.latency;
        latency.metrics(&mut self.sample, &format!("{name} "));
        if self.calm_p99 > 0.0 {
            let ratio = latency.quantile(0.99) / self.calm_p99;
            self.sample.push(Metric::absolute(format!("p99, {name} × calm"), ratio));
        }
        if let Some((before, after)) = delay_before.zip(delay_after) {
            let waited = (after - before).as_secs_f64() * 1e6;
            let each = waited / self.exchange.completed.max(1) as f64;
            let name = format!("{name}, generator's wait for its core, µs/exchange");
            self.sample.push(Metric::absolute(name, each));
        }
        Ok(())
    }

    fn window_of(
        &mut self,
        engine: &mut Engine,
        time: Duration,
        mut done: impl FnMut(&mut Exchange) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let mut failure = None;
        let over = drive(engine, &mut self.exchange, time, |exchange, _| {
            done(exchange).unwrap_or_else(|error| {
                failure = Some(error);
                true
            })
        })?;
        failure.map_or(Ok(over), Err)
    }
}

const AGENT_TIME: Duration = Duration::from_secs(20);
