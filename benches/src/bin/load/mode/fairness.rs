//! `fairness`: the latency of a legitimate pair while another client attacks the server.
//!
//! The pair runs in this process. The attacker is an agent, a process of lower priority on the same core, so that
//! queueing in the generator is not measured as latency of the server. The run-queue delay of this process is reported.

use std::time::Duration;

use sigver_benches::error::Error;

use crate::{
    agent::{
        attack::Attack,
        process::{AgentProcess, Priority},
    },
    measure::{
        metric::{Metric, Sample},
        procfs,
    },
    mode::bystander::Bystander,
    run::{
        bench::{Bench, Setting},
        options::CommonOptions,
        servers::Server,
    },
};

pub(crate) fn run(attacks: &[Attack], common: CommonOptions) -> Result<(), Error> {
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
    let mut bystander = Bystander::measure_baseline(bench, &mut engine)?;
    let memory = server.pid.map(|pid| {
        // Ignored: without the reset the peak covers the whole run, whose earlier part is small.
        let _ = procfs::reset_peak_rss(pid);
        (pid, procfs::rss(pid))
    });

    let task = ["attack".to_owned(), format!("--kind={attack}")];
    let agent = AgentProcess::start(&server.endpoint, Priority::Low, &task)?;
    bystander.wait_ready(&mut engine, &agent)?;
    bystander.measure_window(&mut engine, "attacked", bench.duration(), |_| Ok(false))?;
    let result = agent.stop(AGENT_TIMEOUT)?;

    let mut sample = bystander.sample;
    if let Some((pid, before)) = memory {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let (before, peak, after) = (before?, procfs::peak_rss(pid)?, procfs::rss(pid)?);
        sample.push(Metric::absolute("server RSS before, MB", megabytes(before)));
        sample.push(Metric::absolute("server RSS peak, MB", megabytes(peak)));
        sample.push(Metric::absolute("server RSS after, MB", megabytes(after)));
    }
    sample.extend(result.into_sample());
    Ok(sample)
}

const AGENT_TIMEOUT: Duration = Duration::from_secs(20);
