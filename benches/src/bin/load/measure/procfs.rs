//! Reads `/proc`: processes, threads and memory.
//!
//! Linux only. On other systems all readings fail, and the metrics that need them are omitted.

use std::{collections::BTreeMap, fs, io, time::Duration};

/// Returns the CPU time of all threads of a process, including threads that have exited.
pub(crate) fn cpu(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses that may itself contain parentheses and spaces.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Ok(from_ticks(ticks))
}

/// Returns the CPU time of the machine that is not idle, including interrupts and steal time.
pub(crate) fn machine_cpu() -> io::Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    let &[user, nice, system, _idle, _iowait, irq, softirq, steal] = &ticks[..] else {
        return Err(io::Error::other("missing field in /proc/stat"));
    };
    Ok(from_ticks(user + nice + system + irq + softirq + steal))
}

/// Context switches of a thread since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switches {
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
}

/// Returns the context switches of each running thread.
pub(crate) fn switches(pid: u32) -> io::Result<BTreeMap<u32, Switches>> {
    let mut all = BTreeMap::new();
    for tid in threads(pid)? {
        // Skips threads that have exited since the listing.
        if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")) {
            let counts = Switches {
                voluntary: field(&status, "voluntary_ctxt_switches:").unwrap_or(0),
                involuntary: field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0),
            };
            all.insert(tid, counts);
        }
    }
    Ok(all)
}

/// Returns the running threads of a process.
pub(crate) fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// Returns the proportional set size of a process, in bytes.
pub(crate) fn pss(pid: u32) -> io::Result<u64> {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// Returns the resident memory of a process, in bytes.
pub(crate) fn rss(pid: u32) -> io::Result<u64> {
    kilobytes(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// Returns the peak resident memory of a process since [`reset_peak_rss`], in bytes.
pub(crate) fn peak_rss(pid: u32) -> io::Result<u64> {
    kilobytes(&format!("/proc/{pid}/status"), "VmHWM:")
}

/// Resets [`peak_rss`].
pub(crate) fn reset_peak_rss(pid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}

/// Memory counters of the machine, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) available: u64,
    pub(crate) slab: u64,
    pub(crate) kernel_stack: u64,
    pub(crate) page_tables: u64,
}

pub(crate) fn memory() -> io::Result<Memory> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let read = |name| field(&text, name).map(|kilobytes| kilobytes * 1024);
    let all = || {
        Some(Memory {
            available: read("MemAvailable:")?,
            slab: read("Slab:")?,
            kernel_stack: read("KernelStack:")?,
            page_tables: read("PageTables:")?,
        })
    };
    all().ok_or_else(|| io::Error::other("missing field in /proc/meminfo"))
}

/// Returns the run-queue delay of this thread: how long it has been ready to run but was not running.
pub(crate) fn own_run_delay() -> io::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_ascii_whitespace().nth(1);
    nanoseconds
        .and_then(|field| field.parse().ok())
        .map(Duration::from_nanos)
        .ok_or_else(|| io::Error::other("missing field in /proc/thread-self/schedstat"))
}

/// Returns the name of the processor and the version of the kernel.
pub(crate) fn machine_info() -> (String, String) {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(String::new, |(_, name)| name.trim().to_owned());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    (model, kernel.trim().to_owned())
}

fn from_ticks(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_secs_f64(ticks as f64 / per_second as f64)
}

fn kilobytes(path: &str, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let found = field(&text, name).ok_or_else(|| io::Error::other(format!("no {name} in {path}")));
    Ok(found? * 1024)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_is_found_by_full_name() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(12));
        assert_eq!(field(status, "nonvoluntary_ctxt_switches:"), Some(3));
        assert_eq!(field(status, "VmRSS:"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn readings_of_own_process_succeed() {
        let pid = std::process::id();
        assert!(cpu(pid).expect("stat") <= machine_cpu().expect("stat"));
        assert!(!switches(pid).expect("status").is_empty());
        assert!(pss(pid).expect("smaps_rollup") > 0);
        assert!(rss(pid).expect("status") <= peak_rss(pid).expect("status"));
        assert!(memory().expect("meminfo").available > 0);
    }
}
