//! Owns models of the write path, never the path itself. loom explores them: every interleaving, up to a bound on preemptions, of the
//! real [`Outbox`], hand-over, [`Waker`](crate::sync::waker::Waker) and [`Credit`]. What is modelled is what surrounds them: a kernel buffer
//! with little room, a client that reads it, and `poll`.
//!
//! A lost wake-up shows as a deadlock, which loom reports. Run with
//! `RUSTFLAGS="--cfg loom" cargo test --release -p sigver-server --lib loom_models`.

#![expect(clippy::unwrap_used, reason = "a poisoned lock of a model is the model's failure")]

use std::io;

use loom::{
    model::Builder,
    sync::{Arc, Condvar, Mutex, atomic::AtomicU32, atomic::Ordering, mpsc},
    thread,
};

use crate::{
    sync::credits::Credit,
    sync::waker::Bell,
    write::flusher::Handover,
    write::outbox::{Leftover, Outbox, Sent, Wire},
};

/// One socket with its client, and the flusher's bell: all that `poll` can wait for.
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
    cut: bool,
    rung: bool,
}

impl World {
    fn new(room: usize) -> Arc<Self> {
        let state = State {
            buffer: Vec::new(),
            room,
            received: Vec::new(),
            write_shut: false,
            cut: false,
            rung: false,
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

    /// How many bytes the kernel has taken so far.
    fn taken(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.buffer.len() + state.received.len()
    }

    /// The client: reads until the end, and says what it got.
    fn read_all(&self) -> Vec<u8> {
        let mut state = self.state.lock().unwrap();
        loop {
            while state.buffer.is_empty() && !state.write_shut && !state.cut {
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

    /// `poll`: whether the socket is writable, once it is or the bell rings.
    fn poll(&self, waits_for_socket: bool) -> bool {
        let mut state = self.state.lock().unwrap();
        loop {
            let writable = state.buffer.len() < state.room || state.cut;
            if state.rung || (waits_for_socket && writable) {
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
        if state.cut {
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

    fn cut(&self) {
        self.change(|state| state.cut = true);
    }
}

impl Bell for Arc<World> {
    fn ring(&self) {
        self.change(|state| state.rung = true);
    }

    fn silence(&self) {
        self.change(|state| state.rung = false);
    }
}

/// A peer, its flusher and its client, each where the server has it.
struct Setup {
    world: Arc<World>,
    outbox: Arc<Outbox>,
    handover: Arc<Handover<(), Arc<World>>>,
}

impl Setup {
    fn new(room: usize) -> Self {
        let world = World::new(room);
        Self {
            outbox: Arc::new(Outbox::new()),
            handover: Arc::new(Handover::new(Arc::clone(&world))),
            world,
        }
    }

    fn flusher(&self) -> thread::JoinHandle<()> {
        let (world, outbox, handover) = (
            Arc::clone(&self.world),
            Arc::clone(&self.outbox),
            Arc::clone(&self.handover),
        );
        thread::spawn(move || {
            let mut blocked: Vec<()> = Vec::new();
            let mut ready = Vec::new();
            while handover.turn(&mut blocked, &ready, |()| outbox.flush(&world)) {
                assert!(blocked.len() <= 1, "a peer is handed over once");
                ready = vec![world.poll(!blocked.is_empty()); blocked.len()];
            }
        })
    }

    fn client(&self) -> thread::JoinHandle<Vec<u8>> {
        let world = Arc::clone(&self.world);
        thread::spawn(move || world.read_all())
    }

    /// What the relay does with a frame.
    fn deliver(&self, sent: Sent) -> Sent {
        if sent == Sent::Blocked {
            self.handover.push(());
        }
        sent
    }
}

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// Everything arrives, whole and in order, then the end; whoever sleeps is woken.
#[test]
fn every_frame_arrives_in_order() {
    explore(2, || {
        let setup = Setup::new(2);
        let (flusher, client) = (setup.flusher(), setup.client());
        let _ = setup.deliver(setup.outbox.send(&setup.world, b"aaa"));
        let _ = setup.deliver(setup.outbox.send(&setup.world, b"bb"));
        let _ = setup.deliver(setup.outbox.finish(&setup.world, b"c", Leftover::Keep));
        assert_eq!(client.join().unwrap(), b"aaabbc");
        setup.handover.stop();
        flusher.join().unwrap();
    });
}

/// A peer that is too slow gets whole frames, as many as were on their way, and its close frame behind them.
#[test]
fn a_close_frame_never_lands_inside_another() {
    explore(2, || {
        let setup = Setup::new(2);
        let (flusher, client) = (setup.flusher(), setup.client());
        for frame in [b"aaa", b"bbb", b"ccc"] {
            let _ = setup.deliver(setup.outbox.send(&setup.world, frame));
        }
        let _ = setup.deliver(setup.outbox.finish(&setup.world, b"x", Leftover::Drop));
        let received = String::from_utf8(client.join().unwrap()).unwrap();
        assert!(
            ["x", "aaax", "aaabbbx", "aaabbbcccx"].contains(&&*received),
            "{received}"
        );
        setup.handover.stop();
        flusher.join().unwrap();
    });
}

/// A connection that is cut in the middle of anything sends nothing afterwards, and holds nobody up.
#[test]
fn nothing_follows_a_cut() {
    explore(2, || {
        let setup = Setup::new(2);
        let (flusher, client) = (setup.flusher(), setup.client());
        let cutter = {
            let (world, outbox) = (Arc::clone(&setup.world), Arc::clone(&setup.outbox));
            thread::spawn(move || {
                outbox.abandon();
                let before = world.taken();
                world.cut();
                before
            })
        };
        let _ = setup.deliver(setup.outbox.send(&setup.world, b"aaa"));
        let _ = setup.deliver(setup.outbox.send(&setup.world, b"bb"));
        let before = cutter.join().unwrap();
        let received = client.join().unwrap();
        assert!(
            received.len() <= before && b"aaabb".starts_with(&received),
            "{received:?}"
        );
        assert!(!setup.outbox.flush(&setup.world).is_blocked);
        setup.handover.stop();
        flusher.join().unwrap();
    });
}

/// A connection's thread has no more events on their way than its credit, and is woken when it has some again.
#[test]
fn credit_bounds_what_is_on_its_way() {
    explore(3, || {
        let credit = Arc::new(Credit::new());
        let on_their_way = Arc::new(AtomicU32::new(0));
        let (events, inbox) = mpsc::channel();
        let spender = {
            let (credit, on_their_way) = (Arc::clone(&credit), Arc::clone(&on_their_way));
            thread::spawn(move || {
                credit.bind();
                for event in 0..4 {
                    credit.spend();
                    assert!(on_their_way.fetch_add(1, Ordering::SeqCst) < 2, "over its credit");
                    events.send(event).unwrap();
                }
            })
        };
        for event in 0..4 {
            assert_eq!(inbox.recv().unwrap(), event);
            on_their_way.fetch_sub(1, Ordering::SeqCst);
            credit.refund();
        }
        spender.join().unwrap();
    });
}
