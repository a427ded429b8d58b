//! `exchange`: an offer of 1.2 KB from the joiner to the opener and an answer of 1.2 KB back.
//!
//! This is a closed loop: each pair starts its next exchange when the last one is complete, so the number of pending
//! exchanges is the number of pairs. `mostly-idle` is the same beside idle connections.

use crate::{
    measure::{meter::Meter, metric::Sample},
    run::{
        bench::{Bench, Setting},
        drive::drive,
        exchange::ExchangeLoop,
        idle,
        options::CommonOptions,
        servers::Server,
    },
};
use sigver_benches::error::Error;

pub(crate) fn run(pairs: &[usize], common: CommonOptions) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    bench.run("exchange", &Setting::counts(pairs, "pairs"), |&pairs, server| {
        measure(&bench, server, pairs, 0)
    })?;
    Ok(())
}

pub(crate) fn run_mostly_idle(idle: &[usize], pairs: usize, common: CommonOptions) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    let settings = Setting::counts(idle, &format!("idle beside {pairs} pairs"));
    bench.run("mostly-idle", &settings, |&idle, server| {
        measure(&bench, server, pairs, idle)
    })?;
    Ok(())
}

fn measure(bench: &Bench, server: &Server, pairs: usize, idle: usize) -> Result<Sample, Error> {
    let mut engine = bench.engine(server)?;
    idle::connect(&mut engine, idle, idle::IdleRoles::Pairs)?;
    let mut exchange = ExchangeLoop::start(&mut engine, pairs)?;
    drive(&mut engine, &mut exchange, bench.warm_up(), |_, _| false)?;

    let mut meter = Meter::start(server.pid)?;
    exchange.start_window();
    drive(&mut engine, &mut exchange, bench.duration() / 2, |_, _| false)?;
    meter.observe_threads();
    drive(&mut engine, &mut exchange, bench.duration() / 2, |_, _| false)?;
    let usage = meter.stop()?;
    exchange.require_completed()?;
    exchange.record_pending();

    let mut sample = Sample::new();
    usage.push_metrics(&mut sample, "exchange", exchange.completed);
    exchange.latency.push_metrics(&mut sample, "");
    Ok(sample)
}
