//! `many`: thousands of openers and as many joiners, in two processes of their own, relaying on all pairs at once.
//!
//! Every payload is compared byte for byte on the side that gets it. Fails if any is not as it should be.

use std::{thread, time::Duration};

use sigver_benches::{check::Tally, error::Error};

use crate::{
    agent::process::{Agent, Priority},
    measure::{
        fidelity,
        metric::{Metric, Sample},
        procfs,
    },
    run::{
        admission,
        bench::{Bench, Setting},
        options::Common,
        servers::Server,
    },
};

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) pairs: u32,
    pub(crate) messages: u32,
}

/// Fails if any server has failed.
pub(crate) fn run(extent: Extent, common: Common) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    let settings = [Setting {
        label: format!("{} pairs, {} payloads each way", extent.pairs, extent.messages),
        load: f64::from(extent.pairs),
        value: extent,
    }];
    let mut unclean = 0;
    bench.run("many", &settings, |&extent, server| {
        let (sample, tally) = measure(&bench, server, extent)?;
        unclean += u32::from(!tally.is_clean());
        Ok(sample)
    })?;
    fidelity::verdict(unclean)
}

fn measure(bench: &Bench, server: &Server, extent: Extent) -> Result<(Sample, Tally), Error> {
    let prefix = admission::unique();
    let task = |name: &str| {
        [
            name.to_owned(),
            format!("--prefix={prefix}"),
            format!("--count={}", extent.pairs),
            format!("--messages={}", extent.messages),
        ]
    };
    let before = server.pid.map(procfs::pss).transpose()?;
    let openers = Agent::start(&server.endpoint, Priority::Same, &task("openers"))?;
    openers.wait_ready(bench, SET_UP)?;
    let mut joiners = Agent::start(&server.endpoint, Priority::Same, &task("joiners"))?;
    joiners.wait_ready(bench, SET_UP)?;
    thread::sleep(SETTLE);
    let idle = server.pid.map(procfs::pss).transpose()?;
    joiners.go()?;
    joiners.wait_ready(bench, RELAY)?;
    let used = server.pid.map(procfs::pss).transpose()?;
    // The joiners first: openers do not notice that they leave, but the other way round they would.
    let mut joiners = joiners.finish(ENDING)?;
    let mut openers = openers.finish(ENDING)?;

    let pairs = f64::from(extent.pairs);
    let connections = 2.0 * pairs;
    let relays = connections * f64::from(extent.messages);
    let mut sample = vec![
        Metric::new("openers set up/s", pairs / openers.take("set-up, s")?),
        Metric::new("joiners set up/s", pairs / joiners.take("set-up, s")?),
        Metric::new("relays/s, every payload checked", relays / joiners.take("relaying, s")?),
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
    let tally = Tally {
        delivered: sum("delivered")?,
        lost: sum("lost")?,
        reordered: sum("reordered")?,
        duplicated: sum("duplicated")?,
        misdelivered: sum("misdelivered")?,
        corrupted: sum("corrupted")?,
    };
    sample.extend(fidelity::figures(&tally));
    Ok((sample, tally))
}

const SET_UP: Duration = Duration::from_secs(130);
const SETTLE: Duration = Duration::from_millis(500);
const RELAY: Duration = Duration::from_secs(130);
const ENDING: Duration = Duration::from_secs(10);
