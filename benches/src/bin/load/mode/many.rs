//! `many`: thousands of pairs that relay concurrently, with openers and joiners in separate processes.
//!
//! The receiver compares each payload byte for byte. The run fails if a payload is lost, changed, duplicated or reordered.

use std::{thread, time::Duration};

use sigver_benches::{delivery::DeliveryCounts, error::Error};

use crate::{
    agent::process::{AgentProcess, Priority},
    measure::{
        delivery,
        metric::{Metric, Sample},
        procfs,
    },
    run::{
        bench::{Bench, Setting},
        clients,
        options::CommonOptions,
        servers::Server,
    },
};

/// Number of pairs and payloads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ManyLoad {
    pub(crate) pairs: u32,
    pub(crate) messages: u32,
}

/// Runs the mode. Fails if a payload was not delivered correctly.
pub(crate) fn run(load: ManyLoad, common: CommonOptions) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    let settings = [Setting {
        label: format!("{} pairs, {} payloads each way", load.pairs, load.messages),
        load: f64::from(load.pairs),
        value: load,
    }];
    let mut failed_runs = 0;
    bench.run("many", &settings, |&load, server| {
        let (sample, counts) = measure(&bench, server, load)?;
        failed_runs += u32::from(!counts.is_clean());
        Ok(sample)
    })?;
    delivery::require_clean(failed_runs)
}

fn measure(bench: &Bench, server: &Server, load: ManyLoad) -> Result<(Sample, DeliveryCounts), Error> {
    let prefix = clients::unique_prefix();
    let task = |name: &str| {
        [
            name.to_owned(),
            format!("--prefix={prefix}"),
            format!("--count={}", load.pairs),
            format!("--messages={}", load.messages),
        ]
    };
    let before = server.pid.map(procfs::pss).transpose()?;
    let openers = AgentProcess::start(&server.endpoint, Priority::Normal, &task("openers"))?;
    openers.wait_ready(bench, SETUP_TIMEOUT)?;
    let mut joiners = AgentProcess::start(&server.endpoint, Priority::Normal, &task("joiners"))?;
    joiners.wait_ready(bench, SETUP_TIMEOUT)?;
    thread::sleep(MEMORY_SETTLE_TIME);
    let idle = server.pid.map(procfs::pss).transpose()?;
    joiners.start_work()?;
    joiners.wait_ready(bench, RELAY_TIMEOUT)?;
    let used = server.pid.map(procfs::pss).transpose()?;
    // Joiners stop first: if openers left first, the server would close the joiners.
    let mut joiners = joiners.stop(STOP_TIMEOUT)?;
    let mut openers = openers.stop(STOP_TIMEOUT)?;

    let pairs = f64::from(load.pairs);
    let connections = 2.0 * pairs;
    let relays = connections * f64::from(load.messages);
    let mut sample = vec![
        Metric::new("openers connected/s", pairs / openers.take("setup, s")?),
        Metric::new("joiners connected/s", pairs / joiners.take("setup, s")?),
        Metric::new("relays/s, payloads checked", relays / joiners.take("relaying, s")?),
    ];
    for (name, now) in [
        ("server PSS, idle, B/connection", idle),
        ("server PSS, after relaying, B/connection", used),
    ] {
        if let Some((before, now)) = before.zip(now) {
            let each = (now as f64 - before as f64) / connections;
            sample.push(Metric::new(name, each));
        }
    }
    let mut sum = |name: &str| {
        let sum = openers.take(name)? + joiners.take(name)?;
        Ok::<_, Error>(sum as u64)
    };
    let counts = DeliveryCounts {
        delivered: sum("delivered")?,
        lost: sum("lost")?,
        reordered: sum("reordered")?,
        duplicated: sum("duplicated")?,
        misdelivered: sum("misdelivered")?,
        corrupted: sum("corrupted")?,
    };
    sample.extend(delivery::metrics(&counts));
    Ok((sample, counts))
}

const SETUP_TIMEOUT: Duration = Duration::from_secs(130);
const MEMORY_SETTLE_TIME: Duration = Duration::from_millis(500);
const RELAY_TIMEOUT: Duration = Duration::from_secs(130);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
