//! `shares`: the messages of well-behaved joiners whose opener another joiner floods.
//!
//! The opener and ten joiners run in this process, the flooding joiner in an agent. The opener reads at a given speed, from a small receive
//! buffer, with and without the flood. What a message waits for behind a flood is bounded: see [`SharesLoad::bound`].

use std::{
    fmt, mem,
    ops::Range,
    time::{Duration, Instant},
};

use sigver_benches::{
    engine::{
        Engine,
        connections::{Connections, Handler},
        event::{ConnId, Event},
    },
    error::Error,
    frame, payload,
};

use crate::{
    agent::process::{AgentProcess, Priority},
    measure::{
        latency::LatencyHistogram,
        metric::{Metric, Sample},
    },
    run::{
        bench::{Bench, Setting},
        clients::{self, ClientSpec, client_specs, connect_clients, unique_keys},
        options::CommonOptions,
        servers::{self, Server},
    },
};

/// The speed of the opener, in KB/s, and the length of a message of the flood.
#[derive(Clone, Copy, Debug)]
struct SharesLoad {
    speed: u32,
    flood_bytes: usize,
}

/// Runs the mode with openers of these speeds and floods of these messages. Fails if a server closes the opener, or messages wait for longer
/// than allowed.
pub(crate) fn run(speeds: &[u32], flood_bytes: &[usize], common: CommonOptions) -> Result<(), Error> {
    let targets = servers::limited_targets(&common)?;
    let bench = Bench::with_targets(common, targets)?;
    println!(
        "assumed: {:.0} KB in the kernel's buffers on the way to the opener, a share of {:.0} KB in the server's write buffer\n",
        KERNEL as f64 / 1e3,
        SERVER_SHARE as f64 / 1e3,
    );
    let loads = speeds.iter().flat_map(|&speed| {
        flood_bytes
            .iter()
            .map(move |&flood_bytes| SharesLoad { speed, flood_bytes })
    });
    let settings: Vec<Setting<SharesLoad>> = loads
        .map(|load| Setting {
            label: format!("opener reads {} KB/s, flood of {} bytes", load.speed, load.flood_bytes),
            load: load.speed.into(),
            value: load,
        })
        .collect();
    let mut too_slow = Vec::new();
    bench.run("shares", &settings, |&load, server| {
        let (sample, slow) = measure(&bench, server, load)?;
        too_slow.extend(slow);
        Ok(sample)
    })?;
    if too_slow.is_empty() {
        println!("no message waited for longer than allowed");
        return Ok(());
    }
    Err(Error::new(too_slow.join("; ")))
}

/// Returns the metrics, and what is wrong if p99 is higher than allowed.
fn measure(bench: &Bench, server: &Server, load: SharesLoad) -> Result<(Sample, Option<String>), Error> {
    let mut engine = bench.engine(server)?;
    let key = unique_keys(1);
    let mut shares = Shares::connect(&mut engine, &key, f64::from(load.speed) * 1e3)?;
    let bound = load.bound();

    shares.run_for(&mut engine, bench.warm_up())?;
    let calm = shares.measure(&mut engine, bench.duration())?;

    let task = [
        "flood".to_owned(),
        format!("--key={}", key[0]),
        format!("--message-len={}", load.flood_bytes),
    ];
    let agent = AgentProcess::start(&server.endpoint, Priority::Low, &task)?;
    let deadline = Instant::now() + AGENT_TIMEOUT;
    while !agent.poll_ready()? {
        shares.run_for(&mut engine, SLICE)?;
        if Instant::now() > deadline {
            return Err(Error::new("agent not ready in time"));
        }
    }
    // Until everything that may be ahead of a message is there.
    shares.run_for(&mut engine, bench.warm_up() + bound)?;
    let (began, read) = (Instant::now(), shares.read);
    let flooded = shares.measure(&mut engine, bench.duration())?;
    let rate = (shares.read - read) as f64 / began.elapsed().as_secs_f64();
    let flood = agent.stop(AGENT_TIMEOUT)?;

    let (calm_p99, flooded_p99) = (calm.quantile(0.99), flooded.quantile(0.99));
    let allowed = load.allowed(calm_p99);
    let mut sample = Sample::new();
    calm.push_metrics(&mut sample, "calm");
    flooded.push_metrics(&mut sample, "flooded");
    for (name, value) in [
        ("p99, flooded × calm", flooded_p99 / calm_p99),
        ("bound of the wait, ms", bound.as_secs_f64() * 1e3),
        ("p99 allowed, ms", allowed),
        ("opener read, KB/s", rate / 1e3),
    ] {
        sample.push(Metric::absolute(name, value));
    }
    sample.extend(flood.into_sample());
    let slow = (flooded_p99 > allowed).then(|| format!("{load:?}: p99 {flooded_p99:.1} ms, {allowed:.1} ms allowed"));
    Ok((sample, slow))
}

impl SharesLoad {
    /// Returns how long the opener reads this many bytes.
    fn time(self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / (f64::from(self.speed) * 1e3))
    }

    /// Returns how long a message waits at most: for what the kernel's buffers hold, one share and a message of each joiner.
    fn bound(self) -> Duration {
        self.time(KERNEL + SERVER_SHARE + self.flood_bytes + JOINERS * MESSAGE_LEN)
    }

    /// Returns the p99 that is allowed, in milliseconds. If the opener reads faster than the server reads a joiner, there is hardly more ahead
    /// of a message than the one that is on its way. A slower opener has a full backlog.
    fn allowed(self, calm: f64) -> f64 {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        if f64::from(self.speed) * 1e3 > SERVER_BYTES_PER_SECOND {
            MAX_RATIO * calm.max(milliseconds(self.time(self.flood_bytes)))
        } else {
            milliseconds(self.bound().min(MAX_WAIT))
        }
    }
}

/// An opener with its well-behaved joiners, which send in turn. The opener has the tag 0, a joiner an odd tag.
#[derive(Debug)]
struct Shares {
    opener: ConnId,
    joiners: Vec<ConnId>,
    /// Bytes that the opener reads in a second.
    speed: f64,
    /// Until when the opener was allowed to read.
    paced_at: Instant,
    /// When each message was sent, by its number.
    sent: Vec<Instant>,
    send_next_at: Instant,
    /// The numbers of the messages that are measured, how many of them have arrived, and their latencies.
    window: Range<usize>,
    arrived: usize,
    latency: LatencyHistogram,
    /// Bytes of all messages that have arrived.
    read: usize,
    error: Option<Error>,
}

/// The latencies of one window.
#[derive(Debug)]
struct Window {
    latency: LatencyHistogram,
    messages: usize,
}

impl Window {
    /// Returns the latency at `quantile`, in milliseconds.
    fn quantile(&self, quantile: f64) -> f64 {
        self.latency.quantile(quantile) / 1e3
    }

    fn push_metrics(&self, sample: &mut Sample, name: &str) {
        sample.push(Metric::absolute(format!("{name}, messages"), self.messages as f64));
        for (quantile, value) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            sample.push(Metric::new(format!("{name} {quantile}, ms"), self.quantile(value)));
        }
    }
}

impl Shares {
    fn connect(engine: &mut Engine, key: &[String], speed: f64) -> Result<Self, Error> {
        engine.conns().set_receive_buffer(Some(OPENER_RECEIVE_BUFFER));
        let opener = connect_clients(engine, &client_specs(key, 0, payload::open), 0)?[0];
        engine.conns().set_receive_buffer(None);
        let joiner = |number| ClientSpec {
            tag: 2 * number as u64 + 1,
            first_message: payload::join(&key[0]),
        };
        let joiners: Vec<ClientSpec> = (0..JOINERS).map(joiner).collect();
        Ok(Self {
            opener,
            joiners: connect_clients(engine, &joiners, JOINERS)?,
            speed,
            paced_at: Instant::now(),
            sent: Vec::new(),
            send_next_at: Instant::now(),
            window: 0..0,
            arrived: 0,
            latency: LatencyHistogram::new()?,
            read: 0,
            error: None,
        })
    }

    /// Measures the messages that are sent during `duration`.
    fn measure(&mut self, engine: &mut Engine, duration: Duration) -> Result<Window, Error> {
        self.window = self.sent.len()..usize::MAX;
        self.arrived = 0;
        self.run_for(engine, duration)?;
        self.window.end = self.sent.len();
        if self.window.is_empty() {
            return Err(Error::new("no message was sent"));
        }
        let deadline = Instant::now() + ARRIVAL_TIMEOUT;
        while self.arrived < self.window.len() {
            if Instant::now() > deadline {
                return Err(Error::new(format!(
                    "{} of {} messages not relayed after {} s",
                    self.window.len() - self.arrived,
                    self.window.len(),
                    ARRIVAL_TIMEOUT.as_secs()
                )));
            }
            self.run_for(engine, SLICE)?;
        }
        Ok(Window {
            latency: mem::replace(&mut self.latency, LatencyHistogram::new()?),
            messages: mem::take(&mut self.window).len(),
        })
    }

    /// Lets the opener read at its speed and the joiners send.
    fn run_for(&mut self, engine: &mut Engine, duration: Duration) -> Result<(), Error> {
        let end = Instant::now() + duration;
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            self.pace(engine.conns(), now);
            while now >= self.send_next_at {
                self.send_next_at += SEND_INTERVAL;
                self.send(engine.conns());
            }
            engine.poll(SLICE, self)?;
            if let Some(error) = self.error.take() {
                return Err(error);
            }
        }
    }

    /// Allows the opener to read for the time that has passed. It cannot save up more than it reads in a few slices.
    fn pace(&mut self, conns: &mut Connections, now: Instant) {
        let passed = now - self.paced_at;
        let bytes = (passed.as_secs_f64() * self.speed) as usize;
        if passed >= SLICE && bytes > 0 {
            self.paced_at = now;
            let burst = (MAX_SAVED.as_secs_f64() * self.speed) as usize;
            conns.allow_reading(self.opener, bytes, burst);
        }
    }

    fn send(&mut self, conns: &mut Connections) {
        let number = self.sent.len();
        let message = frame::client_text(format!("{NUMBER}{number}}}").as_bytes());
        self.sent.push(Instant::now());
        conns.send(self.joiners[number % JOINERS], &message);
    }

    fn record_arrival(&mut self, text: &[u8]) {
        self.read += text.len();
        let Some(digits) = text.strip_prefix(NUMBER.as_bytes()) else {
            return;
        };
        let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
        let number = digits.fold(0, |number, digit| 10 * number + usize::from(digit - b'0'));
        if self.window.contains(&number) {
            self.arrived += 1;
            self.latency.record(self.sent[number].elapsed());
        }
    }
}

impl Handler for Shares {
    fn on_event(&mut self, _: &mut Connections, id: ConnId, _: u64, event: Event<'_>) {
        match event {
            Event::Message(text) if id == self.opener => self.record_arrival(text),
            Event::Close(code) => self.error = Some(closed(id == self.opener, &clients::closed_by_server(code))),
            Event::Disconnected(reason) => {
                let is_opener = id == self.opener;
                self.error
                    .get_or_insert_with(|| closed(is_opener, &format!("connection closed: {reason:?}")));
            }
            Event::Message(_) | Event::Upgraded | Event::Pong(_) | Event::Drained => {}
        }
    }
}

fn closed(is_opener: bool, error: &impl fmt::Display) -> Error {
    Error::new(format!("{}: {error}", if is_opener { "opener" } else { "joiner" }))
}

/// The number of well-behaved joiners, and the time between two of their messages. Each sends ten messages a second.
const JOINERS: usize = 10;
const SEND_INTERVAL: Duration = Duration::from_millis(10);

/// The start of a message of a well-behaved joiner. Its number follows.
const NUMBER: &str = r#"{"number":"#;

/// More than what such a message takes on its way to the opener, in bytes.
const MESSAGE_LEN: usize = 64;

/// How often the opener may read, and for how long it can save up what it has not read.
const SLICE: Duration = Duration::from_millis(1);
const MAX_SAVED: Duration = Duration::from_millis(10);

/// Small, so that little is ahead of a message where no server can change it.
const OPENER_RECEIVE_BUFFER: usize = 16 * 1024;

/// The most that the server's kernel accepts and has not sent, the most that a joiner may have in an opener's write buffer, and the rate at which a client is read.
const SERVER_UNSENT: usize = 16 * 1024;
const SERVER_SHARE: usize = 1024 * 1024 / 8;
const SERVER_BYTES_PER_SECOND: f64 = 4.0 * 1024.0 * 1024.0;

/// What the kernel's buffers hold. It doubles the size of the receive buffer.
const KERNEL: usize = SERVER_UNSENT + 2 * OPENER_RECEIVE_BUFFER;

/// The most that the flood may increase p99 if the opener is faster than that.
const MAX_RATIO: f64 = 3.0;

/// The longest p99 that is allowed if it is slower.
const MAX_WAIT: Duration = Duration::from_secs(6);

const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);
const AGENT_TIMEOUT: Duration = Duration::from_secs(20);
