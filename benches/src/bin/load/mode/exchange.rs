//! `exchange`: an offer of 1.2 KB from the joiner to the opener, an answer of 1.2 KB back, and again.
//!
//! A closed loop: a pair begins its next exchange when the last one is over, so there are always as many exchanges
//! under way as there are pairs. `mostly-idle` is the same beside connections that do nothing.

use crate::{
    measure::{meter::Meter, metric::Sample},
    run::{
        bench::{Bench, Setting},
        drive::drive,
        exchange::Exchange,
        idle,
        options::Common,
        servers::Server,
    },
};
use sigver_benches::error::Error;

pub(crate) fn run(pairs: &[usize], common: Common) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    bench.run("exchange", &Setting::counts(pairs, "pairs"), |&pairs, server| {
        measure(&bench, server, pairs, 0)
    })?;
    Ok(())
}

pub(crate) fn run_mostly_idle(idle: &[usize], pairs: usize, common: Common) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    let settings = Setting::counts(idle, &format!("idle beside {pairs} pairs"));
    bench.run("mostly-idle", &settings, |&idle, server| {
        measure(&bench, server, pairs, idle)
    })?;
    Ok(())
}

fn measure(bench: &Bench, server: &Server, pairs: usize, idle: usize) -> Result<Sample, Error> {
    let mut engine = bench.engine(server)?;
    idle::connect(&mut engine, idle, idle::Roles::Half)?;
    let mut exchange = Exchange::start(&mut engine, pairs)?;
    drive(&mut engine, &mut exchange, bench.warm_up(), |_, _| false)?;

    let mut meter = Meter::start(server.pid)?;
    exchange.begin_window();
    drive(&mut engine, &mut exchange, bench.time() / 2, |_, _| false)?;
    meter.observe();
    drive(&mut engine, &mut exchange, bench.time() / 2, |_, _| false)?;
    let usage = meter.stop()?;

    let mut sample = Sample::new();
    usage.metrics(&mut sample, "exchange", exchange.completed);
    exchange.latency.metrics(&mut sample, "");
    Ok(sample)
}
