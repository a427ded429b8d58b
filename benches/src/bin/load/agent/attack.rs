//! The attacks of `fairness`: clients that send all they can, within the rules or at their edge.
//!
//! An attacker whom the server throws out comes back at once, so that the attack goes on; how often is reported.

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
    agent::{findings::Findings, parent::Parent},
    run::admission::{Pairs, admit, entrants, keys},
};

/// What the attacker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// A joiner sends small messages without end to its own opener, which reads them all.
    Flood,
    /// Eight such pairs.
    Floods,
    /// An opener sends empty pings without end.
    Pings,
    /// An opener begins a message and adds empty fragments to it without end.
    Fragments,
    /// A joiner sends 100 MB to its own opener, which reads nothing.
    Greedy,
}

impl Attack {
    /// All of them, in the order in which they are shown.
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

pub(super) fn run(engine: &mut Engine, parent: &Parent, kind: Attack) -> Result<Findings, Error> {
    let plan = Plan::of(kind);
    let mut attackers = Attackers::default();
    let mut told = false;
    let began = Instant::now();
    while !parent.says_end() {
        let crew = Crew::establish(engine, &plan)?;
        attackers.thrown_out = false;
        if !told {
            told = true;
            parent.tell_ready();
        }
        press(engine, &mut attackers, &plan, &crew, parent)?;
        if plan.mute_openers {
            return listen_again(engine, attackers, &crew, parent);
        }
        for &id in crew.senders.iter().chain(&crew.receivers) {
            engine.conns().abandon(id);
        }
    }
    let mut findings = Findings::default();
    let rate = attackers.sent as f64 / began.elapsed().as_secs_f64();
    findings.add("attack frames/s", rate);
    findings.add("attackers thrown out", attackers.closes as f64);
    Ok(findings)
}

/// Sends until the parent has enough, the server has, or the plan's end is reached.
fn press(
    engine: &mut Engine,
    attackers: &mut Attackers,
    plan: &Plan,
    crew: &Crew,
    parent: &Parent,
) -> Result<(), Error> {
    for &id in &crew.senders {
        engine.conns().send(id, &plan.prelude);
    }
    while !parent.says_end() && !attackers.thrown_out {
        let mut full = true;
        for &id in &crew.senders {
            if engine.conns().backlog(id) == 0 && attackers.sent < plan.limit {
                engine.conns().send(id, &plan.chunk);
                attackers.sent += plan.frames_per_chunk;
                full &= engine.conns().backlog(id) > 0;
            }
        }
        let finished = attackers.sent >= plan.limit;
        let wait = if full || finished { TICK } else { Duration::ZERO };
        engine.poll(wait, attackers)?;
    }
    Ok(())
}

/// The end of the greedy pair's attack: its opener reads at last, and both see how they were treated.
fn listen_again(
    engine: &mut Engine,
    mut attackers: Attackers,
    crew: &Crew,
    parent: &Parent,
) -> Result<Findings, Error> {
    while !parent.says_end() {
        engine.poll(TICK, &mut attackers)?;
    }
    for &id in &crew.receivers {
        engine.conns().resume(id);
    }
    let deadline = Instant::now() + LAST_WORDS;
    while Instant::now() < deadline && !engine.conns().is_empty() {
        engine.poll(TICK, &mut attackers)?;
    }
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let mut findings = Findings::default();
    let sent = attackers.sent * GREEDY_BODY as u64;
    findings.add("joiner sent, MB", megabytes(sent));
    let received = attackers.received;
    findings.add("opener got in the end, MB", megabytes(received));
    findings.add("opener's close code", attackers.codes[0].into());
    findings.add("joiner's close code", attackers.codes[1].into());
    Ok(findings)
}

/// What an attack consists of.
#[derive(Debug)]
struct Plan {
    pairs: usize,
    /// Whether joiners send to their openers; else openers send, to nobody.
    joiners: bool,
    mute_openers: bool,
    prelude: Vec<u8>,
    chunk: Vec<u8>,
    frames_per_chunk: u64,
    /// How many frames are enough.
    limit: u64,
}

impl Plan {
    fn of(kind: Attack) -> Self {
        let endless = |pairs, frame: &[u8]| Self {
            pairs,
            joiners: false,
            mute_openers: false,
            prelude: Vec::new(),
            chunk: frame.repeat(CHUNK / frame.len()),
            frames_per_chunk: (CHUNK / frame.len()) as u64,
            limit: u64::MAX,
        };
        let small = frame::client_text(br#"{"a":1}"#);
        match kind {
            Attack::Flood => Self {
                joiners: true,
                ..endless(1, &small)
            },
            Attack::Floods => Self {
                joiners: true,
                ..endless(8, &small)
            },
            Attack::Pings => {
                let mut ping = Vec::new();
                frame::push_client_frame(&mut ping, Opcode::Ping, b"");
                endless(1, &ping)
            }
            Attack::Fragments => {
                let mut prelude = Vec::new();
                frame::push_client_fragment(&mut prelude, Opcode::Text, false, b"");
                let mut fragment = Vec::new();
                frame::push_client_fragment(&mut fragment, Opcode::Continuation, false, b"");
                Self {
                    prelude,
                    ..endless(1, &fragment)
                }
            }
            Attack::Greedy => {
                let mut text = br#"{"x":""#.to_vec();
                text.resize(GREEDY_BODY - 2, b'x');
                text.extend_from_slice(br#""}"#);
                Self {
                    joiners: true,
                    mute_openers: true,
                    limit: GREEDY_BYTES / GREEDY_BODY as u64,
                    ..endless(1, &frame::client_text(&text))
                }
            }
        }
    }
}

/// The connections of an attack.
#[derive(Debug)]
struct Crew {
    senders: Vec<ConnId>,
    receivers: Vec<ConnId>,
}

impl Crew {
    fn establish(engine: &mut Engine, plan: &Plan) -> Result<Self, Error> {
        if !plan.joiners {
            let openers = entrants(&keys(plan.pairs), 0, payload::open);
            return Ok(Self {
                senders: admit(engine, &openers, 0)?,
                receivers: Vec::new(),
            });
        }
        let pairs = Pairs::establish(engine, plan.pairs)?;
        if plan.mute_openers {
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
struct Attackers {
    sent: u64,
    received: u64,
    closes: u64,
    thrown_out: bool,
    /// The last close code of an opener and of a joiner; 1006 for an end without a close frame, 0 for none.
    codes: [u16; 2],
}

impl Handler for Attackers {
    fn on_event(&mut self, _: &mut Connections, _: ConnId, tag: u64, event: Event<'_>) {
        let code = &mut self.codes[(tag % 2) as usize];
        match event {
            Event::Message(text) => self.received += text.len() as u64,
            Event::Close(with) => *code = with.unwrap_or(1005),
            Event::Ended(_) => {
                if *code == 0 {
                    *code = 1006;
                }
                self.closes += 1;
                self.thrown_out = true;
            }
            Event::Upgraded | Event::Pong(_) | Event::Drained => {}
        }
    }
}

const TICK: Duration = Duration::from_millis(20);

/// Bytes sent by one call.
const CHUNK: usize = 64 * 1024;

const GREEDY_BODY: usize = 16 * 1024;
const GREEDY_BYTES: u64 = 100_000_000;

/// How long the greedy pair listens at the end.
const LAST_WORDS: Duration = Duration::from_secs(5);
