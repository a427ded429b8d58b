//! `soak`: pairs that exchange checked payloads, beside all kinds of hostile clients.
//!
//! The contents and the latency of each payload are checked. Hostile clients are agents in processes of lower priority, and
//! some of them are killed. The run fails if a pair is disconnected, a payload is lost or changed, or the server does not
//! release its threads and descriptors.

use std::{
    fmt, fs, io,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use sigver_benches::{
    delivery::{DeliveryChecker, DeliveryCounts},
    engine::{
        Endpoint, Engine,
        connections::{Connections, Handler},
        event::{ConnId, Event},
    },
    error::{Context, Error},
    frame, limits,
    payload::{self, Side, SizeRange, Stream},
};

use crate::{
    agent::process::{AgentProcess, Priority},
    measure::{latency::LatencyHistogram, metric::Sample, procfs},
    run::{
        clients::{self, Pairs},
        drive::{Workload, drive},
        servers::{self, Server},
        signals,
    },
};

/// Options of `soak`. There is one server and no comparison.
#[derive(Debug, Args)]
pub(crate) struct SoakOptions {
    /// Number of pairs
    #[arg(long, default_value_t = 2000)]
    pub(crate) pairs: usize,
    /// Duration in seconds: a tenth without attack, eight tenths with, a tenth without
    #[arg(long, default_value_t = 60.0)]
    pub(crate) seconds: f64,
    /// Command that starts the server [default: sigver-server in the directory of this program, with default limits]
    #[arg(long, value_name = "CMD")]
    pub(crate) server: Option<String>,
    /// File to append the standard error of the server to [default: discarded]
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
}

pub(crate) fn run(options: &SoakOptions) -> Result<(), Error> {
    let _ = limits::raise_descriptor_limit();
    let server = servers::target_under_test(options.server.as_deref())?.start(None, options.log.as_deref())?;
    let before = ResourceUsage::read_stable(&server)?;
    let mut engine =
        Engine::new(&server.endpoint, signals::stop_on_signals()?).context("cannot create client engine")?;
    let mut steady = SteadyPairs::connect(&mut engine, options.pairs)?;
    let part = Duration::from_secs_f64(options.seconds / 10.0);
    println!(
        "{} pairs, {} s; resources of the server:",
        options.pairs, options.seconds
    );
    println!("  at start   {before}");

    let baseline = steady.window(&mut engine, part, || Ok(()))?;
    let pairs_only = ResourceUsage::read(&server)?;
    println!("  pairs only {pairs_only}");
    let mut peak = pairs_only;
    let mut hostile = HostileClients::start(&server)?;
    let attacked = steady.window(&mut engine, part * 8, || {
        peak = peak.max(ResourceUsage::read(&server)?);
        hostile.tick()
    })?;
    println!("  peak       {peak}");
    hostile.request_stop();
    let mut result = None;
    let waiting = Instant::now();
    while result.is_none() {
        steady.window(&mut engine, Duration::from_secs(1), || Ok(()))?;
        result = hostile.poll_result()?;
        if waiting.elapsed() > DRAIN_TIMEOUT {
            return Err(Error::new("agent with hostile clients did not stop in time"));
        }
    }
    let recovery = steady.window(&mut engine, part, || Ok(()))?;
    let counts = steady.finish(&mut engine)?;
    let disconnected = steady.disconnected_pairs();
    drop((steady, engine));
    let after = ResourceUsage::wait_released(&server, before)?;
    println!("  at end     {after}");
    println!("pairs disconnected: {disconnected}; payloads: {counts}");
    for (name, window) in [("baseline", baseline), ("attacked", attacked), ("recovery", recovery)] {
        println!("{name:9} {window}");
    }
    println!("p99, attacked × baseline: {:.2}", attacked.p99 / baseline.p99);
    for metric in result.unwrap_or_default() {
        println!("  {}: {}", metric.name, metric.value);
    }
    if disconnected > 0 || !counts.is_clean() {
        return Err(Error::new("pairs disconnected or payloads not delivered"));
    }
    if (after.threads, after.descriptors) != (before.threads, before.descriptors) {
        return Err(Error::new("server has not released all threads and descriptors"));
    }
    println!("clean: no pair was disconnected, and every payload arrived once, unchanged and in order");
    Ok(())
}

/// Resources that the server uses.
#[derive(Clone, Copy)]
struct ResourceUsage {
    threads: usize,
    descriptors: usize,
    /// Resident memory, in bytes.
    memory: u64,
}

impl ResourceUsage {
    fn read(server: &Server) -> Result<Self, Error> {
        let pid = server.pid.ok_or_else(|| Error::new("soak needs /proc of Linux"))?;
        let read = || {
            io::Result::Ok(Self {
                threads: procfs::threads(pid)?.len(),
                descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
                memory: procfs::rss(pid)?,
            })
        };
        read().context("server exited")
    }

    /// Waits until the number of threads and descriptors is stable.
    fn read_stable(server: &Server) -> Result<Self, Error> {
        let mut before = Self::read(server)?;
        loop {
            thread::sleep(Duration::from_millis(300));
            let now = Self::read(server)?;
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

    /// Waits until the server has released the threads and descriptors of its clients.
    fn wait_released(server: &Server, before: Self) -> Result<Self, Error> {
        let deadline = Instant::now() + DRAIN_WAIT;
        loop {
            let now = Self::read(server)?;
            if (now.threads, now.descriptors) == (before.threads, before.descriptors) || Instant::now() > deadline {
                return Ok(now);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl fmt::Display for ResourceUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = self.memory as f64 / 1e6;
        write!(
            f,
            "{:6} threads, {:6} descriptors, {megabytes:7.1} MB",
            self.threads, self.descriptors
        )
    }
}

/// Latencies in one phase of the run, in microseconds.
#[derive(Clone, Copy)]
struct LatencyWindow {
    relays: u64,
    p50: f64,
    p99: f64,
    max: f64,
}

impl fmt::Display for LatencyWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { relays, p50, p99, max } = self;
        write!(
            f,
            "{relays:9} relays, p50 {p50:8.0} µs, p99 {p99:8.0} µs, max {max:8.0} µs"
        )
    }
}

/// Legitimate pairs. Each side sends a payload every [`SEND_INTERVAL`] if the last one has arrived.
struct SteadyPairs {
    pairs: Pairs,
    sides: Vec<PairSide>,
    latency: LatencyHistogram,
    relays: u64,
    counts: DeliveryCounts,
    is_closing: bool,
}

/// One side of a pair. The tag of its connection is its position.
struct PairSide {
    /// Checks what it receives.
    checker: DeliveryChecker,
    sent: u32,
    /// When the pending payload was sent.
    pending_since: Option<Instant>,
    next: Instant,
    is_disconnected: bool,
}

impl SteadyPairs {
    fn connect(engine: &mut Engine, count: usize) -> Result<Self, Error> {
        let pairs = Pairs::connect(engine, count)?;
        let now = Instant::now();
        let side = |tag: usize| PairSide {
            checker: DeliveryChecker::new([stream(tag ^ 1)], PAYLOAD_SIZES),
            sent: 0,
            pending_since: None,
            next: now + SEND_INTERVAL.mul_f64(tag as f64 / (2 * count) as f64),
            is_disconnected: false,
        };
        Ok(Self {
            pairs,
            sides: (0..2 * count).map(side).collect(),
            latency: LatencyHistogram::new()?,
            relays: 0,
            counts: DeliveryCounts::default(),
            is_closing: false,
        })
    }

    /// Runs for `duration` and calls `each_second` once a second.
    fn window(
        &mut self,
        engine: &mut Engine,
        duration: Duration,
        mut each_second: impl FnMut() -> Result<(), Error>,
    ) -> Result<LatencyWindow, Error> {
        self.latency.reset();
        let before = self.relays;
        let end = Instant::now() + duration;
        while Instant::now() < end {
            let second = (end - Instant::now()).min(Duration::from_secs(1));
            drive(engine, self, second, |steady, conns| {
                steady.send_due(conns);
                false
            })?;
            each_second()?;
        }
        Ok(LatencyWindow {
            relays: self.relays - before,
            p50: self.latency.quantile(0.5),
            p99: self.latency.quantile(0.99),
            max: self.latency.quantile(1.0),
        })
    }

    fn send_due(&mut self, conns: &mut Connections) {
        let now = Instant::now();
        for (tag, side) in self.sides.iter_mut().enumerate() {
            if side.next > now || side.pending_since.is_some() || side.is_disconnected {
                continue;
            }
            // Keeps the schedule. Counted from now, sides that were once delayed together would stay synchronized.
            while side.next <= now {
                side.next += SEND_INTERVAL;
            }
            side.pending_since = Some(now);
            let text = payload::build(stream(tag), side.sent, PAYLOAD_SIZES);
            side.sent += 1;
            let side = if tag % 2 == 0 {
                &self.pairs.openers
            } else {
                &self.pairs.joiners
            };
            conns.send(side[tag / 2], &frame::client_text(&text));
        }
    }

    /// Waits for pending payloads, closes all connections and returns the counts.
    fn finish(&mut self, engine: &mut Engine) -> Result<DeliveryCounts, Error> {
        let arrived =
            |steady: &mut Self, _: &mut Connections| steady.sides.iter().all(|side| side.pending_since.is_none());
        drive(engine, self, DRAIN_TIMEOUT, arrived)?;
        for tag in 0..self.sides.len() {
            let sent = self.sides[tag ^ 1].sent;
            self.sides[tag].checker.finish(sent, &mut self.counts);
        }
        self.is_closing = true;
        for &id in self.pairs.joiners.iter().chain(&self.pairs.openers) {
            engine.conns().close(id, 1000);
        }
        drive(engine, self, DRAIN_TIMEOUT, |_, conns| conns.is_empty())?;
        Ok(self.counts)
    }

    fn disconnected_pairs(&self) -> usize {
        self.sides
            .chunks(2)
            .filter(|pair| pair.iter().any(|side| side.is_disconnected))
            .count()
    }
}

impl Handler for SteadyPairs {
    fn on_event(&mut self, _: &mut Connections, _: ConnId, tag: u64, event: Event<'_>) {
        let tag = tag as usize;
        match event {
            Event::Message(text) => {
                self.relays += 1;
                if self.sides[tag].checker.receive(text, &mut self.counts).is_some() {
                    if let Some(sent) = self.sides[tag ^ 1].pending_since.take() {
                        self.latency.record(sent.elapsed());
                    }
                }
            }
            Event::Close(_) | Event::Disconnected(_) => self.sides[tag].is_disconnected |= !self.is_closing,
            Event::Upgraded | Event::Pong(_) | Event::Drained => {}
        }
    }
}

impl Workload for SteadyPairs {
    fn take_error(&mut self) -> Option<Error> {
        None
    }
}

/// The hostile clients: one agent with all behaviors, and repeatedly one that is killed.
struct HostileClients {
    agent: AgentProcess,
    endpoint: Endpoint,
    doomed: Option<(AgentProcess, Instant)>,
    killed: u32,
}

impl HostileClients {
    fn start(server: &Server) -> Result<Self, Error> {
        Ok(Self {
            agent: AgentProcess::start(&server.endpoint, Priority::Low, &["hostile-clients".to_owned()])?,
            endpoint: server.endpoint.clone(),
            doomed: None,
            killed: 0,
        })
    }

    /// Starts or kills the agent that is killed repeatedly. Called once a second.
    fn tick(&mut self) -> Result<(), Error> {
        match &self.doomed {
            None => {
                let task = [
                    "openers".to_owned(),
                    format!("--prefix={}", clients::unique_prefix()),
                    format!("--count={CLIENTS_TO_KILL}"),
                    "--messages=1".to_owned(),
                ];
                self.doomed = Some((
                    AgentProcess::start(&self.endpoint, Priority::Low, &task)?,
                    Instant::now(),
                ));
            }
            Some((_, since)) if since.elapsed() > KILL_AFTER => {
                self.doomed = None;
                self.killed += CLIENTS_TO_KILL;
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Requests a stop.
    fn request_stop(&mut self) {
        self.doomed = None;
        self.agent.request_stop();
    }

    /// Returns the result, or `None` if the agent is still running.
    fn poll_result(&self) -> Result<Option<Sample>, Error> {
        let Some(mut result) = self.agent.poll_result()? else {
            return Ok(None);
        };
        result.push("clients killed", self.killed.into());
        Ok(Some(result.into_sample()))
    }
}

/// Returns the stream of one side. The index of the joiner is 0.
fn stream(tag: usize) -> Stream {
    Stream {
        key: (tag / 2) as u32,
        joiner: 0,
        from: if tag.is_multiple_of(2) {
            Side::Opener
        } else {
            Side::Joiner
        },
    }
}

const PAYLOAD_SIZES: SizeRange = SizeRange { min: 1, max: 4_000 };

const SEND_INTERVAL: Duration = Duration::from_secs(1);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Longer than the close timeout and two keep-alive intervals, after which the last half-open connection is closed.
const DRAIN_WAIT: Duration = Duration::from_secs(100);

const CLIENTS_TO_KILL: u32 = 50;
const KILL_AFTER: Duration = Duration::from_secs(5);
