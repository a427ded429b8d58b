//! The thread that writes to clients whose kernel buffer is full, so that the relay never waits for a client. The queue between relay and
//! flusher is model-checked in `loom_models.rs`.

use std::{
    io, mem,
    os::fd::AsFd,
    sync::Arc,
    thread::{self, JoinHandle},
};

use crate::{
    sync::{
        AtomicBool, Mutex, Ordering, lock,
        waker::{Notify, Waker},
    },
    sys::{pipe::Pipe, poll},
    write::outbox::Flushed,
};

/// Connections whose backlog has begun, on their way from the relay to the flusher.
pub(crate) struct FlushQueue<P, B = Pipe> {
    queued: Mutex<Vec<P>>,
    waker: Waker<B>,
    stopped: AtomicBool,
}

impl<P, B: Notify> FlushQueue<P, B> {
    pub(crate) fn new(notifier: B) -> Self {
        Self {
            queued: Mutex::new(Vec::new()),
            waker: Waker::new(notifier),
            stopped: AtomicBool::new(false),
        }
    }

    /// Adds a connection whose backlog has begun ([`SendOutcome::Blocked`](crate::write::outbox::SendOutcome::Blocked)).
    pub(crate) fn push(&self, peer: P) {
        lock(&self.queued).push(peer);
        self.waker.wake();
    }

    /// Ends the flusher's thread.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Runs the flusher once after its sleep: flushes the connections in `blocked` that are ready, removes those without a backlog, and adds
    /// those in the queue. Returns false if the thread should end.
    pub(crate) fn run_once(&self, blocked: &mut Vec<P>, ready: &[bool], flush: impl Fn(&P) -> Flushed) -> bool {
        let mut ready = ready.iter();
        blocked.retain(|peer| ready.next() != Some(&true) || flush(peer).is_blocked);
        self.waker.acknowledge();
        blocked.append(&mut mem::take(&mut *lock(&self.queued)));
        !self.stopped.load(Ordering::Acquire)
    }
}

/// Starts the flusher's thread, which calls `flush` for connections that the kernel accepts bytes for. It ends after
/// [`FlushQueue::stop`], or by a panic, which is a bug; either way it drops `guard`.
pub(crate) fn start<P: AsFd + Send + 'static>(
    queue: &Arc<FlushQueue<P>>,
    flush: impl Fn(&P) -> Flushed + Send + 'static,
    guard: impl Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let queue = Arc::clone(queue);
    thread::Builder::new().name("sigver-flusher".into()).spawn(move || {
        let _guard = guard;
        let mut blocked = Vec::new();
        let mut ready = Vec::new();
        while queue.run_once(&mut blocked, &ready, &flush) {
            ready = sleep(&blocked, queue.waker.notifier());
        }
    })
}

/// Sleeps until the kernel accepts bytes for one of `blocked`, or the queue changes. Returns for which connections it accepts bytes.
fn sleep<P: AsFd>(blocked: &[P], notifier: &Pipe) -> Vec<bool> {
    let mut fds: Vec<_> = blocked.iter().map(poll::writable).collect();
    fds.push(poll::readable(notifier));
    match poll::wait(&mut fds, None) {
        Ok(_) => fds[..blocked.len()].iter().map(poll::is_ready).collect(),
        // Interrupted, or out of memory: flushing every connection is always correct.
        Err(_) => vec![true; blocked.len()],
    }
}
