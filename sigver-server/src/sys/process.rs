//! What the system reports about this process. Only Linux has `/proc`.

use std::{fs, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// Returns the resident memory in bytes.
pub(crate) fn resident_bytes() -> Option<u64> {
    status("VmRSS:").map(|kib| kib * 1024)
}

/// Returns the number of threads.
pub(crate) fn threads() -> Option<u64> {
    status("Threads:")
}

/// Returns the number of open file descriptors.
pub(crate) fn open_files() -> Option<u64> {
    let descriptors = fs::read_dir("/proc/self/fd").ok()?;
    Some(descriptors.count() as u64)
}

/// Returns the user and system CPU time of all threads.
pub(crate) fn cpu_time() -> Duration {
    // The conversion fails for times before zero only.
    clock_gettime(ClockId::ProcessCPUTime).try_into().unwrap_or_default()
}

/// Returns a number in `/proc/self/status`.
fn status(name: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
