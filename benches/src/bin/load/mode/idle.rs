//! `idle`: memory of an idle connection.
//!
//! The memory of the server process is its PSS. The memory that the kernel uses for its threads and sockets is in no
//! metric of a process, so counters of the machine are read before and after: Slab, KernelStack, PageTables, and
//! MemAvailable, which includes memory that no counter covers. These counters include the generator's end of each
//! connection. It is subtracted, as half of the Slab that the same connections take with the yardstick, which has little
//! else in Slab.

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
        idle::{self, IdleRoles},
        options::CommonOptions,
        servers::Server,
    },
};

pub(crate) fn run(connections: &[usize], roles: IdleRoles, common: CommonOptions) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    // Set by the yardstick, which is measured first in each round, for the other servers.
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
    roles: IdleRoles,
    client_end: &Cell<Option<f64>>,
) -> Result<Sample, Error> {
    let pid = server
        .pid
        .ok_or_else(|| Error::new("idle needs the process ID of the server: pass --against-pid"))?;
    let mut engine = bench.engine(server)?;
    let before = Snapshot::read_stable(pid)?;
    let began = Instant::now();
    idle::connect(&mut engine, connections, roles)?;
    let elapsed = began.elapsed();
    let cpu = procfs::cpu(pid)?;
    let after = Snapshot::read_stable(pid)?;

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
        Metric::new("total by counters, B", pss + slab - client + stack + tables),
        Metric::new("total by MemAvailable, B", available - own - client),
        Metric::new(
            "setup CPU, µs/connection",
            (cpu - before.cpu).as_secs_f64() * 1e6 / count,
        ),
        Metric::new("connections/s", count / elapsed.as_secs_f64()),
    ])
}

/// Memory and CPU readings at one time.
#[derive(Clone, Copy, Debug)]
struct Snapshot {
    memory: Memory,
    pss: u64,
    own_pss: u64,
    cpu: Duration,
}

impl Snapshot {
    /// Waits until the memory of the machine is stable, then reads it. The kernel frees the memory of an earlier server
    /// with a delay, and a server may do the same with memory that it needs to accept connections.
    fn read_stable(pid: u32) -> Result<Self, Error> {
        let deadline = Instant::now() + STABLE_TIMEOUT;
        let mut still = 0;
        let mut last = procfs::memory()?.available;
        while still < 5 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(100));
            let now = procfs::memory()?.available;
            still = if now.abs_diff(last) < STABLE_DELTA {
                still + 1
            } else {
                0
            };
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

const STABLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Memory is stable if it changes by less than this in 100 ms.
const STABLE_DELTA: u64 = 512 * 1024;
