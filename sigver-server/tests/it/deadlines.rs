//! What time ends: a connection without a sign of life, one that does not go, and the server itself.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use sigver_server::Config;
use sigver_transcripts::{Seen, socket::Client};

use crate::support::{Running, eventually};

const PAIRS: usize = 50;

/// A half-open connection: its client answers no ping. Bytes of a frame that is not whole are no sign of life.
#[test]
fn half_open_connection_is_closed() {
    let mut config = Config::default();
    config.endpoint.keep_alive = Duration::from_millis(150);
    // The close frame would be lost if the socket were aborted while bytes are sent.
    config.endpoint.close_timeout = Duration::from_secs(3600);
    let (missed, began) = (config.endpoint.keep_alive * 3, Instant::now());
    let server = Running::start(config);
    let mut silent = server.client();
    silent
        .send_raw(&[0x81, 0xfe, 0xff, 0xff, 0, 0, 0, 0])
        .expect("it is connected");
    eventually("it is counted", || server.handle.stats().connections == 1);
    // The next byte goes out after a round trip to another server, so that bytes come for as long as the silence lasts.
    let elsewhere = Running::start(Config::default());
    let mut clock = elsewhere.client();
    for _ in 0..60_000 {
        if server.handle.stats().connections == 0 {
            break;
        }
        silent.send_raw(b"x").expect("it is connected");
        clock.sync();
    }
    assert_eq!(silent.receive(), Seen::Close(Some(1008), "no sign of life".into()));
    assert!(
        began.elapsed() >= missed,
        "two pings are given their time to be answered"
    );
}

/// A client that ignores its close frame, and goes on sending, keeps its socket no longer than the close timeout.
#[test]
fn client_ignoring_close_is_aborted_after_timeout() {
    let mut config = Config::default();
    config.endpoint.close_timeout = Duration::from_millis(200);
    let server = Running::start(config);
    let mut client = server.client();
    client.send_text("{").expect("it is connected");
    let mut sent = 0;
    while client.send_text(r#"{"type":"open","key":"k"}"#).is_ok() && sent < 1_000_000 {
        sent += 1;
    }
    eventually("its thread has ended", || server.handle.connections() == 0);
    assert_eq!(
        server.handle.stats().keys,
        0,
        "what came after the close frame was not heard"
    );
}

#[test]
fn shutdown_closes_every_client_with_1001() {
    let mut config = Config::default();
    config.endpoint.drain = Duration::ZERO;
    let server = Running::start(config);
    let mut pairs: Vec<_> = (0..PAIRS).map(|n| server.pair(&n.to_string())).collect();
    // One in the middle of its handshake, which has no close code yet, and must not hold the server up.
    let handshake = TcpStream::connect(server.addr).expect("the server takes a connection");
    let addr = server.addr;
    server.handle.shutdown();
    for (opener, joiner) in &mut pairs {
        for client in [opener, joiner] {
            assert_eq!(client.receive(), Seen::Close(Some(1001), "server shutting down".into()));
        }
    }
    server.stop().expect("the server ends in order");
    drop(handshake);
    assert!(Client::connect(addr, "/").is_err(), "nobody is served any more");
}
