//! `idle`: what a connection that does nothing costs in memory.
//!
//! The server's own memory is its PSS. What the kernel keeps for its threads and sockets is in no process's figures,
//! so the machine's counters are read before and after: Slab, KernelStack, PageTables, and MemAvailable, which also
//! sees what no counter names. These counters include the generator's half of every connection; it is taken off as
//! half of the Slab that the same connections need against the yardstick, which has next to nothing else in Slab.

use sigver_benches::error::Error;
use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

use crate::{
    measure::{
        metric::{Metric, Sample},
        procfs::{self, Memory},
    },
    run::{
        bench::{Bench, Setting},
        idle::{self, Roles},
        options::Common,
        servers::Server,
    },
};

pub(crate) fn run(connections: &[usize], roles: Roles, common: Common) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    // The yardstick is measured first in every round and leaves this for the others.
    let client_end = Cell::new(None);
    let settings = Setting::counts(connections, "connections");
    bench.run("idle", &settings, |&connections, server| {
        if server.is_yardstick {
            client_end.set(None);
        }
        measure(&bench, server, connections, roles, &client_end)
    })?;
    Ok(())
}

fn measure(
    bench: &Bench,
    server: &Server,
    connections: usize,
    roles: Roles,
    client_end: &Cell<Option<f64>>,
) -> Result<Sample, Error> {
    let pid = server
        .pid
        .ok_or_else(|| Error::new("memory needs the server's process: --against-pid"))?;
    let mut engine = bench.engine(server)?;
    let before = Reading::settled(pid)?;
    let began = Instant::now();
    idle::connect(&mut engine, connections, roles)?;
    let elapsed = began.elapsed();
    let cpu = procfs::cpu(pid)?;
    let after = Reading::settled(pid)?;

    let count = connections.max(1) as f64;
    let each = |now: u64, then: u64| (now as f64 - then as f64) / count;
    let slab = each(after.memory.slab, before.memory.slab);
    let pss = each(after.pss, before.pss);
    let stack = each(after.memory.kernel_stack, before.memory.kernel_stack);
    let tables = each(after.memory.page_tables, before.memory.page_tables);
    let own = each(after.own_pss, before.own_pss);
    let available = each(before.memory.available, after.memory.available);
    let client = client_end.get().unwrap_or(slab / 2.0);
    client_end.set(Some(client));

    Ok(vec![
        Metric::new("server PSS, B", pss),
        Metric::new("Slab, both ends, B", slab),
        Metric::new("KernelStack, B", stack),
        Metric::new("PageTables, B", tables),
        Metric::new("all in by counters, B", pss + slab - client + stack + tables),
        Metric::new("all in by MemAvailable, B", available - own - client),
        Metric::new(
            "set-up CPU, µs/connection",
            (cpu - before.cpu).as_secs_f64() * 1e6 / count,
        ),
        Metric::new("connections/s", count / elapsed.as_secs_f64()),
    ])
}

/// Everything that counts, at one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    memory: Memory,
    pss: u64,
    own_pss: u64,
    cpu: Duration,
}

impl Reading {
    /// Waits until the machine's memory stands still: the kernel gives back what an earlier server had in its own
    /// time, and a server may do the same with what its connections needed to come about.
    fn settled(pid: u32) -> Result<Self, Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut still = 0;
        let mut last = procfs::memory()?.available;
        while still < 5 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(100));
            let now = procfs::memory()?.available;
            still = if now.abs_diff(last) < STILL { still + 1 } else { 0 };
            last = now;
        }
        Ok(Self {
            memory: procfs::memory()?,
            pss: procfs::pss(pid)?,
            own_pss: procfs::pss(std::process::id())?,
            cpu: procfs::cpu(pid)?,
        })
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

/// Less than this in a tenth of a second is standing still.
const STILL: u64 = 512 * 1024;
