//! Benchmarks of the core without sockets: the codec of each dialect by message size, a step of the hub, and how a step
//! scales with connections, keys and joiners.
//!
//! Run `cargo bench -p sigver-benches --bench core`. Results of the group `growth` should be constant or logarithmic.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::{hint::black_box, net::IpAddr, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sigver_core::{
    Addressee, ConnId, Decoder, Dialect, Disconnect, Endpoint, EndpointConfig, Hub, InboundMessage, Index, Input, Key,
    Limits, OutboundMessage, Output, PayloadKind, Time,
};

/// Returns an offer as browsers write it, of about `bytes` bytes.
fn offer(bytes: usize) -> String {
    let line = r"a=candidate:1467250027 1 udp 2122260223 192.0.2.7 46243 typ host generation 0\r\n";
    let head = r#"{"type":"offer","sdp":""#;
    let lines = bytes.saturating_sub(head.len() + 2) / line.len();
    format!(r#"{head}{}"}}"#, line.repeat(lines.max(1)))
}

const SIZES: [usize; 4] = [200, 1_200, 16_000, 64_000];

/// Returns the frame in which a joiner sends `payload`.
fn frame(dialect: Dialect, payload: &str) -> String {
    match dialect {
        Dialect::Plain => payload.to_owned(),
        Dialect::V1 => format!(r#"{{"type":"send","data":{payload}}}"#),
    }
}

fn codec(criterion: &mut Criterion) {
    let limits = Limits::default();
    for dialect in Dialect::ALL {
        let mut group = criterion.benchmark_group(dialect.subprotocol());
        for size in SIZES {
            let text = frame(*dialect, &offer(size));
            group.throughput(Throughput::Bytes(text.len() as u64));
            // The minimum work of any server, for comparison.
            group.bench_with_input(BenchmarkId::new("utf8-check-and-copy", size), &text, |bencher, text| {
                bencher.iter(|| std::str::from_utf8(black_box(text.as_bytes())).map(str::to_owned));
            });
            group.bench_with_input(BenchmarkId::new("decode", size), &text, |bencher, text| {
                let decoder = Decoder::new(*dialect, &limits);
                bencher.iter(|| decoder.decode(black_box(text)));
            });
            for (name, from) in [("encode-to-opener", Some(Index::new(7))), ("encode-to-joiner", None)] {
                let message = OutboundMessage::Data {
                    from,
                    payload: payload(*dialect, &text, &limits),
                };
                group.bench_with_input(BenchmarkId::new(name, size), &message, |bencher, message| {
                    bencher.iter_batched(
                        || message.clone(),
                        |message| dialect.encode(black_box(message)),
                        BatchSize::SmallInput,
                    );
                });
            }
        }
        group.finish();
    }
}

fn payload(dialect: Dialect, text: &str, limits: &Limits) -> sigver_core::Payload {
    match Decoder::new(dialect, limits).decode(text) {
        Ok(InboundMessage::Data { payload, .. }) => payload,
        other => panic!("an offer is data, not {other:?}"),
    }
}

/// A hub with empty payloads, and a pair that exchanges messages.
struct HubFixture {
    hub: Hub<()>,
    opener: ConnId,
    joiner: ConnId,
    index: Index,
}

impl HubFixture {
    /// Adds `idle` connections without a role, `keys` other keys, and `joiners` other joiners of the same key.
    fn new(idle: u32, keys: u32, joiners: u32) -> Self {
        let mut limits = Limits::default();
        limits.joiners_per_key = u32::MAX;
        let mut hub = Hub::with_payload(limits.clone());
        let key = |name: &str| Key::new(name, &limits).expect("valid key");
        let connect = |hub: &mut Hub<()>| {
            hub.connect(Time::ZERO, Dialect::Plain.profile())
                .expect("connection limit not reached")
        };
        for _ in 0..idle {
            connect(&mut hub);
        }
        for n in 0..keys {
            let opener = connect(&mut hub);
            let _ = hub.handle(
                Time::ZERO,
                opener,
                InboundMessage::Open {
                    key: key(&format!("key {n}")),
                    id: None,
                    token: None,
                    new_token: None,
                },
            );
        }
        let opener = connect(&mut hub);
        let _ = hub.handle(
            Time::ZERO,
            opener,
            InboundMessage::Open {
                key: key("the key"),
                id: None,
                token: None,
                new_token: None,
            },
        );
        for _ in 0..joiners {
            let joiner = connect(&mut hub);
            let _ = hub.handle(
                Time::ZERO,
                joiner,
                InboundMessage::Join {
                    key: key("the key"),
                    id: None,
                    wait: Duration::ZERO,
                },
            );
        }
        let joiner = connect(&mut hub);
        let _ = hub.handle(
            Time::ZERO,
            joiner,
            InboundMessage::Join {
                key: key("the key"),
                id: None,
                wait: Duration::ZERO,
            },
        );
        Self {
            hub,
            opener,
            joiner,
            index: Index::new(joiners),
        }
    }

    /// Sends an offer and an answer.
    fn exchange(&mut self) -> usize {
        let offer = InboundMessage::Data {
            to: Addressee::Unnamed,
            kind: PayloadKind::Object,
            payload: (),
        };
        let answer = InboundMessage::Data {
            to: Addressee::Index(self.index),
            kind: PayloadKind::Object,
            payload: (),
        };
        self.hub.handle(Time::ZERO, self.joiner, offer).len() + self.hub.handle(Time::ZERO, self.opener, answer).len()
    }

    /// Connects and disconnects a joiner.
    fn join_and_leave(&mut self, key: &Key) -> usize {
        let joiner = self
            .hub
            .connect(Time::ZERO, Dialect::Plain.profile())
            .expect("connection limit not reached");
        let joined = self
            .hub
            .handle(
                Time::ZERO,
                joiner,
                InboundMessage::Join {
                    key: key.clone(),
                    id: None,
                    wait: Duration::ZERO,
                },
            )
            .len();
        joined + self.hub.disconnect(Time::ZERO, joiner, Disconnect::Clean).len()
    }
}

fn growth(criterion: &mut Criterion) {
    let key = Key::new("the key", &Limits::default()).expect("valid key");
    let mut group = criterion.benchmark_group("growth");
    for count in [10, 1_000, 100_000] {
        for (kind, mut fixture) in [
            ("connections", HubFixture::new(count, 0, 0)),
            ("keys", HubFixture::new(0, count, 0)),
            ("joiners", HubFixture::new(0, 0, count)),
        ] {
            assert_eq!(fixture.exchange(), 2, "both messages are delivered");
            group.bench_function(BenchmarkId::new(format!("exchange/{kind}"), count), |bencher| {
                bencher.iter(|| black_box(fixture.exchange()));
            });
            assert_eq!(fixture.join_and_leave(&key), 3, "joined, peer joined, peer left");
            group.bench_function(BenchmarkId::new(format!("join-and-leave/{kind}"), count), |bencher| {
                bencher.iter(|| black_box(fixture.join_and_leave(&key)));
            });
        }
    }
    group.finish();
}

/// The longest step: an opener leaves, and all its joiners are closed.
fn opener_leaves(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("opener-leaves");
    for joiners in [10, 1_000, 100_000] {
        group.throughput(Throughput::Elements(joiners.into()));
        group.bench_function(BenchmarkId::from_parameter(joiners), |bencher| {
            bencher.iter_batched(
                || HubFixture::new(0, 0, joiners),
                |mut fixture| {
                    black_box(
                        fixture
                            .hub
                            .disconnect(Time::ZERO, fixture.opener, Disconnect::Clean)
                            .len(),
                    )
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// One offer from a joiner to its opener: the cost of the endpoint compared with its codec and hub alone.
fn endpoint(criterion: &mut Criterion) {
    let mut config = EndpointConfig::default();
    config.messages_per_second = None;
    config.bytes_per_second = None;
    let limits = config.limits.clone();
    for dialect in Dialect::ALL {
        let mut group = criterion.benchmark_group(format!("endpoint/{}", dialect.subprotocol()));
        let text = frame(*dialect, &offer(1_200));
        let [open, join] = ["open", "join"].map(|kind| format!(r#"{{"type":"{kind}","key":"tea"}}"#));

        let mut hub = Hub::new(limits.clone());
        let [opener, joiner] = [(); 2].map(|()| {
            hub.connect(Time::ZERO, dialect.profile())
                .expect("connection limit not reached")
        });
        for (id, text) in [(opener, &open), (joiner, &join)] {
            let message = Decoder::new(*dialect, &limits).decode(text).expect("valid message");
            let _ = hub.handle(Time::ZERO, id, message);
        }
        group.bench_function("codec-and-hub", |bencher| {
            let decoder = Decoder::new(*dialect, &limits);
            bencher.iter(|| {
                let message = decoder.decode(black_box(&text)).expect("valid message");
                for (_, message) in hub.handle(Time::ZERO, joiner, message) {
                    black_box(dialect.encode(message));
                }
            });
        });

        let mut endpoint = Endpoint::new(config.clone(), || Some(7));
        let ip = IpAddr::from([192, 0, 2, 1]);
        let [opener, joiner] = [(); 2].map(|()| {
            endpoint
                .connect(Time::ZERO, *dialect, ip)
                .expect("connection limit not reached")
        });
        for (id, text) in [(opener, &open), (joiner, &join)] {
            let _ = endpoint.handle(Time::ZERO, id, Input::Text(text));
        }
        group.bench_function("endpoint", |bencher| {
            bencher.iter(|| {
                for (to, output) in endpoint.handle(Time::ZERO, joiner, Input::Text(black_box(&text))) {
                    if let Output::Send(frame) = &output {
                        black_box(endpoint.written(Time::ZERO, to, frame.cost()));
                    }
                    black_box(output);
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, codec, growth, opener_leaves, endpoint);
criterion_main!(benches);
