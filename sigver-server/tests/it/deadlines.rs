//! Deadlines: half-open connections, clients that ignore a close frame, and shutdown.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use sigver_transcripts::{Seen, socket::Client};

use crate::support::{Running, eventually, test_config};

const PAIRS: usize = 50;

/// The client answers no pings. Bytes of an incomplete frame do not count as activity.
#[test]
fn half_open_connection_is_closed() {
    let mut config = test_config();
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
    let elsewhere = Running::start(test_config());
    let mut clock = elsewhere.client();
    for _ in 0..60_000 {
        if server.handle.stats().connections == 0 {
            break;
        }
        silent.send_raw(b"x").expect("it is connected");
        clock.sync();
    }
    assert_eq!(silent.receive(), Seen::Close(Some(1008), "no sign of life".into()));
    assert!(began.elapsed() >= missed, "the client has time to answer two pings");
}

/// The client keeps sending after the close frame.
#[test]
fn client_ignoring_close_is_aborted_after_timeout() {
    let mut config = test_config();
    config.endpoint.close_timeout = Duration::from_millis(200);
    let server = Running::start(config);
    let mut client = server.client();
    client.send_text("{").expect("it is connected");
    let mut sent = 0;
    while client.send_text(r#"{"type":"open","key":"k"}"#).is_ok() && sent < 1_000_000 {
        sent += 1;
    }
    eventually("its thread has exited", || server.handle.connection_count() == 0);
    assert_eq!(
        server.handle.stats().keys,
        0,
        "messages after the close frame are ignored"
    );
}

#[test]
fn shutdown_closes_every_client_with_1001() {
    let mut config = test_config();
    config.endpoint.drain = Duration::ZERO;
    let server = Running::start(config);
    let mut pairs: Vec<_> = (0..PAIRS).map(|n| server.pair(&n.to_string())).collect();
    // A connection in its handshake cannot receive a close code, and must not delay the shutdown.
    let handshake = TcpStream::connect(server.addr).expect("the server accepts a connection");
    let addr = server.addr;
    server.handle.shutdown();
    for (opener, joiner) in &mut pairs {
        for client in [opener, joiner] {
            assert_eq!(client.receive(), Seen::Close(Some(1001), "server shutting down".into()));
        }
    }
    server.stop().expect("the server shuts down without an error");
    drop(handshake);
    assert!(Client::connect(addr, "/").is_err(), "new clients are rejected");
}
