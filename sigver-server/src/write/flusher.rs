//! Owns the one thread that writes to clients whose kernel buffer is full, so that the relay never waits for one. Never drops a
//! client: the relay does, when the backlog overflows. The
//! hand-over is model-checked in `loom_models.rs`.

use std::{
    io, mem,
    sync::{Arc, mpsc::SyncSender},
    thread::{self, JoinHandle},
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    conn::peer::Peer,
    relay::Event,
    sync::waker::{Bell, Pipe, Waker},
    sync::{AtomicBool, Mutex, Ordering, lock},
    write::outbox::Flushed,
};

/// Who has begun a backlog and is on the way from the relay to the flusher.
pub(crate) struct Handover<P, B = Pipe> {
    incoming: Mutex<Vec<P>>,
    waker: Waker<B>,
    stopped: AtomicBool,
}

impl<P, B: Bell> Handover<P, B> {
    pub(crate) fn new(bell: B) -> Self {
        Self {
            incoming: Mutex::new(Vec::new()),
            waker: Waker::new(bell),
            stopped: AtomicBool::new(false),
        }
    }

    /// Gives the flusher a peer that has begun a backlog ([`Sent::Blocked`](crate::write::outbox::Sent::Blocked)), until it has none.
    pub(crate) fn push(&self, peer: P) {
        lock(&self.incoming).push(peer);
        self.waker.wake();
    }

    /// Ends the flusher's thread.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// One turn of the flusher, after its sleep: flushes those of `blocked` that are ready, drops those that have no backlog any
    /// more, and takes in those that were handed over. False when it is to end.
    pub(crate) fn turn(&self, blocked: &mut Vec<P>, ready: &[bool], flush: impl Fn(&P) -> Flushed) -> bool {
        let mut ready = ready.iter();
        blocked.retain(|peer| ready.next() != Some(&true) || flush(peer).is_blocked);
        self.waker.acknowledge();
        blocked.append(&mut mem::take(&mut *lock(&self.incoming)));
        !self.stopped.load(Ordering::Acquire)
    }
}

/// Starts the flusher's thread, which reports what it wrote to the relay. It ends after [`Handover::stop`], and then drops `guard`, or when
/// it panics, which is a bug.
pub(crate) fn start(
    handover: &Arc<Handover<Arc<Peer>>>,
    events: SyncSender<Event>,
    guard: impl Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let handover = Arc::clone(handover);
    thread::Builder::new().name("sigver-flusher".into()).spawn(move || {
        let _guard = guard;
        run(&handover, &events);
    })
}

fn run(handover: &Handover<Arc<Peer>>, events: &SyncSender<Event>) {
    let mut blocked = Vec::new();
    let mut ready = Vec::new();
    let flush = |peer: &Arc<Peer>| {
        let flushed = peer.flush();
        if flushed.cost > 0 {
            let (id, cost) = (peer.id(), flushed.cost);
            // Without a relay the server is ending, and nobody counts.
            let _ = events.send(Event::Written { id, cost });
        }
        flushed
    };
    while handover.turn(&mut blocked, &ready, flush) {
        ready = sleep(&blocked, handover.waker.bell());
    }
}

/// Sleeps until the kernel takes bytes for one of `blocked`, or the bell rings. Which of them it takes bytes for.
fn sleep(blocked: &[Arc<Peer>], bell: &Pipe) -> Vec<bool> {
    let mut fds: Vec<PollFd<'_>> = blocked.iter().map(|peer| PollFd::new(peer, PollFlags::OUT)).collect();
    fds.push(PollFd::new(bell, PollFlags::IN));
    match poll(&mut fds, None) {
        // Errors and hang-ups count: the flush will meet them.
        Ok(_) => fds[..blocked.len()].iter().map(|fd| !fd.revents().is_empty()).collect(),
        // Interrupted, or out of memory: trying everyone is always right.
        Err(_) => vec![true; blocked.len()],
    }
}
