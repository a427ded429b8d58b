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
    // SCHED_BATCH requires priority 0.
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live `sched_param`, which the call only reads; 0 is the calling thread.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
}

/// Other systems have no such policy.
#[cfg(not(target_os = "linux"))]
pub(crate) fn run_as_batch() {}
