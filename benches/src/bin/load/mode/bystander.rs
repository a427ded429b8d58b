//! A pair whose latency is watched while others load the server.

use sigver_benches::{engine::Engine, error::Error};
use std::time::Duration;

use crate::{
    agent::process::Agent,
    measure::{
        metric::{Metric, Sample},
        procfs,
    },
    run::{bench::Bench, drive::drive, exchange::Exchange},
};

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
