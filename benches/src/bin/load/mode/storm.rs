//! `storm`: ten thousand clients that come at once, and what a pair feels that was there before.
//!
//! The clients are an agent's, as in `fairness`.

use std::time::Duration;

use sigver_benches::error::Error;

use crate::{
    agent::process::{Agent, Priority},
    measure::metric::{Metric, Sample},
    mode::bystander::Bystander,
    run::{
        bench::{Bench, Setting},
        options::Common,
        servers::Server,
    },
};

pub(crate) fn run(connections: &[usize], common: Common) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    let settings = Setting::counts(connections, "connections");
    bench.run("storm", &settings, |&connections, server| {
        measure(&bench, server, connections)
    })?;
    Ok(())
}

fn measure(bench: &Bench, server: &Server, connections: usize) -> Result<Sample, Error> {
    let mut engine = bench.engine(server)?;
    let mut bystander = Bystander::calm(bench, &mut engine)?;
    let task = ["storm".to_owned(), format!("--connections={connections}")];
    let agent = Agent::start(&server.endpoint, Priority::Low, &task)?;
    bystander.wait_ready(&mut engine, &agent)?;
    let mut findings = None;
    bystander.window(&mut engine, "in the storm", STORM_TIME, |_| {
        if findings.is_none() {
            findings = agent.try_result()?;
        }
        Ok(findings.is_some())
    })?;
    let mut findings = findings.ok_or_else(|| Error::new("the storm did not end in time"))?;
    // The one figure of the agent's that is worth a ratio.
    let name = "all inside after, s";
    let mut sample = vec![Metric::new(name, findings.take(name)?)];
    sample.extend(findings.figures());
    sample.extend(bystander.sample);
    Ok(sample)
}

const STORM_TIME: Duration = Duration::from_secs(70);
