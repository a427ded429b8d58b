//! A pair whose latency is measured while other clients load the server.

use sigver_benches::{engine::Engine, error::Error};
use std::time::Duration;

use crate::{
    agent::process::AgentProcess,
    measure::{
        metric::{Metric, Sample},
        procfs,
    },
    run::{bench::Bench, drive::drive, exchange::ExchangeLoop},
};

/// A pair in a closed loop, with its latencies.
#[derive(Debug)]
pub(crate) struct Bystander {
    exchange: ExchangeLoop,
    baseline_p99: f64,
    pub(crate) sample: Sample,
}

impl Bystander {
    /// Connects the pair and measures its latency without other load.
    pub(crate) fn measure_baseline(bench: &Bench, engine: &mut Engine) -> Result<Self, Error> {
        let mut bystander = Self {
            exchange: ExchangeLoop::start(engine, 1)?,
            baseline_p99: 0.0,
            sample: Sample::new(),
        };
        drive(engine, &mut bystander.exchange, bench.warm_up(), |_, _| false)?;
        bystander.measure_window(engine, "baseline", bench.duration(), |_| Ok(false))?;
        bystander.exchange.require_completed()?;
        bystander.baseline_p99 = bystander.exchange.latency.quantile(0.99);
        Ok(bystander)
    }

    /// Keeps exchanging until the agent is ready.
    pub(crate) fn wait_ready(&mut self, engine: &mut Engine, agent: &AgentProcess) -> Result<(), Error> {
        self.drive_until(engine, AGENT_TIMEOUT, |_| agent.poll_ready())?
            .then_some(())
            .ok_or_else(|| Error::new("agent not ready in time"))
    }

    /// Measures for `duration`, or until `done` returns true, and appends the metrics to the sample.
    pub(crate) fn measure_window(
        &mut self,
        engine: &mut Engine,
        name: &str,
        duration: Duration,
        done: impl FnMut(&mut ExchangeLoop) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let delay_before = procfs::own_run_delay().ok();
        self.exchange.start_window();
        self.drive_until(engine, duration, done)?;
        self.exchange.record_pending();
        let delay_after = procfs::own_run_delay().ok();

        let latency = &self.exchange.latency;
        latency.push_metrics(&mut self.sample, &format!("{name} "));
        if self.baseline_p99 > 0.0 {
            let ratio = latency.quantile(0.99) / self.baseline_p99;
            self.sample
                .push(Metric::absolute(format!("p99, {name} × baseline"), ratio));
        }
        if let Some((before, after)) = delay_before.zip(delay_after) {
            let waited = (after - before).as_secs_f64() * 1e6;
            let each = waited / self.exchange.completed.max(1) as f64;
            let name = format!("{name}, run-queue delay of generator, µs/exchange");
            self.sample.push(Metric::absolute(name, each));
        }
        Ok(())
    }

    fn drive_until(
        &mut self,
        engine: &mut Engine,
        duration: Duration,
        mut done: impl FnMut(&mut ExchangeLoop) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let mut failure = None;
        let over = drive(engine, &mut self.exchange, duration, |exchange, _| {
            done(exchange).unwrap_or_else(|error| {
                failure = Some(error);
                true
            })
        })?;
        failure.map_or(Ok(over), Err)
    }
}

const AGENT_TIMEOUT: Duration = Duration::from_secs(20);
