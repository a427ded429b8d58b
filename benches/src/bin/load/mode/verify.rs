//! `verify`: whether a server relays faithfully.
//!
//! Several openers with several joiners each; every payload is unique, from a few bytes to 60 KB, and is compared
//! byte for byte. Each sender has a few payloads under way at once, so order is at stake. Nothing is measured.

use std::time::Duration;

use sigver_benches::{
    check::{Inbox, Tally},
    engine::{
        connections::{Connections, Handler},
        event::{ConnId, Event},
    },
    error::Error,
    frame,
    payload::{self, Side, Sizes, Stream},
};

use crate::{
    measure::fidelity,
    run::{
        admission::{self, Entrant, admit},
        bench::{Bench, Setting},
        drive::{Work, drive},
        options::Common,
        servers::Server,
    },
};

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) keys: u32,
    pub(crate) joiners: u32,
    pub(crate) messages: u32,
}

/// Fails if any server has failed.
pub(crate) fn run(extent: Extent, common: Common) -> Result<(), Error> {
    let bench = Bench::new(common)?;
    let settings = [Setting {
        label: format!(
            "{} keys, {} joiners each, {} payloads each way",
            extent.keys, extent.joiners, extent.messages
        ),
        load: f64::from(extent.keys * extent.joiners),
        value: extent,
    }];
    let mut unclean = 0;
    bench.run("verify", &settings, |&extent, server| {
        let tally = check(&bench, server, extent)?;
        unclean += u32::from(!tally.is_clean());
        Ok(fidelity::figures(&tally))
    })?;
    fidelity::verdict(unclean)
}

fn check(bench: &Bench, server: &Server, extent: Extent) -> Result<Tally, Error> {
    let mut engine = bench.engine(server)?;
    let keys = admission::keys(extent.keys as usize);
    let entrants = |tag: &dyn Fn(u32) -> u64, role: fn(&str) -> Vec<u8>| -> Vec<Entrant> {
        let entrant = |(key, name): (u32, &String)| Entrant {
            tag: tag(key),
            role: role(name),
        };
        (0..).zip(&keys).map(entrant).collect()
    };
    let openers = admit(&mut engine, &entrants(&|key| tag(key, OPENER), payload::open), 0)?;
    let mut conns: Vec<Vec<ConnId>> = openers.into_iter().map(|opener| vec![opener]).collect();
    // One joiner of each key at a time: so the joiner's number is its index.
    for joiner in 0..extent.joiners {
        let joiners = entrants(&|key| tag(key, joiner), payload::join);
        let joiners = admit(&mut engine, &joiners, keys.len())?;
        for (conns, joiner) in conns.iter_mut().zip(joiners) {
            conns.push(joiner);
        }
    }

    let mut verify = Verify::new(extent, conns);
    for _ in 0..AT_ONCE.min(extent.messages) {
        for stream in verify.streams() {
            verify.send(engine.conns(), stream);
        }
    }
    drive(&mut engine, &mut verify, PATIENCE, |verify, _| {
        verify.received == verify.expected
    })?;
    // What comes after the last, if anything, is counted as well.
    drive(&mut engine, &mut verify, AFTERMATH, |_, _| false)?;
    for inbox in verify.inboxes.iter().flatten() {
        inbox.finish(extent.messages, &mut verify.tally);
    }
    Ok(verify.tally)
}

#[derive(Debug)]
struct Verify {
    extent: Extent,
    /// By key; the opener first, then its joiners.
    conns: Vec<Vec<ConnId>>,
    inboxes: Vec<Vec<Inbox>>,
    /// Payloads sent in each stream.
    sent: std::collections::BTreeMap<Stream, u32>,
    received: u64,
    expected: u64,
    tally: Tally,
    trouble: Option<Error>,
}

impl Verify {
    fn new(extent: Extent, conns: Vec<Vec<ConnId>>) -> Self {
        let stream = |key, joiner, from| Stream { key, joiner, from };
        let inboxes = |key| {
            let joiners = 0..extent.joiners;
            let to_opener = joiners.clone().map(|joiner| stream(key, joiner, Side::Joiner));
            let to_joiner = |joiner| Inbox::new([stream(key, joiner, Side::Opener)], SIZES);
            std::iter::once(Inbox::new(to_opener, SIZES))
                .chain(joiners.map(to_joiner))
                .collect()
        };
        let streams = u64::from(extent.keys) * u64::from(extent.joiners) * 2;
        Self {
            extent,
            conns,
            inboxes: (0..extent.keys).map(inboxes).collect(),
            sent: std::collections::BTreeMap::new(),
            received: 0,
            expected: streams * u64::from(extent.messages),
            tally: Tally::default(),
            trouble: None,
        }
    }

    fn streams(&self) -> Vec<Stream> {
        let extent = self.extent;
        (0..extent.keys)
            .flat_map(|key| {
                (0..extent.joiners)
                    .flat_map(move |joiner| [Side::Opener, Side::Joiner].map(|from| Stream { key, joiner, from }))
            })
            .collect()
    }

    /// Sends the stream's next payload, if there is one.
    fn send(&mut self, conns: &mut Connections, stream: Stream) {
        let sent = self.sent.entry(stream).or_default();
        if *sent == self.extent.messages {
            return;
        }
        let place = match stream.from {
            Side::Opener => 0,
            Side::Joiner => stream.joiner as usize + 1,
        };
        let text = payload::build(stream, *sent, SIZES);
        *sent += 1;
        let sender = self.conns[stream.key as usize][place];
        conns.send(sender, &frame::client_text(&text));
    }
}

impl Handler for Verify {
    fn on_event(&mut self, conns: &mut Connections, _: ConnId, tag: u64, event: Event<'_>) {
        match event {
            Event::Message(text) => {
                self.received += 1;
                let (key, place) = (tag >> 32, tag as u32);
                let place = if place == OPENER { 0 } else { place as usize + 1 };
                let inbox = &mut self.inboxes[key as usize][place];
                if let Some(stream) = inbox.receive(text, &mut self.tally) {
                    self.send(conns, stream);
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

impl Work for Verify {
    fn trouble(&mut self) -> Option<Error> {
        self.trouble.take()
    }
}

fn tag(key: u32, place: u32) -> u64 {
    u64::from(key) << 32 | u64::from(place)
}

/// In a tag, the place of the opener; a joiner's is its index.
const OPENER: u32 = u32::MAX;

/// With the index added, the largest stay below a server's limit of 64 KiB.
const SIZES: Sizes = Sizes { least: 1, most: 60_000 };

/// Payloads of each stream under way at once.
const AT_ONCE: u32 = 3;

const PATIENCE: Duration = Duration::from_secs(60);
const AFTERMATH: Duration = Duration::from_millis(100);
