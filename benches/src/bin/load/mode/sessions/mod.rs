//! `sessions`: whole sessions of two browsers, from connect to close.
//!
//! ```text
//!   opener  connect ─ open+ping ─ pong                    answer, 8 candidates ─ ...        close ─ close
//!   joiner                          connect ─ join, offer          8 candidates ─ close ─ close
//! ```
//!
//! The joiner connects after the pong: before the server has answered a ping that follows the open, a join on another
//! connection can overtake the open. The joiner closes first, since the server closes it with 4001 if its opener leaves.
//! If the server does not answer a close frame within [`CLOSE_TIMEOUT`], this is counted and the session continues.

mod script;

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
};

use self::script::{End, Script};
use crate::{
    measure::{
        latency::LatencyHistogram,
        meter::Meter,
        metric::{Metric, Sample},
    },
    run::{
        bench::{Bench, Setting},
        clients,
        drive::{Workload, drive},
        options::CommonOptions,
        servers::Server,
    },
};

pub(crate) fn run(at_once: &[usize], common: CommonOptions) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    let settings = Setting::counts(at_once, "at once");
    bench.run("sessions", &settings, |&at_once, server| {
        measure(&bench, server, at_once)
    })?;
    Ok(())
}

fn measure(bench: &Bench, server: &Server, at_once: usize) -> Result<Sample, Error> {
    let mut engine = bench.engine_of_any(server)?;
    let script = Script::new(server.protocol, &server.endpoint.path);
    let mut sessions = Sessions::start(&mut engine, script, at_once)?;
    let run = |engine: &mut Engine, sessions: &mut Sessions, time| {
        drive(engine, sessions, time, |sessions, conns| {
            sessions.check_timeouts(conns);
            false
        })
    };
    run(&mut engine, &mut sessions, bench.warm_up())?;

    let mut meter = Meter::start(server.pid)?;
    sessions.counts = Counts::default();
    sessions.latency.reset();
    run(&mut engine, &mut sessions, bench.duration() / 2)?;
    meter.observe_threads();
    run(&mut engine, &mut sessions, bench.duration() / 2)?;
    let usage = meter.stop()?;

    let counts = sessions.counts;
    if counts.completed == 0 {
        let seconds = bench.duration().as_secs_f64();
        return Err(Error::new(format!("no session completed in {seconds:.1} s")));
    }
    for session in &sessions.slots {
        sessions.latency.record_pending(session.began.elapsed());
    }
    let mut sample = Sample::new();
    usage.push_metrics(&mut sample, "session", counts.completed);
    sessions.latency.push_metrics(&mut sample, "");
    let count = |name, count: u64| Metric::absolute(name, count as f64);
    sample.push(count("failed sessions", counts.failed));
    sample.push(count("unanswered close frames", counts.unanswered));
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
    /// Number of sessions started. It is part of keys and tags, and distinguishes the connections of a session from those
    /// of earlier sessions in the same slot.
    started: u64,
    /// Connections after the close handshake, which the server should disconnect.
    lingering: VecDeque<(Instant, ConnId)>,
    script: Script,
    counts: Counts,
    latency: LatencyHistogram,
    error: Option<Error>,
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
    opener_received: u32,
    joiner_received: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Exchanging,
    ClosingJoiner,
    ClosingOpener,
}

impl Sessions {
    fn start(engine: &mut Engine, script: Script, at_once: usize) -> Result<Self, Error> {
        let mut sessions = Self {
            slots: Vec::with_capacity(at_once),
            prefix: clients::unique_prefix(),
            started: 0,
            lingering: VecDeque::new(),
            script,
            counts: Counts::default(),
            latency: LatencyHistogram::new()?,
            error: None,
        };
        for slot in 0..at_once {
            let session = sessions.connect(engine.conns(), slot)?;
            sessions.slots.push(session);
        }
        Ok(sessions)
    }

    fn connect(&mut self, conns: &mut Connections, slot: usize) -> Result<Session, Error> {
        self.started += 1;
        let now = Instant::now();
        let key = format!("{}-{}", self.prefix, self.started);
        let opener = self.connect_end(conns, End::Opener, &key, tag(self.started, slot, OPENER))?;
        Ok(Session {
            number: self.started,
            key,
            began: now,
            step_began: now,
            step: Step::Exchanging,
            opener,
            joiner: None,
            opener_received: 0,
            joiner_received: 0,
        })
    }

    fn connect_end(&self, conns: &mut Connections, end: End, key: &str, tag: u64) -> Result<ConnId, Error> {
        Ok(match self.script.path(end, key) {
            Some(path) => conns.connect_to(tag, &path)?,
            None => conns.connect(tag)?,
        })
    }

    fn restart(&mut self, conns: &mut Connections, slot: usize) {
        match self.connect(conns, slot) {
            Ok(session) => self.slots[slot] = session,
            Err(error) => self.error = Some(error),
        }
    }

    fn fail(&mut self, conns: &mut Connections, slot: usize) {
        self.counts.failed += 1;
        let session = &self.slots[slot];
        conns.abort(session.opener);
        if let Some(joiner) = session.joiner {
            conns.abort(joiner);
        }
        if self.counts.failed > MAX_FAILED_SESSIONS {
            self.error = Some(Error::new(format!("{MAX_FAILED_SESSIONS} sessions failed")));
        }
        self.restart(conns, slot);
    }

    /// Aborts sessions and close handshakes that take too long.
    fn check_timeouts(&mut self, conns: &mut Connections) {
        let now = Instant::now();
        while let Some(&(since, id)) = self.lingering.front() {
            if now - since < CLOSE_TIMEOUT {
                break;
            }
            conns.abort(id);
            self.lingering.pop_front();
        }
        for slot in 0..self.slots.len() {
            let session = &self.slots[slot];
            match session.step {
                Step::Exchanging if now - session.began > SESSION_TIMEOUT => self.fail(conns, slot),
                Step::ClosingJoiner | Step::ClosingOpener if now - session.step_began > CLOSE_TIMEOUT => {
                    self.counts.unanswered += 1;
                    self.after_close(conns, slot);
                }
                Step::Exchanging | Step::ClosingJoiner | Step::ClosingOpener => {}
            }
        }
    }

    fn on_upgraded(&mut self, conns: &mut Connections, id: ConnId, slot: usize, role: u64) {
        let frames = self.script.begin(end(role), &self.slots[slot].key);
        conns.send(id, &frames);
    }

    fn on_message(&mut self, conns: &mut Connections, id: ConnId, slot: usize, role: u64, message: &[u8]) {
        let session = &mut self.slots[slot];
        let received = match end(role) {
            End::Opener => &mut session.opener_received,
            End::Joiner => &mut session.joiner_received,
        };
        *received += 1;
        if let Some(frames) = self.script.react(end(role), &session.key, *received, message) {
            conns.send(id, &frames);
        }
        let all = session.opener_received == self.script.messages(End::Opener)
            && session.joiner_received == self.script.messages(End::Joiner);
        if let (true, Some(joiner)) = (all, session.joiner) {
            session.step = Step::ClosingJoiner;
            session.step_began = Instant::now();
            conns.close(joiner, NORMAL_CLOSURE);
        }
    }

    /// Continues after the close handshake of one side, answered or not.
    fn after_close(&mut self, conns: &mut Connections, slot: usize) {
        let now = Instant::now();
        let session = &mut self.slots[slot];
        if session.step == Step::ClosingJoiner {
            self.lingering.extend(session.joiner.map(|id| (now, id)));
            session.step = Step::ClosingOpener;
            session.step_began = now;
            conns.close(session.opener, NORMAL_CLOSURE);
        } else {
            self.lingering.push_back((now, session.opener));
            self.latency.record(session.began.elapsed());
            self.counts.completed += 1;
            self.restart(conns, slot);
        }
    }
}

impl Handler for Sessions {
    fn on_event(&mut self, conns: &mut Connections, id: ConnId, tag: u64, event: Event<'_>) {
        let (slot, role) = ((tag >> 1 & 0xffff) as usize, tag & 1);
        let session = &mut self.slots[slot];
        if session.number != tag >> 17 {
            // A connection of an earlier session in the same slot.
            return;
        }
        let closing = match session.step {
            Step::Exchanging => false,
            Step::ClosingJoiner => role == JOINER,
            Step::ClosingOpener if role == JOINER => return,
            Step::ClosingOpener => true,
        };
        match event {
            Event::Upgraded => self.on_upgraded(conns, id, slot, role),
            Event::Pong(_) => {
                let (key, tag) = (session.key.clone(), self::tag(session.number, slot, JOINER));
                match self.connect_end(conns, End::Joiner, &key, tag) {
                    Ok(joiner) => self.slots[slot].joiner = Some(joiner),
                    Err(error) => self.error = Some(error),
                }
            }
            Event::Message(message) => self.on_message(conns, id, slot, role, message),
            Event::Close(_) if closing => self.after_close(conns, slot),
            Event::Disconnected(_) if closing => {
                self.counts.unanswered += 1;
                self.after_close(conns, slot);
            }
            Event::Close(_) | Event::Disconnected(_) => self.fail(conns, slot),
            Event::Drained => {}
        }
    }
}

impl Workload for Sessions {
    fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }
}

fn tag(number: u64, slot: usize, role: u64) -> u64 {
    number << 17 | (slot as u64 & 0xffff) << 1 | role
}

const fn end(role: u64) -> End {
    if role == OPENER { End::Opener } else { End::Joiner }
}

const OPENER: u64 = 0;
const JOINER: u64 = 1;
const NORMAL_CLOSURE: u16 = 1000;

/// Number of failures that ends the run.
const MAX_FAILED_SESSIONS: u64 = 1_000;

/// Timeout of a session, up to its close.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of the answer to a close frame, and of the disconnect that follows.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
