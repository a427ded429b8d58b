//! `verify`: checks that a server delivers every payload unchanged and in order.
//!
//! There are several openers with several joiners each. Each payload is unique, from a few bytes to 60 KB, and is compared
//! byte for byte. Each sender has several payloads in flight, so that reordering would be noticed. No speed is measured.

use std::time::Duration;

use sigver_benches::{
    delivery::{DeliveryChecker, DeliveryCounts},
    engine::{
        connections::{Connections, Handler},
        event::{ConnId, Event},
    },
    error::Error,
    frame,
    payload::{self, Side, SizeRange, Stream},
};

use crate::{
    measure::delivery,
    run::{
        bench::{Bench, Setting},
        clients::{self, ClientSpec, connect_clients},
        drive::{Workload, drive},
        options::CommonOptions,
        servers::Server,
    },
};

/// Number of clients and payloads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VerifyLoad {
    pub(crate) keys: u32,
    pub(crate) joiners: u32,
    pub(crate) messages: u32,
}

/// Runs the mode. Fails if a payload was not delivered correctly.
pub(crate) fn run(load: VerifyLoad, common: CommonOptions) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    let settings = [Setting {
        label: format!(
            "{} keys, {} joiners each, {} payloads each way",
            load.keys, load.joiners, load.messages
        ),
        load: f64::from(load.keys * load.joiners),
        value: load,
    }];
    let mut failed_runs = 0;
    bench.run("verify", &settings, |&load, server| {
        let counts = check(&bench, server, load)?;
        failed_runs += u32::from(!counts.is_clean());
        Ok(delivery::metrics(&counts))
    })?;
    delivery::require_clean(failed_runs)
}

fn check(bench: &Bench, server: &Server, load: VerifyLoad) -> Result<DeliveryCounts, Error> {
    let mut engine = bench.engine(server)?;
    let keys = clients::unique_keys(load.keys as usize);
    let client_specs = |tag: &dyn Fn(u32) -> u64, role: fn(&str) -> Vec<u8>| -> Vec<ClientSpec> {
        let client = |(key, name): (u32, &String)| ClientSpec {
            tag: tag(key),
            first_message: role(name),
        };
        (0..).zip(&keys).map(client).collect()
    };
    let openers = connect_clients(&mut engine, &client_specs(&|key| tag(key, OPENER), payload::open), 0)?;
    let mut conns: Vec<Vec<ConnId>> = openers.into_iter().map(|opener| vec![opener]).collect();
    // One joiner of each key at a time, so that the number of a joiner is its index.
    for joiner in 0..load.joiners {
        let joiners = client_specs(&|key| tag(key, joiner), payload::join);
        let joiners = connect_clients(&mut engine, &joiners, keys.len())?;
        for (conns, joiner) in conns.iter_mut().zip(joiners) {
            conns.push(joiner);
        }
    }

    let mut verify = VerifyWorkload::new(load, conns);
    for _ in 0..IN_FLIGHT.min(load.messages) {
        for stream in verify.streams() {
            verify.send(engine.conns(), stream);
        }
    }
    drive(&mut engine, &mut verify, RELAY_TIMEOUT, |verify, _| {
        verify.received == verify.expected
    })?;
    // Counts payloads that arrive after the last expected one.
    drive(&mut engine, &mut verify, LATE_ARRIVAL_WAIT, |_, _| false)?;
    for checker in verify.checkers.iter().flatten() {
        checker.finish(load.messages, &mut verify.counts);
    }
    Ok(verify.counts)
}

#[derive(Debug)]
struct VerifyWorkload {
    load: VerifyLoad,
    /// By key: the opener, then its joiners.
    conns: Vec<Vec<ConnId>>,
    checkers: Vec<Vec<DeliveryChecker>>,
    /// Number of payloads sent, by stream.
    sent: std::collections::BTreeMap<Stream, u32>,
    received: u64,
    expected: u64,
    counts: DeliveryCounts,
    error: Option<Error>,
}

impl VerifyWorkload {
    fn new(load: VerifyLoad, conns: Vec<Vec<ConnId>>) -> Self {
        let stream = |key, joiner, from| Stream { key, joiner, from };
        let checkers = |key| {
            let joiners = 0..load.joiners;
            let to_opener = joiners.clone().map(|joiner| stream(key, joiner, Side::Joiner));
            let to_joiner = |joiner| DeliveryChecker::new([stream(key, joiner, Side::Opener)], PAYLOAD_SIZES);
            std::iter::once(DeliveryChecker::new(to_opener, PAYLOAD_SIZES))
                .chain(joiners.map(to_joiner))
                .collect()
        };
        let streams = u64::from(load.keys) * u64::from(load.joiners) * 2;
        Self {
            load,
            conns,
            checkers: (0..load.keys).map(checkers).collect(),
            sent: std::collections::BTreeMap::new(),
            received: 0,
            expected: streams * u64::from(load.messages),
            counts: DeliveryCounts::default(),
            error: None,
        }
    }

    fn streams(&self) -> Vec<Stream> {
        let load = self.load;
        (0..load.keys)
            .flat_map(|key| {
                (0..load.joiners)
                    .flat_map(move |joiner| [Side::Opener, Side::Joiner].map(|from| Stream { key, joiner, from }))
            })
            .collect()
    }

    /// Sends the next payload of the stream, if there is one.
    fn send(&mut self, conns: &mut Connections, stream: Stream) {
        let sent = self.sent.entry(stream).or_default();
        if *sent == self.load.messages {
            return;
        }
        let place = match stream.from {
            Side::Opener => 0,
            Side::Joiner => stream.joiner as usize + 1,
        };
        let text = payload::build(stream, *sent, PAYLOAD_SIZES);
        *sent += 1;
        let sender = self.conns[stream.key as usize][place];
        conns.send(sender, &frame::client_text(&text));
    }
}

impl Handler for VerifyWorkload {
    fn on_event(&mut self, conns: &mut Connections, _: ConnId, tag: u64, event: Event<'_>) {
        match event {
            Event::Message(text) => {
                self.received += 1;
                let (key, place) = (tag >> 32, tag as u32);
                let place = if place == OPENER { 0 } else { place as usize + 1 };
                let checker = &mut self.checkers[key as usize][place];
                if let Some(stream) = checker.receive(text, &mut self.counts) {
                    self.send(conns, stream);
                }
            }
            Event::Close(code) => self.error = Some(clients::closed_by_server(code)),
            Event::Disconnected(reason) => {
                let closed = || Error::new(format!("connection closed: {reason:?}"));
                self.error.get_or_insert_with(closed);
            }
            Event::Upgraded | Event::Pong(_) | Event::Drained => {}
        }
    }
}

impl Workload for VerifyWorkload {
    fn take_error(&mut self) -> Option<Error> {
        self.error.take()
    }
}

fn tag(key: u32, place: u32) -> u64 {
    u64::from(key) << 32 | u64::from(place)
}

/// Position of the opener in a tag. The position of a joiner is its index.
const OPENER: u32 = u32::MAX;

/// With the added index, the largest payload is below the limit of 64 KiB.
const PAYLOAD_SIZES: SizeRange = SizeRange { min: 1, max: 60_000 };

/// Number of payloads in flight in each stream.
const IN_FLIGHT: u32 = 3;

const RELAY_TIMEOUT: Duration = Duration::from_secs(60);
const LATE_ARRIVAL_WAIT: Duration = Duration::from_millis(100);
