//! Model checks of the write path. loom explores every interleaving, up to a limit on preemptions, of the real [`Outbox`], [`FlushQueue`],
//! [`Waker`](crate::sync::waker::Waker) and [`Credits`]. The models replace what is around them: a small kernel buffer, a client that reads
//! from it, and `poll`.
//!
//! A lost wake-up is a deadlock, which loom reports. Run with
//! `RUSTFLAGS="--cfg loom" cargo test --release -p sigver-server --lib loom_models`.

#![expect(clippy::unwrap_used, reason = "a poisoned lock of a model is the model's failure")]

use std::{io, time::Duration};

use loom::{
    model::Builder,
    sync::{Arc, Condvar, Mutex, atomic::AtomicU32, atomic::Ordering, mpsc},
    thread,
};

use crate::{
    sync::credits::Credits,
    sync::waker::Notify,
    tuning::CREDITS,
    write::flusher::FlushQueue,
    write::outbox::{Backlog, Outbox, SendOutcome, Wire},
};

/// A socket with its client, and the flusher's notifier: all that `poll` waits for.
struct World {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// In the kernel, not yet read by the client.
    buffer: Vec<u8>,
    /// What the kernel buffer holds at most.
    room: usize,
    received: Vec<u8>,
    write_shut: bool,
    is_aborted: bool,
    is_notified: bool,
}

impl World {
    fn new(room: usize) -> Arc<Self> {
        let state = State {
            buffer: Vec::new(),
            room,
            received: Vec::new(),
            write_shut: false,
            is_aborted: false,
            is_notified: false,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    /// Returns the bytes that the kernel has accepted so far.
    fn accepted(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.buffer.len() + state.received.len()
    }

    /// The client: reads until the end and returns the bytes.
    fn read_all(&self) -> Vec<u8> {
        let mut state = self.state.lock().unwrap();
        loop {
            while state.buffer.is_empty() && !state.write_shut && !state.is_aborted {
                state = self.changed.wait(state).unwrap();
            }
            if state.buffer.is_empty() {
                return state.received.clone();
            }
            let mut bytes = std::mem::take(&mut state.buffer);
            state.received.append(&mut bytes);
            self.changed.notify_all();
        }
    }

    /// `poll`: waits for the socket or the notifier. Returns whether the socket is writable.
    fn poll(&self, waits_for_socket: bool) -> bool {
        let mut state = self.state.lock().unwrap();
        loop {
            let writable = state.buffer.len() < state.room || state.is_aborted;
            if state.is_notified || (waits_for_socket && writable) {
                return waits_for_socket && writable;
            }
            state = self.changed.wait(state).unwrap();
        }
    }
}

impl Wire for Arc<World> {
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap();
        assert!(!state.write_shut, "a write after the last frame");
        if state.is_aborted {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(state.room - state.buffer.len());
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.buffer.extend(&bytes[..count]);
        self.changed.notify_all();
        Ok(count)
    }

    fn shutdown_write(&self) {
        self.change(|state| state.write_shut = true);
    }

    fn abort(&self) {
        self.change(|state| state.is_aborted = true);
    }
}

impl Notify for Arc<World> {
    fn notify(&self) {
        self.change(|state| state.is_notified = true);
    }

    fn clear(&self) {
        self.change(|state| state.is_notified = false);
    }
}

/// A connection, its flusher and its client, as in the server.
struct Setup {
    world: Arc<World>,
    outbox: Arc<Outbox>,
    flush_queue: Arc<FlushQueue<(), Arc<World>>>,
}

impl Setup {
    fn new(room: usize) -> Self {
        let world = World::new(room);
        Self {
            outbox: Arc::new(Outbox::new()),
            flush_queue: Arc::new(FlushQueue::new(Arc::clone(&world))),
            world,
        }
    }

    fn flusher(&self) -> thread::JoinHandle<()> {
        let (world, outbox, flush_queue) = (
            Arc::clone(&self.world),
            Arc::clone(&self.outbox),
            Arc::clone(&self.flush_queue),
        );
        thread::spawn(move || {
            let mut blocked: Vec<()> = Vec::new();
            let mut ready = Vec::new();
            while flush_queue.run_once(&mut blocked, &ready, |()| outbox.flush(&world)) {
                assert!(blocked.len() <= 1, "a connection is queued once");
                ready = vec![world.poll(!blocked.is_empty()); blocked.len()];
            }
        })
    }

    fn client(&self) -> thread::JoinHandle<Vec<u8>> {
        let world = Arc::clone(&self.world);
        thread::spawn(move || world.read_all())
    }

    /// Does what the relay does with the outcome of a send.
    fn deliver(&self, sent: SendOutcome) -> SendOutcome {
        if sent == SendOutcome::Blocked {
            self.flush_queue.push(());
        }
        sent
    }
}

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// All frames arrive whole and in order, then the end. No thread sleeps for ever.
#[test]
fn every_frame_arrives_in_order() {
    explore(2, || {
        let setup = Setup::new(2);
        let (flusher, client) = (setup.flusher(), setup.client());
        let _ = setup.deliver(setup.outbox.send(&setup.world, b"aaa"));
        let _ = setup.deliver(setup.outbox.send(&setup.world, b"bb"));
        let _ = setup.deliver(setup.outbox.finish(&setup.world, b"c", Backlog::Flush));
        assert_eq!(client.join().unwrap(), b"aaabbc");
        setup.flush_queue.stop();
        flusher.join().unwrap();
    });
}

/// A slow consumer receives whole frames and then its close frame.
#[test]
fn a_close_frame_never_lands_inside_another() {
    explore(2, || {
        let setup = Setup::new(2);
        let (flusher, client) = (setup.flusher(), setup.client());
        for frame in [b"aaa", b"bbb", b"ccc"] {
            let _ = setup.deliver(setup.outbox.send(&setup.world, frame));
        }
        let _ = setup.deliver(setup.outbox.finish(&setup.world, b"x", Backlog::Discard));
        let received = String::from_utf8(client.join().unwrap()).unwrap();
        assert!(
            ["x", "aaax", "aaabbbx", "aaabbbcccx"].contains(&&*received),
            "{received}"
        );
        setup.flush_queue.stop();
        flusher.join().unwrap();
    });
}

/// A connection that is aborted at any point sends nothing afterwards, and blocks no thread.
#[test]
fn nothing_is_sent_after_an_abort() {
    explore(2, || {
        let setup = Setup::new(2);
        let (flusher, client) = (setup.flusher(), setup.client());
        let aborter = {
            let (world, outbox) = (Arc::clone(&setup.world), Arc::clone(&setup.outbox));
            thread::spawn(move || {
                outbox.abandon();
                let before = world.accepted();
                world.abort();
                before
            })
        };
        let _ = setup.deliver(setup.outbox.send(&setup.world, b"aaa"));
        let _ = setup.deliver(setup.outbox.send(&setup.world, b"bb"));
        let before = aborter.join().unwrap();
        let received = client.join().unwrap();
        assert!(
            received.len() <= before && b"aaabb".starts_with(&received),
            "{received:?}"
        );
        assert!(!setup.outbox.flush(&setup.world).is_blocked);
        setup.flush_queue.stop();
        flusher.join().unwrap();
    });
}

/// A connection's thread never has more in flight than its credits, and is woken when enough are released.
#[test]
fn credits_limit_the_events_in_flight() {
    const COUNTS: [u32; 4] = [1, 1, 2, 1];

    explore(3, || {
        let credits = Arc::new(Credits::new());
        let in_flight = Arc::new(AtomicU32::new(0));
        let (events, inbox) = mpsc::channel();
        let owner = {
            let (credits, in_flight) = (Arc::clone(&credits), Arc::clone(&in_flight));
            thread::spawn(move || {
                credits.bind();
                for count in COUNTS {
                    credits.acquire(count);
                    assert!(in_flight.fetch_add(count, Ordering::SeqCst) + count <= CREDITS);
                    events.send(count).unwrap();
                }
            })
        };
        for count in COUNTS {
            assert_eq!(inbox.recv().unwrap(), count);
            in_flight.fetch_sub(count, Ordering::SeqCst);
            credits.release(count);
        }
        assert!(credits.wait_idle(Duration::ZERO));
        owner.join().unwrap();
    });
}
