//! `fairness`: what a pair that does nothing wrong feels while another client does its worst.
//!
//! The pair exchanges in this process; the attacker is an agent, a process of lower priority on the same core, so
//! that the generator's own queues are not taken for the server's. How long this process still had to wait for its
//! core is among the figures.

use std::time::Duration;

use sigver_benches::error::Error;

use crate::{
    agent::{
        attack::Attack,
        process::{Agent, Priority},
    },
    measure::{
        metric::{Metric, Sample},
        procfs,
    },
    mode::bystander::Bystander,
    run::{
        bench::{Bench, Setting},
        options::Common,
        servers::Server,
    },
};

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

const AGENT_TIME: Duration = Duration::from_secs(20);
