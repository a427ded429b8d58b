//! The two halves of `many`: openers in one process, their joiners in another.
//!
//! A payload is a function of its name, so each half knows what the other has sent without asking it.

use std::time::{Duration, Instant};

use sigver_benches::{
    check::{Inbox, Tally},
    engine::{
        Engine,
        connections::{Connections, Handler},
        event::{ConnId, Event},
    },
    error::Error,
    frame,
    payload::{self, Side, Sizes, Stream},
};

use crate::{
    agent::{findings::Findings, parent::Parent},
    run::{
        admission::{self, Entrant, admit},
        drive::{Work, drive},
    },
};

/// One of the two halves of `many`.
#[derive(Debug, clap::Args)]
pub(crate) struct Members {
    /// The part that all keys begin with.
    #[arg(long)]
    prefix: String,
    /// How many.
    #[arg(long)]
    count: u32,
    /// Payloads each way on each pair.
    #[arg(long)]
    messages: u32,
}

pub(super) fn run_openers(engine: &mut Engine, parent: &Parent, members: &Members) -> Result<Findings, Error> {
    let began = Instant::now();
    let conns = admit(engine, &entrants(members, payload::open), 0)?;
    let took = began.elapsed();
    parent.tell_ready();
    let mut half = Half::new(members, Side::Opener, conns);
    drive(engine, &mut half, HOLD, |_, _| parent.says_end())?;
    // What was relayed last may still be on its way.
    drive(engine, &mut half, AFTERMATH, |half, _| half.is_complete())?;
    Ok(half.findings(took))
}

pub(super) fn run_joiners(engine: &mut Engine, parent: &Parent, members: &Members) -> Result<Findings, Error> {
    let began = Instant::now();
    let conns = admit(engine, &entrants(members, payload::join), 0)?;
    let took = began.elapsed();
    parent.tell_ready();
    let mut half = Half::new(members, Side::Joiner, conns);
    let ended = |_: &mut Half, _: &mut Connections| parent.says_go() || parent.says_end();
    drive(engine, &mut half, PATIENCE, ended)?;
    let began = Instant::now();
    for pair in 0..members.count {
        half.send(engine.conns(), pair);
    }
    drive(engine, &mut half, PATIENCE, |half, _| half.is_complete())?;
    let relaying = began.elapsed();
    let mut findings = half.findings(took);
    findings.add("relaying, s", relaying.as_secs_f64());
    parent.tell_ready();
    // The connections stay until the parent has looked at the server.
    drive(engine, &mut half, HOLD, |_, _| parent.says_end())?;
    Ok(findings)
}

#[derive(Debug)]
struct Half {
    side: Side,
    conns: Vec<ConnId>,
    inboxes: Vec<Inbox>,
    /// Payloads sent on each pair.
    sent: Vec<u32>,
    messages: u32,
    received: u64,
    tally: Tally,
    trouble: Option<Error>,
}

impl Half {
    fn new(members: &Members, side: Side, conns: Vec<ConnId>) -> Self {
        let other = match side {
            Side::Opener => Side::Joiner,
            Side::Joiner => Side::Opener,
        };
        let inbox = |pair| Inbox::new([stream(pair, other)], SIZES);
        Self {
            side,
            sent: vec![0; conns.len()],
            conns,
            inboxes: (0..members.count).map(inbox).collect(),
            messages: members.messages,
            received: 0,
            tally: Tally::default(),
            trouble: None,
        }
    }

    fn send(&mut self, conns: &mut Connections, pair: u32) {
        let place = pair as usize;
        if self.sent[place] < self.messages {
            let text = payload::build(stream(pair, self.side), self.sent[place], SIZES);
            self.sent[place] += 1;
            conns.send(self.conns[place], &frame::client_text(&text));
        }
    }

    fn is_complete(&self) -> bool {
        self.received == u64::from(self.messages) * self.conns.len() as u64
    }

    fn findings(&mut self, set_up: Duration) -> Findings {
        for inbox in &self.inboxes {
            inbox.finish(self.messages, &mut self.tally);
        }
        let mut findings = Findings::default();
        findings.add("set-up, s", set_up.as_secs_f64());
        for (name, count) in self.tally.named() {
            findings.add(name, count as f64);
        }
        findings
    }
}

impl Handler for Half {
    fn on_event(&mut self, conns: &mut Connections, _: ConnId, tag: u64, event: Event<'_>) {
        match event {
            // What tells an opener of its joiner.
            Event::Message(text) if text == payload::JOINED => {}
            Event::Message(text) => {
                self.received += 1;
                let inbox = &mut self.inboxes[tag as usize];
                if let Some(stream) = inbox.receive(text, &mut self.tally) {
                    self.send(conns, stream.key);
                }
            }
            Event::Close(code) => self.trouble = Some(admission::closed(code)),
            Event::Ended(ending) => {
                let ended = || Error::new(format!("a connection ended: {ending:?}"));
                self.trouble.get_or_insert_with(ended);
            }
            Event::Upgraded | Event::Pong(_) | Event::Drained => {}
        }
    }
}

impl Work for Half {
    fn trouble(&mut self) -> Option<Error> {
        self.trouble.take()
    }
}

fn entrants(members: &Members, role: fn(&str) -> Vec<u8>) -> Vec<Entrant> {
    let entrant = |pair| Entrant {
        tag: u64::from(pair),
        role: role(&format!("{}-{pair}", members.prefix)),
    };
    (0..members.count).map(entrant).collect()
}

/// Every key has one joiner, whose index is 0.
fn stream(pair: u32, from: Side) -> Stream {
    Stream {
        key: pair,
        joiner: 0,
        from,
    }
}

const SIZES: Sizes = Sizes {
    least: 100,
    most: 4_000,
};

const PATIENCE: Duration = Duration::from_secs(120);

/// Longer than the other half may take to set up and to relay.
const HOLD: Duration = Duration::from_secs(400);
const AFTERMATH: Duration = Duration::from_secs(2);
