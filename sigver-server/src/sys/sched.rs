//! The scheduling policy of the server's threads.

/// Sets `SCHED_BATCH` for this thread (Linux only; see sched(7)): when it wakes up, it does not preempt the running thread.
///
/// Relaying one message wakes two threads. With preemption, each wake-up interrupts the thread that has just produced the message: one
/// context switch per message. Without it, the connections' threads and the relay handle many messages per switch. The cost: if another
/// process occupies the core, a wake-up waits for the next tick. `benches/README.md` has both figures. The policy needs no privilege. On
/// failure the thread keeps its policy.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "no safe wrapper sets a policy and leaves the priority alone")]
pub(crate) fn run_as_batch() {
    // SCHED_BATCH requires priority 0. The priority is the only field of the kernel's `sched_param`; musl's has more.
    let priority: libc::c_int = 0;
    // The system call, because musl's `sched_setscheduler` always fails with ENOSYS.
    // SAFETY: the pointer is to a live integer, which the call only reads; 0 is the calling thread.
    let _ = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_BATCH, &raw const priority) };
}

/// Other systems have no such policy.
#[cfg(not(target_os = "linux"))]
pub(crate) fn run_as_batch() {}

#[cfg(all(test, not(loom), target_os = "linux"))]
mod tests {
    use std::{fs, thread};

    use super::*;

    /// The place of the policy in `/proc/PID/stat`, after the name of the thread; see proc_pid_stat(5).
    const POLICY: usize = 41 - 3;

    fn policy() -> Option<libc::c_int> {
        let stat = fs::read_to_string("/proc/thread-self/stat").ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        fields.split_whitespace().nth(POLICY)?.parse().ok()
    }

    #[test]
    fn run_as_batch_sets_the_policy_of_the_calling_thread_only() {
        let changed = thread::spawn(|| {
            run_as_batch();
            policy()
        });
        assert_eq!(changed.join().ok(), Some(Some(libc::SCHED_BATCH)));
        assert_eq!(policy(), Some(libc::SCHED_OTHER));
    }
}
