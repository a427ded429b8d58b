//! Owns the one thread that writes to clients whose kernel buffer is full, so that the relay never waits for one. Never drops a
//! client: the relay does, when the backlog overflows.

use std::{
    io, mem,
    sync::Arc,
    thread::{self, JoinHandle},
};

use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    outbox::Flushed,
    peer::Peer,
    sync::{AtomicBool, Mutex, Ordering, lock},
    wake::Waker,
};

/// How the relay reaches the flusher.
pub(crate) struct Flusher {
    incoming: Mutex<Vec<Arc<Peer>>>,
    waker: Waker,
    stopped: AtomicBool,
}

impl Flusher {
    /// Starts the thread. It ends after [`stop`](Self::stop).
    pub(crate) fn start() -> io::Result<(Arc<Self>, JoinHandle<()>)> {
        let flusher = Arc::new(Self {
            incoming: Mutex::new(Vec::new()),
            waker: Waker::new()?,
            stopped: AtomicBool::new(false),
        });
        let this = Arc::clone(&flusher);
        let thread = thread::Builder::new()
            .name("sigver-flusher".into())
            .spawn(move || this.run())?;
        Ok((flusher, thread))
    }

    /// Takes over a peer that has begun a backlog ([`Sent::Blocked`](crate::outbox::Sent::Blocked)), until it has none.
    pub(crate) fn hand_over(&self, peer: Arc<Peer>) {
        lock(&self.incoming).push(peer);
        self.waker.wake();
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    fn run(&self) {
        let mut blocked: Vec<Arc<Peer>> = Vec::new();
        while !self.stopped.load(Ordering::SeqCst) {
            let ready = self.wait(&blocked);
            let mut ready = ready.into_iter();
            blocked.retain(|peer| !ready.next().unwrap_or(false) || peer.flush() == Flushed::Blocked);
            self.waker.acknowledge();
            blocked.append(&mut mem::take(&mut *lock(&self.incoming)));
        }
    }

    /// Sleeps until the kernel takes bytes for one of `blocked`, or a signal comes. Which of them it takes bytes for.
    fn wait(&self, blocked: &[Arc<Peer>]) -> Vec<bool> {
        let mut fds: Vec<PollFd<'_>> = blocked.iter().map(|peer| PollFd::new(peer, PollFlags::OUT)).collect();
        fds.push(PollFd::from_borrowed_fd(self.waker.as_fd(), PollFlags::IN));
        match poll(&mut fds, None) {
            // Errors and hang-ups count: the flush will meet them.
            Ok(_) => fds[..blocked.len()].iter().map(|fd| !fd.revents().is_empty()).collect(),
            // Interrupted, or out of memory: trying everyone is always right.
            Err(_) => vec![true; blocked.len()],
        }
    }
}
