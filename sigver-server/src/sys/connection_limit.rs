//! The number of connections that this process can carry. Each needs a thread and a file descriptor. The accept loop enforces the limit,
//! because a process without memory for another thread may be killed.

use std::{fmt, fs, num::NonZeroU32};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{config::Config, sys::worker_pool::MAX_IDLE_THREADS};

/// The most connections at the same time: [`Limits::connections`](sigver_core::Limits::connections), or less if the system can carry less.
///
/// `Display` names the setting that limits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimit {
    connections: u32,
    limited_by: LimitedBy,
}

/// The setting that limits the number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LimitedBy {
    Configured,
    MaxMapCount,
    PidMax,
    ThreadsMax,
    CgroupPids,
    OpenFiles,
    Processes,
}

/// The memory maps of one thread: its stack, its signal stack, and a guard page for each.
const MAPS_PER_THREAD: u64 = 4;

/// The maps, threads and descriptors of the rest of the process, rounded up: permanent threads, and those that wait for a connection.
const OTHER_MAPS: u64 = 1024 + MAX_IDLE_THREADS as u64 * MAPS_PER_THREAD;
const OTHER_THREADS: u64 = 64 + MAX_IDLE_THREADS as u64;
const OTHER_FILES: u64 = 64;

impl ConnectionLimit {
    /// Returns the number of connections.
    pub fn connections(&self) -> u32 {
        self.connections
    }

    /// Determines the limit for a server with this configuration on this system.
    ///
    /// Raises the soft limit on open files of this process to the hard limit.
    pub fn of(config: &Config) -> Self {
        let configured = config.endpoint.limits.connections.map_or(u32::MAX, NonZeroU32::get);
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let threads = |limit: Option<u64>| Some(limit?.saturating_sub(OTHER_THREADS));
        let bounds = [
            (LimitedBy::Configured, Some(configured.into())),
            (
                LimitedBy::MaxMapCount,
                number("/proc/sys/vm/max_map_count").map(|maps| maps.saturating_sub(OTHER_MAPS) / MAPS_PER_THREAD),
            ),
            (LimitedBy::PidMax, threads(number("/proc/sys/kernel/pid_max"))),
            (LimitedBy::ThreadsMax, threads(number("/proc/sys/kernel/threads-max"))),
            (LimitedBy::CgroupPids, threads(cgroup_pids(number))),
            (
                LimitedBy::OpenFiles,
                raise_open_files().map(|files| files.saturating_sub(OTHER_FILES)),
            ),
            (LimitedBy::Processes, threads(processes())),
        ];
        let lowest = bounds
            .into_iter()
            .filter_map(|(limited_by, bound)| Some((bound?, limited_by)))
            .min_by_key(|(bound, _)| *bound);
        let (connections, limited_by) = lowest.unwrap_or((configured.into(), LimitedBy::Configured));
        Self {
            connections: connections.try_into().unwrap_or(u32::MAX),
            limited_by,
        }
    }
}

impl fmt::Display for ConnectionLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limited_by = match self.limited_by {
            LimitedBy::Configured => "as configured",
            LimitedBy::MaxMapCount => "to have more, raise sysctl vm.max_map_count",
            LimitedBy::PidMax => "to have more, raise sysctl kernel.pid_max",
            LimitedBy::ThreadsMax => "to have more, raise sysctl kernel.threads-max",
            LimitedBy::CgroupPids => "to have more, raise pids.max of the control group (TasksMax= in systemd)",
            LimitedBy::OpenFiles => {
                "to have more, raise the hard limit on open files (ulimit -Hn, LimitNOFILE= in systemd)"
            }
            LimitedBy::Processes => "to have more, raise the limit on processes (ulimit -u, LimitNPROC= in systemd)",
        };
        write!(f, "{} connections; {limited_by}", self.connections)
    }
}

/// Returns the limit of this process's control group (version 2), if there is one.
fn cgroup_pids(number: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    number(&format!("/sys/fs/cgroup{path}/pids.max"))
}

/// Raises the soft limit on open files to the hard limit. Returns it, unless it is infinite.
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

/// Returns the limit on this user's threads, unless it is infinite or does not apply.
fn processes() -> Option<u64> {
    if rustix::process::geteuid().is_root() {
        return None;
    }
    getrlimit(Resource::Nproc).current
}
