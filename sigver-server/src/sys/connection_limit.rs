//! Owns the answer to: how many connections can this process carry? A connection is a thread and a descriptor, and a process that
//! runs out of either does not get an error but dies. Never enforces the answer: `listen` does.

use std::{fmt, fs};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most connections that there may be at the same time. `Display` says what to change to have more.
/// [`Config::ceiling`](crate::Config::ceiling) finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceiling {
    pub(crate) connections: u32,
    knob: Knob,
}

/// What holds the ceiling where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knob {
    Configured,
    MaxMapCount,
    PidMax,
    ThreadsMax,
    CgroupPids,
    OpenFiles,
    Processes,
}

/// Memory maps of one thread: its stack, its signal stack, and a guard page for each.
const MAPS_PER_THREAD: u64 = 4;

/// Maps, threads and descriptors that the rest of the process needs, with room to spare.
const OTHER_MAPS: u64 = 1024;
const OTHER_THREADS: u64 = 64;
const OTHER_FILES: u64 = 64;

impl Ceiling {
    /// The number.
    pub fn connections(&self) -> u32 {
        self.connections
    }

    /// Finds the ceiling, after raising the soft limit on open files to the hard one. No more than `configured`.
    pub(crate) fn find(configured: u32) -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let threads = |limit: Option<u64>| Some(limit?.saturating_sub(OTHER_THREADS));
        let bounds = [
            (Knob::Configured, Some(configured.into())),
            (
                Knob::MaxMapCount,
                number("/proc/sys/vm/max_map_count").map(|maps| maps.saturating_sub(OTHER_MAPS) / MAPS_PER_THREAD),
            ),
            (Knob::PidMax, threads(number("/proc/sys/kernel/pid_max"))),
            (Knob::ThreadsMax, threads(number("/proc/sys/kernel/threads-max"))),
            (Knob::CgroupPids, threads(cgroup_pids(number))),
            (
                Knob::OpenFiles,
                raise_open_files().map(|files| files.saturating_sub(OTHER_FILES)),
            ),
            (Knob::Processes, threads(processes())),
        ];
        let lowest = bounds
            .into_iter()
            .filter_map(|(knob, bound)| Some((bound?, knob)))
            .min_by_key(|(bound, _)| *bound);
        let (connections, knob) = lowest.unwrap_or((configured.into(), Knob::Configured));
        Self {
            connections: connections.try_into().unwrap_or(u32::MAX),
            knob,
        }
    }
}

impl fmt::Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let knob = match self.knob {
            Knob::Configured => "as configured",
            Knob::MaxMapCount => "to have more, raise sysctl vm.max_map_count",
            Knob::PidMax => "to have more, raise sysctl kernel.pid_max",
            Knob::ThreadsMax => "to have more, raise sysctl kernel.threads-max",
            Knob::CgroupPids => "to have more, raise pids.max of the control group (TasksMax= in systemd)",
            Knob::OpenFiles => "to have more, raise the hard limit on open files (ulimit -Hn, LimitNOFILE= in systemd)",
            Knob::Processes => "to have more, raise the limit on processes (ulimit -u, LimitNPROC= in systemd)",
        };
        write!(f, "{} connections; {knob}", self.connections)
    }
}

/// The limit of this process's control group (version 2), where there is one.
fn cgroup_pids(number: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    number(&format!("/sys/fs/cgroup{path}/pids.max"))
}

/// Raises the soft limit on open files as far as it goes; what it is then, unless it is infinite.
fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    match setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    ) {
        Ok(()) => maximum,
        Err(_) => current,
    }
}

/// The limit on this user's threads, unless it is infinite or does not apply.
fn processes() -> Option<u64> {
    if rustix::process::geteuid().is_root() {
        return None;
    }
    getrlimit(Resource::Nproc).current
}
