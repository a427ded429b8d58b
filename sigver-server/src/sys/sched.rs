//! Owns how the system schedules our threads, and the only unsafe code there is. Never sets a priority.

/// Asks the system to let whoever runs finish its turn when this thread wakes up (`SCHED_BATCH`, Linux only; see sched(7)).
///
/// A relay of one message wakes two threads. With wake-up preemption each wake takes the core away from whoever has just made the
/// message, one switch a message; without it, the connections' threads and the relay take turns with many messages each.
/// The price: beside a process that hogs the core a wake-up waits for the next tick. Both are measured in `benches/README.md`. It needs no
/// privilege. What fails leaves the thread as it was, which is only slower.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "no safe wrapper sets a policy and leaves the priority alone")]
pub(crate) fn run_as_batch() {
    // All zero is what the policy wants: it has no priority of its own.
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live `sched_param`, which the call only reads; 0 is the calling thread.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
}

/// There is no such policy here.
#[cfg(not(target_os = "linux"))]
pub(crate) fn run_as_batch() {}
