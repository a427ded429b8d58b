//! The attacks of `fairness`: clients that send as fast as they can.
//!
//! If the server disconnects an attacker, it reconnects immediately. The number of disconnects is reported.

use std::{
    fmt,
    time::{Duration, Instant},
};

use clap::ValueEnum;
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
    agent::{parent::ParentLink, result::AgentResult},
    run::clients::{Pairs, client_specs, connect_clients, unique_keys},
};

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// A joiner sends a continuous stream of small messages to its opener, which reads them.
    Flood,
    /// Eight pairs like the one of `flood`.
    Floods,
    /// An opener sends a continuous stream of empty pings.
    Pings,
    /// An opener sends a continuous stream of empty fragments of one message.
    Fragments,
    /// A joiner sends 100 MB to its opener, which does not read.
    Greedy,
}

impl Attack {
    /// All attacks, in the order of the report.
    pub(crate) const ALL: [Self; 5] = [Self::Flood, Self::Floods, Self::Pings, Self::Fragments, Self::Greedy];
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flood => "flood",
            Self::Floods => "floods",
            Self::Pings => "pings",
            Self::Fragments => "fragments",
            Self::Greedy => "greedy",
        })
    }
}

pub(super) fn run(engine: &mut Engine, parent: &ParentLink, kind: Attack) -> Result<AgentResult, Error> {
    let plan = AttackPlan::of(kind);
    let mut state = AttackState::default();
    let mut ready_reported = false;
    let began = Instant::now();
    while !parent.stop_requested() {
        let clients = AttackClients::connect(engine, &plan)?;
        state.disconnected = false;
        if !ready_reported {
            ready_reported = true;
            parent.report_ready();
        }
        send_until_stopped(engine, &mut state, &plan, &clients, parent)?;
        if plan.pause_openers {
            return drain_openers(engine, state, &clients, parent);
        }
        for &id in clients.senders.iter().chain(&clients.receivers) {
            engine.conns().abort(id);
        }
    }
    let mut result = AgentResult::default();
    let rate = state.sent as f64 / began.elapsed().as_secs_f64();
    result.push("attack frames/s", rate);
    result.push("attackers disconnected", state.disconnects as f64);
    Ok(result)
}

/// Sends until the parent requests a stop, the server disconnects a client, or the limit of the plan is reached.
fn send_until_stopped(
    engine: &mut Engine,
    state: &mut AttackState,
    plan: &AttackPlan,
    clients: &AttackClients,
    parent: &ParentLink,
) -> Result<(), Error> {
    for &id in &clients.senders {
        engine.conns().send(id, &plan.prelude);
    }
    while !parent.stop_requested() && !state.disconnected {
        let mut full = true;
        for &id in &clients.senders {
            if engine.conns().backlog(id) == 0 && state.sent < plan.limit {
                engine.conns().send(id, &plan.chunk);
                state.sent += plan.frames_per_chunk;
                full &= engine.conns().backlog(id) > 0;
            }
        }
        let finished = state.sent >= plan.limit;
        let wait = if full || finished {
            POLL_INTERVAL
        } else {
            Duration::ZERO
        };
        engine.poll(wait, state)?;
    }
    Ok(())
}

/// Ends the attack `greedy`: the opener resumes reading, and the close codes of both sides are collected.
fn drain_openers(
    engine: &mut Engine,
    mut state: AttackState,
    clients: &AttackClients,
    parent: &ParentLink,
) -> Result<AgentResult, Error> {
    while !parent.stop_requested() {
        engine.poll(POLL_INTERVAL, &mut state)?;
    }
    for &id in &clients.receivers {
        engine.conns().resume(id);
    }
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    while Instant::now() < deadline && !engine.conns().is_empty() {
        engine.poll(POLL_INTERVAL, &mut state)?;
    }
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let mut result = AgentResult::default();
    let sent = state.sent * GREEDY_MESSAGE_LEN as u64;
    result.push("joiner sent, MB", megabytes(sent));
    let received = state.received;
    result.push("opener received, MB", megabytes(received));
    result.push("opener close code", state.codes[0].into());
    result.push("joiner close code", state.codes[1].into());
    Ok(result)
}

/// What the clients of an attack do.
#[derive(Debug)]
struct AttackPlan {
    pairs: usize,
    /// If set, joiners send to their openers. Otherwise openers without joiners send.
    joiners_send: bool,
    /// Whether openers do not read until the attack ends.
    pause_openers: bool,
    /// Frames that each sender sends first.
    prelude: Vec<u8>,
    /// Frames that each sender then sends repeatedly.
    chunk: Vec<u8>,
    frames_per_chunk: u64,
    /// Frames to send, at most.
    limit: u64,
}

impl AttackPlan {
    fn of(kind: Attack) -> Self {
        let unlimited = |pairs, frame: &[u8]| Self {
            pairs,
            joiners_send: false,
            pause_openers: false,
            prelude: Vec::new(),
            chunk: frame.repeat(CHUNK_LEN / frame.len()),
            frames_per_chunk: (CHUNK_LEN / frame.len()) as u64,
            limit: u64::MAX,
        };
        let small = frame::client_text(br#"{"a":1}"#);
        match kind {
            Attack::Flood => Self {
                joiners_send: true,
                ..unlimited(1, &small)
            },
            Attack::Floods => Self {
                joiners_send: true,
                ..unlimited(8, &small)
            },
            Attack::Pings => {
                let mut ping = Vec::new();
                frame::push_client_frame(&mut ping, Opcode::Ping, b"");
                unlimited(1, &ping)
            }
            Attack::Fragments => {
                let mut prelude = Vec::new();
                frame::push_client_fragment(&mut prelude, Opcode::Text, false, b"");
                let mut fragment = Vec::new();
                frame::push_client_fragment(&mut fragment, Opcode::Continuation, false, b"");
                Self {
                    prelude,
                    ..unlimited(1, &fragment)
                }
            }
            Attack::Greedy => Self {
                joiners_send: true,
                pause_openers: true,
                limit: GREEDY_BYTES / GREEDY_MESSAGE_LEN as u64,
                ..unlimited(1, &frame::client_text(&payload::filler(GREEDY_MESSAGE_LEN)))
            },
        }
    }
}

/// The connections of an attack.
#[derive(Debug)]
struct AttackClients {
    senders: Vec<ConnId>,
    receivers: Vec<ConnId>,
}

impl AttackClients {
    fn connect(engine: &mut Engine, plan: &AttackPlan) -> Result<Self, Error> {
        if !plan.joiners_send {
            let openers = client_specs(&unique_keys(plan.pairs), 0, payload::open);
            return Ok(Self {
                senders: connect_clients(engine, &openers, 0)?,
                receivers: Vec::new(),
            });
        }
        let pairs = Pairs::connect(engine, plan.pairs)?;
        if plan.pause_openers {
            for &opener in &pairs.openers {
                engine.conns().pause(opener);
            }
        }
        Ok(Self {
            senders: pairs.joiners,
            receivers: pairs.openers,
        })
    }
}

#[derive(Debug, Default)]
struct AttackState {
    sent: u64,
    received: u64,
    disconnects: u64,
    disconnected: bool,
    /// The last close code of an opener and of a joiner: 1006 if there was no close frame, 0 if it is still open.
    codes: [u16; 2],
}

impl Handler for AttackState {
    fn on_event(&mut self, _: &mut Connections, _: ConnId, tag: u64, event: Event<'_>) {
        let code = &mut self.codes[(tag % 2) as usize];
        match event {
            Event::Message(text) => self.received += text.len() as u64,
            Event::Close(with) => *code = with.unwrap_or(1005),
            Event::Disconnected(_) => {
                if *code == 0 {
                    *code = 1006;
                }
                self.disconnects += 1;
                self.disconnected = true;
            }
            Event::Upgraded | Event::Pong(_) | Event::Drained => {}
        }
    }
}

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Bytes per send.
const CHUNK_LEN: usize = 64 * 1024;

const GREEDY_MESSAGE_LEN: usize = 16 * 1024;
const GREEDY_BYTES: u64 = 100_000_000;

/// Time for the opener of `greedy` to read what is queued.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
