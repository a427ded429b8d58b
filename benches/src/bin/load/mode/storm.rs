//! `storm`: a connection storm, and the latency of an established pair during it.
//!
//! The clients run in an agent, as in `fairness`.

use std::time::Duration;

use sigver_benches::error::Error;

use crate::{
    agent::process::{AgentProcess, Priority},
    measure::metric::{Metric, Sample},
    mode::bystander::Bystander,
    run::{
        bench::{Bench, Setting},
        options::CommonOptions,
        servers::Server,
    },
};

pub(crate) fn run(connections: &[usize], common: CommonOptions) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    let settings = Setting::counts(connections, "connections");
    bench.run("storm", &settings, |&connections, server| {
        measure(&bench, server, connections)
    })?;
    Ok(())
}

fn measure(bench: &Bench, server: &Server, connections: usize) -> Result<Sample, Error> {
    let mut engine = bench.engine(server)?;
    let mut bystander = Bystander::measure_baseline(bench, &mut engine)?;
    let task = ["storm".to_owned(), format!("--connections={connections}")];
    let agent = AgentProcess::start(&server.endpoint, Priority::Low, &task)?;
    bystander.wait_ready(&mut engine, &agent)?;
    let mut result = None;
    bystander.measure_window(&mut engine, "during storm", STORM_TIMEOUT, |_| {
        if result.is_none() {
            result = agent.poll_result()?;
        }
        Ok(result.is_some())
    })?;
    let mut result = result.ok_or_else(|| Error::new("connection storm not served in time"))?;
    // The only result of the agent that is compared between servers.
    let name = "all served after, s";
    let mut sample = vec![Metric::new(name, result.take(name)?)];
    sample.extend(result.into_sample());
    sample.extend(bystander.sample);
    Ok(sample)
}

const STORM_TIMEOUT: Duration = Duration::from_secs(70);
