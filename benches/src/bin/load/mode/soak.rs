//! `soak`: for as long as one says, thousands of pairs that do nothing wrong, beside every kind of client that does.
//!
//! Each payload of each pair is checked, and how long it took. The ill-behaved are agents, in processes of lower priority; some of those are
//! killed. Fails if a pair was harmed, a payload lost or changed, or if the server does not give back what it took.

use std::{
    fmt, fs, io,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use sigver_benches::{
    check::{Inbox, Tally},
    engine::{
        Engine,
        connections::{Connections, Handler},
        event::Event,
    },
    error::{Context, Error},
    frame, limits,
    payload::{self, Side, Sizes, Stream},
};

use crate::{
    agent::process::{Agent, Priority},
    measure::{latency::Latency, metric::Sample, procfs},
    run::{
        admission::{self, Pairs},
        drive::{Work, drive},
        servers::{self, Server},
        signals,
    },
};

/// What `soak` needs. It has one server, and nothing to compare it with.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// How many pairs.
    #[arg(long, default_value_t = 2000)]
    pub(crate) pairs: usize,
    /// How long: a tenth of it calm, eight tenths attacked, a tenth calm again.
    #[arg(long, default_value_t = 60.0)]
    pub(crate) seconds: f64,
    /// How to start the server. [default: sigver, from the directory of this program, with its defaults]
    #[arg(long, value_name = "CMD")]
    pub(crate) server: Option<String>,
    /// Where to put what the server writes to standard error. It is thrown away otherwise.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
}

pub(crate) fn run(options: &Soak) -> Result<(), Error> {
    let _ = limits::raise_descriptors();
    let server = servers::under_test(options.server.as_deref())?.start(None, options.log.as_deref())?;
    let before = Footing::at_start(&server)?;
    let mut engine = Engine::new(&server.endpoint, signals::stop_on_signals()?).context("cannot make an engine")?;
    let mut steady = Steady::establish(&mut engine, options.pairs)?;
    let part = Duration::from_secs_f64(options.seconds / 10.0);
    println!("{} pairs, {} s; what the server takes:", options.pairs, options.seconds);
    println!("  at start   {before}");

    let calm = steady.window(&mut engine, part, || Ok(()))?;
    let settled = Footing::of(&server)?;
    println!("  pairs only {settled}");
    let mut peak = settled;
    let mut siege = Siege::begin(&server)?;
    let attacked = steady.window(&mut engine, part * 8, || {
        peak = peak.max(Footing::of(&server)?);
        siege.go_on()
    })?;
    println!("  peak       {peak}");
    siege.lift();
    let mut findings = None;
    let waiting = Instant::now();
    while findings.is_none() {
        steady.window(&mut engine, Duration::from_secs(1), || Ok(()))?;
        findings = siege.findings()?;
        if waiting.elapsed() > LAST {
            return Err(Error::new("the besiegers do not end"));
        }
    }
    let relieved = steady.window(&mut engine, part, || Ok(()))?;
    let tally = steady.end(&mut engine)?;
    let harmed = steady.harmed();
    drop((steady, engine));
    let after = Footing::settle(&server, before)?;
    println!("  at end     {after}");
    println!("pairs harmed: {harmed}; payloads: {tally}");
    for (name, window) in [("calm", calm), ("attacked", attacked), ("relieved", relieved)] {
        println!("{name:9} {window}");
    }
    println!("p99, attacked × calm: {:.2}", attacked.p99 / calm.p99);
    for metric in findings.unwrap_or_default() {
        println!("  {}: {}", metric.name, metric.value);
    }
    if harmed > 0 || !tally.is_clean() {
        return Err(Error::new("pairs were harmed"));
    }
    if (after.threads, after.descriptors) != (before.threads, before.descriptors) {
        return Err(Error::new("the server has not given back all threads and descriptors"));
    }
    println!("clean: nobody who did nothing wrong has noticed, but for the time it took");
    Ok(())
}

/// What the server takes of the system.
#[derive(Clone, Copy)]
struct Footing {
    threads: usize,
    descriptors: usize,
    /// Resident, in bytes.
    memory: u64,
}

impl Footing {
    fn of(server: &Server) -> Result<Self, Error> {
        let pid = server.pid.ok_or_else(|| Error::new("needs Linux's /proc"))?;
        let read = || {
            io::Result::Ok(Self {
                threads: procfs::threads(pid)?.len(),
                descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
                memory: procfs::rss(pid)?,
            })
        };
        read().context("the server is gone")
    }

    /// What it takes once all its own threads are there.
    fn at_start(server: &Server) -> Result<Self, Error> {
        let mut before = Self::of(server)?;
        loop {
            thread::sleep(Duration::from_millis(300));
            let now = Self::of(server)?;
            if (now.threads, now.descriptors) == (before.threads, before.descriptors) {
                return Ok(now);
            }
            before = now;
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            threads: self.threads.max(other.threads),
            descriptors: self.descriptors.max(other.descriptors),
            memory: self.memory.max(other.memory),
        }
    }

    /// Waits for the server to let go of its last clients.
    fn settle(server: &Server, before: Self) -> Result<Self, Error> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let now = Self::of(server)?;
            if (now.threads, now.descriptors) == (before.threads, before.descriptors) || Instant::now() > deadline {
                return Ok(now);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl fmt::Display for Footing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.memory as f64 / 1e6;
        write!(
            f,
            "{:6} threads, {:6} descriptors, {megabytes:7.1} MB",
            self.threads, self.descriptors
        )
    }
}

/// How long payloads took in some time.
#[derive(Clone, Copy)]
struct Window {
    relays: u64,
    p50: f64,
    p99: f64,
    max: f64,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { relays, p50, p99, max } = self;
        write!(
            f,
            "{relays:9} relays, p50 {p50:8.0} µs, p99 {p99:8.0} µs, max {max:8.0} µs"
        )
    }
}

/// The pairs that do nothing wrong. Each side sends a payload each [`INTERVAL`], if the last one has arrived.
struct Steady {
    pairs: Pairs,
    sides: Vec<Sending>,
    latency: Latency,
    relays: u64,
    tally: Tally,
    is_over: bool,
}

/// One side of a pair; by the tag of its connection.
struct Sending {
    /// What it may receive.
    inbox: Inbox,
    sent: u32,
    /// When the payload under way was sent.
    under_way: Option<Instant>,
    next: Instant,
    is_harmed: bool,
}

impl Steady {
    fn establish(engine: &mut Engine, count: usize) -> Result<Self, Error> {
        let pairs = Pairs::establish(engine, count)?;
        let now = Instant::now();
        let sending = |tag: usize| Sending {
            inbox: Inbox::new([stream(tag ^ 1)], SIZES),
            sent: 0,
            under_way: None,
            next: now + INTERVAL.mul_f64(tag as f64 / (2 * count) as f64),
            is_harmed: false,
        };
        Ok(Self {
            pairs,
            sides: (0..2 * count).map(sending).collect(),
            latency: Latency::new()?,
            relays: 0,
            tally: Tally::default(),
            is_over: false,
        })
    }

    /// Goes on for some time, and does something else each second.
    fn window(
        &mut self,
        engine: &mut Engine,
        time: Duration,
        mut each_second: impl FnMut() -> Result<(), Error>,
    ) -> Result<Window, Error> {
        self.latency.reset();
        let before = self.relays;
        let end = Instant::now() + time;
        while Instant::now() < end {
            let second = (end - Instant::now()).min(Duration::from_secs(1));
            drive(engine, self, second, |steady, conns| {
                steady.send_due(conns);
                false
            })?;
            each_second()?;
        }
        Ok(Window {
            relays: self.relays - before,
            p50: self.latency.quantile(0.5),
            p99: self.latency.quantile(0.99),
            max: self.latency.quantile(1.0),
        })
    }

    fn send_due(&mut self, conns: &mut Connections) {
        let now = Instant::now();
        for (tag, side) in self.sides.iter_mut().enumerate() {
            if side.next > now || side.under_way.is_some() || side.is_harmed {
                continue;
            }
            // In its own step: were it from now, those that once waited for the same thing would come at the same moment ever after.
            while side.next <= now {
                side.next += INTERVAL;
            }
            side.under_way = Some(now);
            let text = payload::build(stream(tag), side.sent, SIZES);
            side.sent += 1;
            let side = if tag % 2 == 0 {
                &self.pairs.openers
            } else {
                &self.pairs.joiners
            };
            conns.send(side[tag / 2], &frame::client_text(&text));
        }
    }

    /// Waits for what is under way, and leaves. What every payload came to.
    fn end(&mut self, engine: &mut Engine) -> Result<Tally, Error> {
        let arrived = |steady: &mut Self, _: &mut Connections| steady.sides.iter().all(|side| side.under_way.is_none());
        drive(engine, self, LAST, arrived)?;
        for tag in 0..self.sides.len() {
            let sent = self.sides[tag ^ 1].sent;
            self.sides[tag].inbox.finish(sent, &mut self.tally);
        }
        self.is_over = true;
        for &id in self.pairs.joiners.iter().chain(&self.pairs.openers) {
            engine.conns().close(id, 1000);
        }
        drive(engine, self, LAST, |_, conns| conns.is_empty())?;
        Ok(self.tally)
    }

    fn harmed(&self) -> usize {
        self.sides
            .chunks(2)
            .filter(|pair| pair.iter().any(|side| side.is_harmed))
            .count()
    }
}

impl Handler for Steady {
    fn on_event(&mut self, _: &mut Connections, _: sigver_benches::engine::event::ConnId, tag: u64, event: Event<'_>) {
        let tag = tag as usize;
        match event {
            Event::Message(text) => {
                self.relays += 1;
                if self.sides[tag].inbox.receive(text, &mut self.tally).is_some() {
                    if let Some(sent) = self.sides[tag ^ 1].under_way.take() {
                        self.latency.record(sent.elapsed());
                    }
                }
            }
            Event::Close(_) | Event::Ended(_) => self.sides[tag].is_harmed |= !self.is_over,
            Event::Upgraded | Event::Pong(_) | Event::Drained => {}
        }
    }
}

impl Work for Steady {
    fn trouble(&mut self) -> Option<Error> {
        None
    }
}

/// The ill-behaved: one agent of every kind of them, and one after the other that is killed.
struct Siege {
    besiegers: Agent,
    endpoint: sigver_benches::engine::Endpoint,
    victims: Option<(Agent, Instant)>,
    killed: u32,
}

impl Siege {
    fn begin(server: &Server) -> Result<Self, Error> {
        Ok(Self {
            besiegers: Agent::start(&server.endpoint, Priority::Low, &["siege".to_owned()])?,
            endpoint: server.endpoint.clone(),
            victims: None,
            killed: 0,
        })
    }

    /// Starts clients that will be killed, or kills them. Each second.
    fn go_on(&mut self) -> Result<(), Error> {
        match &self.victims {
            None => {
                let task = [
                    "openers".to_owned(),
                    format!("--prefix={}", admission::unique()),
                    format!("--count={VICTIMS}"),
                    "--messages=1".to_owned(),
                ];
                self.victims = Some((Agent::start(&self.endpoint, Priority::Low, &task)?, Instant::now()));
            }
            Some((_, since)) if since.elapsed() > LIFE => {
                self.victims = None;
                self.killed += VICTIMS;
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Asks the besiegers to end.
    fn lift(&mut self) {
        self.victims = None;
        self.besiegers.ask_to_end();
    }

    /// What they have done, once they have ended.
    fn findings(&self) -> Result<Option<Sample>, Error> {
        let Some(mut findings) = self.besiegers.try_result()? else {
            return Ok(None);
        };
        findings.add("clients killed", self.killed.into());
        Ok(Some(findings.figures()))
    }
}

/// What one side says; the joiner's number is 0.
fn stream(tag: usize) -> Stream {
    Stream {
        key: (tag / 2) as u32,
        joiner: 0,
        from: if tag % 2 == 0 { Side::Opener } else { Side::Joiner },
    }
}

const SIZES: Sizes = Sizes { least: 1, most: 4_000 };

const INTERVAL: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(30);

/// Longer than the close timeout and two keep-alive intervals, after which the last half-open connection is found out.
const SETTLE: Duration = Duration::from_secs(100);

const VICTIMS: u32 = 50;
const LIFE: Duration = Duration::from_secs(5);
