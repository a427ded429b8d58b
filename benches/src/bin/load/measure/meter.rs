//! What a stretch of work has cost: CPU of the server and of the generator, context switches, latencies.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use sigver_benches::error::{Context, Error};

use crate::measure::{
    metric::{Metric, Sample},
    procfs::{self, Switches},
};

/// A reading at the start of a stretch of work.
#[derive(Debug)]
pub(crate) struct Meter {
    server: Option<Server>,
    own_cpu: Option<Duration>,
    machine_cpu: Option<Duration>,
    started: Instant,
}

#[derive(Debug)]
struct Server {
    pid: u32,
    cpu: Duration,
    switches: BTreeMap<u32, Switches>,
    /// Every thread that was there at the start or when it was looked.
    seen: BTreeSet<u32>,
}

/// What it came to.
#[derive(Debug)]
pub(crate) struct Usage {
    pub(crate) elapsed: Duration,
    server_cpu: Option<Duration>,
    own_cpu: Option<Duration>,
    machine_cpu: Option<Duration>,
    switches: Option<Switches>,
}

impl Meter {
    /// Reads everything once. The server may be foreign, its process unknown: then its figures are left out.
    pub(crate) fn start(pid: Option<u32>) -> Result<Self, Error> {
        let server = pid.map(|pid| {
            // The slow reading first: it must not fall between the others.
            let switches = procfs::switches(pid).context("the server is gone")?;
            Ok::<_, Error>(Server {
                pid,
                cpu: procfs::cpu(pid).context("the server is gone")?,
                seen: switches.keys().copied().collect(),
                switches,
            })
        });
        Ok(Self {
            server: server.transpose()?,
            own_cpu: procfs::cpu(std::process::id()).ok(),
            machine_cpu: procfs::machine_cpu().ok(),
            started: Instant::now(),
        })
    }

    /// Looks which threads live in the middle of the work, so that those that come and go are noticed.
    pub(crate) fn observe(&mut self) {
        if let Some(server) = &mut self.server {
            server.seen.extend(procfs::threads(server.pid).unwrap_or_default());
        }
    }

    /// Reads everything again.
    pub(crate) fn stop(self) -> Result<Usage, Error> {
        let elapsed = self.started.elapsed();
        let own_now = procfs::cpu(std::process::id()).ok();
        let machine_now = procfs::machine_cpu().ok();
        let mut usage = Usage {
            elapsed,
            server_cpu: None,
            own_cpu: own_now.zip(self.own_cpu).map(|(now, then)| now - then),
            machine_cpu: machine_now.zip(self.machine_cpu).map(|(now, then)| now - then),
            switches: None,
        };
        if let Some(server) = self.server {
            let cpu = procfs::cpu(server.pid).context("the server is gone")?;
            usage.server_cpu = Some(cpu - server.cpu);
            let now = procfs::switches(server.pid).context("the server is gone")?;
            usage.switches = difference(&server.switches, &server.seen, &now);
        }
        Ok(usage)
    }
}

/// The switches of all threads together; unknown if a thread has ended, for it took its counts along.
fn difference(
    before: &BTreeMap<u32, Switches>,
    seen: &BTreeSet<u32>,
    after: &BTreeMap<u32, Switches>,
) -> Option<Switches> {
    if !seen.iter().all(|tid| after.contains_key(tid)) {
        return None;
    }
    let mut sum = Switches::default();
    for (tid, now) in after {
        let then = before.get(tid).copied().unwrap_or_default();
        sum.voluntary += now.voluntary.checked_sub(then.voluntary)?;
        sum.involuntary += now.involuntary.checked_sub(then.involuntary)?;
    }
    Some(sum)
}

impl Usage {
    /// The figures for each of `units` pieces of work, called `unit`.
    pub(crate) fn metrics(&self, sample: &mut Sample, unit: &str, units: u64) {
        let count = units.max(1) as f64;
        let seconds = self.elapsed.as_secs_f64();
        if let Some(cpu) = self.server_cpu {
            let each = cpu.as_secs_f64() * 1e6 / count;
            sample.push(Metric::new(format!("server CPU, µs/{unit}"), each));
        }
        sample.push(Metric::new(format!("{unit}s/s"), units as f64 / seconds));
        if let Some(switches) = self.switches {
            let each = |switches: u64| switches as f64 / count;
            sample.push(Metric::new(
                format!("voluntary switches/{unit}"),
                each(switches.voluntary),
            ));
            sample.push(Metric::new(
                format!("involuntary switches/{unit}"),
                each(switches.involuntary),
            ));
        }
        let busy = |cpu: Duration| cpu.as_secs_f64() * 100.0 / seconds;
        if let Some(cpu) = self.server_cpu {
            sample.push(Metric::absolute("server CPU, % of a core", busy(cpu)));
        }
        if let Some(cpu) = self.own_cpu {
            sample.push(Metric::absolute("generator CPU, % of a core", busy(cpu)));
        }
        if let (Some(server), Some(own), Some(machine)) = (self.server_cpu, self.own_cpu, self.machine_cpu) {
            let others = busy(machine.saturating_sub(server + own));
            sample.push(Metric::absolute("all others' CPU, % of a core", others));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(threads: &[(u32, u64, u64)]) -> BTreeMap<u32, Switches> {
        let count = |&(tid, voluntary, involuntary)| {
            let switches = Switches { voluntary, involuntary };
            (tid, switches)
        };
        threads.iter().map(count).collect()
    }

    #[test]
    fn switches_of_threads_that_stay_and_come() {
        let before = counts(&[(1, 10, 1), (2, 5, 0)]);
        let after = counts(&[(1, 15, 1), (2, 5, 2), (3, 7, 0)]);
        let sum = Switches {
            voluntary: 12,
            involuntary: 2,
        };
        assert_eq!(difference(&before, &BTreeSet::from([1, 2, 3]), &after), Some(sum));
    }

    #[test]
    fn switches_are_unknown_once_a_thread_has_ended() {
        let threads = counts(&[(1, 10, 1)]);
        assert_eq!(difference(&threads, &BTreeSet::from([1, 2]), &threads), None);
    }
}
