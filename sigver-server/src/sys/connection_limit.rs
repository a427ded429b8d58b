//! The number of connections that this process can carry. Each needs a thread and a file descriptor. The accept loop enforces the limit,
//! because a process without memory for another thread may be killed.

use std::{fmt, fs, num::NonZeroU32, thread};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    config::Config,
    sys::{cgroup, worker_pool::SPARE_THREADS},
};

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

/// From this size on, glibc's malloc serves an allocation with a memory map of its own.
const MAPPED_ALLOCATION: u64 = 128 * 1024;

/// The memory maps of one connection that receives large messages: its read buffer and the fragments of a message.
const MAPS_PER_LARGE_READ: u64 = 2;

/// The memory maps of malloc for each core, on a 64-bit system: up to eight arenas, of two maps each.
const MAPS_PER_CORE: u64 = 16;

/// The maps, threads and descriptors of the rest of the process, rounded up: permanent threads, and the spare ones of connections. A process at its
/// limit of maps aborts when it starts a thread, so the headroom of maps is large: it covers the arenas of a machine whose cores the process does
/// not see, and 32 GB in heaps of malloc.
const OTHER_MAPS: u64 = 3072 + SPARE_THREADS as u64 * MAPS_PER_THREAD;
const OTHER_THREADS: u64 = 64 + SPARE_THREADS as u64;
const OTHER_FILES: u64 = 64;

/// `OPEN_MAX` of macOS, which rejects an infinite soft limit on open files although the hard limit is infinite; see its setrlimit(2).
const MACOS_OPEN_MAX: u64 = 10_240;

impl ConnectionLimit {
    /// Returns the number of connections.
    pub fn connections(&self) -> u32 {
        self.connections
    }

    /// Whether the system carries fewer connections than are configured, or none.
    pub(crate) fn is_lower_than_configured(&self, config: &Config) -> bool {
        self.connections < config.endpoint.limits.connections.map_or(1, NonZeroU32::get)
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
                number("/proc/sys/vm/max_map_count").map(|maps| connections_by_maps(maps, cores(), config)),
            ),
            (LimitedBy::PidMax, threads(number("/proc/sys/kernel/pid_max"))),
            (LimitedBy::ThreadsMax, threads(number("/proc/sys/kernel/threads-max"))),
            (
                LimitedBy::CgroupPids,
                threads(cgroup::limit(&["pids.max"], "pids", "pids.max")),
            ),
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

/// Returns how many connections a limit of memory maps allows.
fn connections_by_maps(maps: u64, cores: u64, config: &Config) -> u64 {
    // A buffer that grows may be twice as large as its content.
    let is_large = 2 * u64::from(config.endpoint.limits.message_bytes) > MAPPED_ALLOCATION;
    let per_connection = MAPS_PER_THREAD + if is_large { MAPS_PER_LARGE_READ } else { 0 };
    maps.saturating_sub(OTHER_MAPS + MAPS_PER_CORE * cores) / per_connection
}

/// Returns the number of cores that malloc may count.
fn cores() -> u64 {
    thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

/// Raises the soft limit on open files to the hard limit. Returns the soft limit, unless it is infinite.
fn raise_open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raise = |soft| {
        let limit = Rlimit { current: soft, maximum };
        setrlimit(Resource::Nofile, limit).is_ok()
    };
    if raise(maximum) {
        maximum
    } else if current.is_some_and(|current| current < MACOS_OPEN_MAX) && raise(Some(MACOS_OPEN_MAX)) {
        Some(MACOS_OPEN_MAX)
    } else {
        current
    }
}

/// Returns the limit on this user's threads, unless it is infinite or does not apply.
fn processes() -> Option<u64> {
    if rustix::process::geteuid().is_root() {
        return None;
    }
    getrlimit(Resource::Nproc).current
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Config, connections_by_maps};

    #[test]
    fn maps_of_arenas_and_large_messages_lower_the_limit() {
        let mut config = Config::default();
        let default = connections_by_maps(65_530, 2, &config);
        assert_eq!(default, 15_542);
        assert_eq!(connections_by_maps(65_530, 64, &config), 15_294);
        config.endpoint.limits.message_bytes = 65_537;
        assert_eq!(connections_by_maps(65_530, 2, &config), 10_361);
        assert_eq!(connections_by_maps(1000, 2, &config), 0);
    }
}
