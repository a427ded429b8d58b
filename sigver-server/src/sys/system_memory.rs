//! The memory that this process may use: that of the machine, or less if a control group limits it.

use std::{fmt, fs};

use crate::sys::cgroup;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SystemMemory {
    pub(crate) bytes: u64,
    limited_by: LimitedBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LimitedBy {
    Machine,
    ControlGroup,
}

impl SystemMemory {
    /// Returns `None` on systems that do not report it in `/proc`.
    pub(crate) fn detect() -> Option<Self> {
        let machine = total(&fs::read_to_string("/proc/meminfo").ok()?)?;
        let group = cgroup::limit(&["memory.max", "memory.high"], "memory", "memory.limit_in_bytes");
        Some(Self::of(machine, group))
    }

    /// Returns the memory of a machine, and of a control group that has a limit.
    pub(crate) fn of(machine: u64, group: Option<u64>) -> Self {
        match group {
            Some(bytes) if bytes < machine => Self {
                bytes,
                limited_by: LimitedBy::ControlGroup,
            },
            _ => Self {
                bytes: machine,
                limited_by: LimitedBy::Machine,
            },
        }
    }
}

impl fmt::Display for SystemMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limited_by = match self.limited_by {
            LimitedBy::Machine => "this machine",
            LimitedBy::ControlGroup => "the control group",
        };
        write!(f, "the {} MiB of {limited_by}", self.bytes >> 20)
    }
}

/// Returns the memory in a file like `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn memory_is_that_of_the_machine_or_the_limit_of_its_group() {
        let machine = total("MemTotal:       24731828 kB\nMemFree:        20316160 kB\n").expect("it is there");
        assert_eq!(machine, 24_731_828 * 1024);
        let shown = |group| SystemMemory::of(machine, group).to_string();
        assert_eq!(shown(None), "the 24152 MiB of this machine");
        assert_eq!(shown(Some(9_223_372_036_854_771_712)), shown(None));
        assert_eq!(shown(Some(512 << 20)), "the 512 MiB of the control group");
        assert_eq!(total("MemFree: 1 kB"), None);
        assert_eq!(total("MemTotal: x kB"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_reports_its_memory() {
        let memory = SystemMemory::detect().expect("/proc is mounted");
        assert!(memory.bytes >= 16 << 20, "{memory}");
    }
}
