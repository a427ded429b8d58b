//! Measures the cost of a period of work: CPU time of server and generator, and context switches.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use sigver_benches::error::{Context, Error};

use crate::measure::{
    metric::{Metric, Sample},
    procfs::{self, Switches},
};

/// The readings at the start of a measurement.
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
    /// Threads seen at the start or by [`Meter::observe_threads`].
    seen: BTreeSet<u32>,
}

/// The cost of the measured work.
#[derive(Debug)]
pub(crate) struct Usage {
    pub(crate) elapsed: Duration,
    server_cpu: Option<Duration>,
    own_cpu: Option<Duration>,
    machine_cpu: Option<Duration>,
    switches: Option<Switches>,
}

impl Meter {
    /// Starts a measurement. Without `pid`, the metrics of the server are omitted.
    pub(crate) fn start(pid: Option<u32>) -> Result<Self, Error> {
        let server = pid.map(|pid| {
            // The slow reading is first, so that it is not between the others.
            let switches = procfs::switches(pid).context("server exited")?;
            Ok::<_, Error>(Server {
                pid,
                cpu: procfs::cpu(pid).context("server exited")?,
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

    /// Records the running threads, so that threads which start and exit during the work are noticed.
    pub(crate) fn observe_threads(&mut self) {
        if let Some(server) = &mut self.server {
            server.seen.extend(procfs::threads(server.pid).unwrap_or_default());
        }
    }

    /// Ends the measurement.
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
            let cpu = procfs::cpu(server.pid).context("server exited")?;
            usage.server_cpu = Some(cpu - server.cpu);
            let now = procfs::switches(server.pid).context("server exited")?;
            usage.switches = difference(&server.switches, &server.seen, &now);
        }
        Ok(usage)
    }
}

/// Returns the context switches of all threads, or `None` if a thread has exited, since its counts are lost.
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
    /// Appends the metrics per unit of work, for `units` units that are called `unit`.
    pub(crate) fn push_metrics(&self, sample: &mut Sample, unit: &str, units: u64) {
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
            sample.push(Metric::absolute("other CPU, % of a core", others));
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
    fn switches_of_old_and_new_threads_are_added() {
        let before = counts(&[(1, 10, 1), (2, 5, 0)]);
        let after = counts(&[(1, 15, 1), (2, 5, 2), (3, 7, 0)]);
        let sum = Switches {
            voluntary: 12,
            involuntary: 2,
        };
        assert_eq!(difference(&before, &BTreeSet::from([1, 2, 3]), &after), Some(sum));
    }

    #[test]
    fn switches_are_unknown_if_thread_has_exited() {
        let threads = counts(&[(1, 10, 1)]);
        assert_eq!(difference(&threads, &BTreeSet::from([1, 2]), &threads), None);
    }
}
