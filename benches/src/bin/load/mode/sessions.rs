//! `sessions`: everything that two browsers do with the server to find each other, from connect to close.
//!
//! ```text
//!   opener  connect ─ open+ping ─ pong                    answer, 8 candidates ─ ...        close ─ close
//!   joiner                          connect ─ join, offer          8 candidates ─ close ─ close
//! ```
//!
//! The joiner connects only after the pong: until the server has answered a ping sent behind the open, a join on
//! another connection may overtake it. The joiner closes first, for when its opener leaves it is closed with 4001.
//! A server that does not answer a close frame is counted, and waited for no longer than [`CLOSE_TIME`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use sigver_benches::{
    engine::{
        Engine,
        connections::{Connections, Handler},
        event::{ConnId, Event},
    },
    error::Error,
    frame::{self, Opcode},
    payload,
};

use crate::{
    measure::{
        latency::Latency,
        meter::Meter,
        metric::{Metric, Sample},
    },
    run::{
        admission,
        bench::{Bench, Setting},
        drive::{Work, drive},
        options::Common,
        servers::Server,
    },
};

pub(crate) fn run(concurrency: &[usize], common: Common) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    let settings = Setting::counts(concurrency, "at once");
    bench.run("sessions", &settings, |&concurrency, server| {
        measure(&bench, server, concurrency)
    })?;
    Ok(())
}

fn measure(bench: &Bench, server: &Server, concurrency: usize) -> Result<Sample, Error> {
    let mut engine = bench.engine(server)?;
    let mut sessions = Sessions::start(&mut engine, concurrency)?;
    let run = |engine: &mut Engine, sessions: &mut Sessions, time| {
        drive(engine, sessions, time, |sessions, conns| {
            sessions.look_at_clock(conns);
            false
        })
    };
    run(&mut engine, &mut sessions, bench.warm_up())?;

    let mut meter = Meter::start(server.pid)?;
    sessions.counts = Counts::default();
    sessions.latency.reset();
    run(&mut engine, &mut sessions, bench.time() / 2)?;
    meter.observe();
    run(&mut engine, &mut sessions, bench.time() / 2)?;
    let usage = meter.stop()?;

    let counts = sessions.counts;
    let mut sample = Sample::new();
    usage.metrics(&mut sample, "session", counts.completed);
    sessions.latency.metrics(&mut sample, "");
    let count = |name, count: u64| Metric::absolute(name, count as f64);
    sample.push(count("failed sessions", counts.failed));
    sample.push(count("close frames unanswered", counts.unanswered));
    Ok(sample)
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    completed: u64,
    failed: u64,
    unanswered: u64,
}

#[derive(Debug)]
struct Sessions {
    slots: Vec<Session>,
    prefix: String,
    /// Sessions begun: a session's key, and the part of its connections' tags that tells them from those of the
    /// session that had the slot before.
    begun: u64,
    /// Connections whose close handshake is over and whose stream the server should end.
    lingering: VecDeque<(Instant, ConnId)>,
    frames: Frames,
    counts: Counts,
    latency: Latency,
    trouble: Option<Error>,
}

#[derive(Debug)]
struct Session {
    number: u64,
    key: String,
    began: Instant,
    step_began: Instant,
    step: Step,
    opener: ConnId,
    joiner: Option<ConnId>,
    opener_got: u32,
    joiner_got: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Talking,
    JoinerCloses,
    OpenerCloses,
}

#[derive(Debug)]
struct Frames {
    offer: Vec<u8>,
    answer: Vec<u8>,
    opener_candidates: Vec<Vec<u8>>,
    joiner_candidates: Vec<Vec<u8>>,
}

impl Sessions {
    fn start(engine: &mut Engine, concurrency: usize) -> Result<Self, Error> {
        let candidates = |index| {
            let candidate = |number| frame::client_text(&payload::candidate(number, index));
            (0..CANDIDATES).map(candidate).collect()
        };
        let mut sessions = Self {
            slots: Vec::with_capacity(concurrency),
            prefix: admission::unique(),
            begun: 0,
            lingering: VecDeque::new(),
            frames: Frames {
                offer: frame::client_text(&payload::offer()),
                answer: frame::client_text(&payload::answer(0)),
                opener_candidates: candidates(Some(0)),
                joiner_candidates: candidates(None),
            },
            counts: Counts::default(),
            latency: Latency::new()?,
            trouble: None,
        };
        for slot in 0..concurrency {
            let session = sessions.begin(engine.conns(), slot)?;
            sessions.slots.push(session);
        }
        Ok(sessions)
    }

    fn begin(&mut self, conns: &mut Connections, slot: usize) -> Result<Session, Error> {
        self.begun += 1;
        let now = Instant::now();
        Ok(Session {
            number: self.begun,
            key: format!("{}-{}", self.prefix, self.begun),
            began: now,
            step_began: now,
            step: Step::Talking,
            opener: conns.connect(tag(self.begun, slot, OPENER))?,
            joiner: None,
            opener_got: 0,
            joiner_got: 0,
        })
    }

    fn next(&mut self, conns: &mut Connections, slot: usize) {
        match self.begin(conns, slot) {
            Ok(session) => self.slots[slot] = session,
            Err(error) => self.trouble = Some(error),
        }
    }

    fn fail(&mut self, conns: &mut Connections, slot: usize) {
        self.counts.failed += 1;
        let session = &self.slots[slot];
        conns.abandon(session.opener);
        if let Some(joiner) = session.joiner {
            conns.abandon(joiner);
        }
        if self.counts.failed > FAILURES {
            self.trouble = Some(Error::new(format!("{FAILURES} sessions have failed")));
        }
        self.next(conns, slot);
    }

    /// Gives up on what takes too long.
    fn look_at_clock(&mut self, conns: &mut Connections) {
        let now = Instant::now();
        while let Some(&(since, id)) = self.lingering.front() {
            if now - since < CLOSE_TIME {
                break;
            }
            conns.abandon(id);
            self.lingering.pop_front();
        }
        for slot in 0..self.slots.len() {
            let session = &self.slots[slot];
            match session.step {
                Step::Talking if now - session.began > SESSION_TIME => self.fail(conns, slot),
                Step::JoinerCloses | Step::OpenerCloses if now - session.step_began > CLOSE_TIME => {
                    self.counts.unanswered += 1;
                    self.after_close(conns, slot);
                }
                Step::Talking | Step::JoinerCloses | Step::OpenerCloses => {}
            }
        }
    }

    fn on_upgraded(&mut self, conns: &mut Connections, id: ConnId, slot: usize, role: u64) {
        let key = &self.slots[slot].key;
        if role == OPENER {
            let mut frames = frame::client_text(&payload::open(key));
            frame::push_client_frame(&mut frames, Opcode::Ping, b"");
            conns.send(id, &frames);
        } else {
            conns.send(id, &frame::client_text(&payload::join(key)));
            conns.send(id, &self.frames.offer);
        }
    }

    fn on_message(&mut self, conns: &mut Connections, id: ConnId, slot: usize, role: u64) {
        let session = &mut self.slots[slot];
        if role == OPENER {
            session.opener_got += 1;
            // The first message tells of the joiner, the second is the offer.
            if session.opener_got == 2 {
                conns.send(id, &self.frames.answer);
                for candidate in &self.frames.opener_candidates {
                    conns.send(id, candidate);
                }
            }
        } else {
            session.joiner_got += 1;
            if session.joiner_got == 1 {
                for candidate in &self.frames.joiner_candidates {
                    conns.send(id, candidate);
                }
            }
        }
        let all = session.opener_got == 2 + CANDIDATES && session.joiner_got == 1 + CANDIDATES;
        if let (true, Some(joiner)) = (all, session.joiner) {
            session.step = Step::JoinerCloses;
            session.step_began = Instant::now();
            conns.close(joiner, NORMAL);
        }
    }

    /// The close of one side is over, answered or not.
    fn after_close(&mut self, conns: &mut Connections, slot: usize) {
        let now = Instant::now();
        let session = &mut self.slots[slot];
        if session.step == Step::JoinerCloses {
            self.lingering.extend(session.joiner.map(|id| (now, id)));
            session.step = Step::OpenerCloses;
            session.step_began = now;
            conns.close(session.opener, NORMAL);
        } else {
            self.lingering.push_back((now, session.opener));
            self.latency.record(session.began.elapsed());
            self.counts.completed += 1;
            self.next(conns, slot);
        }
    }
}

impl Handler for Sessions {
    fn on_event(&mut self, conns: &mut Connections, id: ConnId, tag: u64, event: Event<'_>) {
        let (slot, role) = ((tag >> 1 & 0xffff) as usize, tag & 1);
        let session = &mut self.slots[slot];
        if session.number != tag >> 17 {
            // Left over from the session that had the slot before: its stream ends.
            return;
        }
        let closing = match session.step {
            Step::Talking => false,
            Step::JoinerCloses => role == JOINER,
            Step::OpenerCloses if role == JOINER => return,
            Step::OpenerCloses => true,
        };
        match event {
            Event::Upgraded => self.on_upgraded(conns, id, slot, role),
            Event::Pong(_) => match conns.connect(self::tag(session.number, slot, JOINER)) {
                Ok(joiner) => session.joiner = Some(joiner),
                Err(error) => self.trouble = Some(error.into()),
            },
            Event::Message(_) => self.on_message(conns, id, slot, role),
            Event::Close(_) if closing => self.after_close(conns, slot),
            Event::Ended(_) if closing => {
                self.counts.unanswered += 1;
                self.after_close(conns, slot);
            }
            Event::Close(_) | Event::Ended(_) => self.fail(conns, slot),
            Event::Drained => {}
        }
    }
}

impl Work for Sessions {
    fn trouble(&mut self) -> Option<Error> {
        self.trouble.take()
    }
}

fn tag(number: u64, slot: usize, role: u64) -> u64 {
    number << 17 | (slot as u64 & 0xffff) << 1 | role
}

const OPENER: u64 = 0;
const JOINER: u64 = 1;
const CANDIDATES: u32 = 8;
const NORMAL: u16 = 1000;

/// After so many failures there is nothing left to measure.
const FAILURES: u64 = 1_000;

/// How long a session may take until its close.
const SESSION_TIME: Duration = Duration::from_secs(10);

/// How long a close frame may stay unanswered, and an answered one be followed by the end of the stream.
const CLOSE_TIME: Duration = Duration::from_secs(1);
