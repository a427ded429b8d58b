//! What time ends: a connection without a sign of life, one that does not go, and the server itself.

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use sigver_server::Config;
use sigver_transcripts::{Seen, socket::Client};

use crate::support::{Running, eventually};

const PAIRS: usize = 150;

/// A client that is there, and reads, but answers no ping, as one whose network has gone looks to us.
#[test]
fn a_half_open_connection_is_found_out() {
    let mut config = Config::default();
    config.endpoint.keep_alive = Duration::from_millis(150);
    let (patience, began) = (config.endpoint.keep_alive * 3, Instant::now());
    let server = Running::start(config);
    let (mut opener, mut joiner) = server.pair("k");
    // The gauges are published when the join is on its way already.
    eventually("the joiner is counted", || server.handle.stats().joiners == 1);
    let silent = thread::spawn(move || {
        // It reads nothing, so it answers no ping. Bytes that make no whole frame are no sign of life.
        let header = [0x81, 0xfe, 0x40, 0x00];
        for byte in header.into_iter().chain([0; 40]) {
            if joiner.send_raw(&[byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        joiner.receive()
    });
    // The opener reads and so answers pings, and stays.
    eventually("the silent one is gone", || {
        assert_eq!(opener.leftover(), Seen::Nothing);
        server.handle.stats().joiners == 0
    });
    assert!(
        began.elapsed() >= patience,
        "two pings are given their time to be answered"
    );
    assert_eq!(
        silent.join().expect("it only reads"),
        Seen::Close(Some(1008), "no sign of life".into())
    );
}

/// A client that ignores its close frame, and goes on sending, keeps its socket no longer than the close timeout.
#[test]
fn a_client_that_stays_is_cut() {
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
fn a_shutdown_tells_everyone() {
    let server = Running::start(Config::default());
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
