//! The limits of the server, each met: what the client that meets it sees, and that nobody else notices. Those of the protocol are met in
//! the transcripts, those of a request head in `handshakes.rs` and `frames.rs`, the backlog in `slow_reader.rs`, the ceiling in `binary.rs`.

use std::{
    io,
    net::{IpAddr, Shutdown, TcpStream},
    num::NonZeroU32,
    time::{Duration, Instant},
};

use sigver_server::Config;
use sigver_transcripts::{
    Seen,
    socket::{Client, Opcode, Piece, frame},
};

use crate::support::{Running, connect_from, eventually, handshake};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

/// A client from this address, with these headers.
fn client(server: &Running, from: IpAddr, headers: &str) -> io::Result<Client> {
    Ok(handshake(connect_from(server.addr, from)?, "/", headers)?.0)
}

fn is_unavailable(outcome: io::Result<Client>) -> bool {
    outcome.err().is_some_and(|error| error.to_string().contains(" 503 "))
}

#[test]
fn connections_beyond_limit_are_rejected_with_503() -> io::Result<()> {
    let mut config = Config::default();
    config.endpoint.limits.connections = 2;
    let server = Running::start(config);
    let (opener, mut joiner) = server.pair("k");
    for _ in 0..3 {
        assert!(is_unavailable(client(&server, HERE, "")));
    }
    assert_eq!(joiner.leftover(), Seen::Nothing);
    drop(opener);
    eventually("there is room again", || client(&server, HERE, "").is_ok());
    Ok(())
}

/// A client that has closed its side, and does not read what was on its way, is one of them until it does, or is cut.
#[test]
fn closing_connections_count_against_the_limit() -> io::Result<()> {
    const MESSAGES: usize = 14;
    let mut config = Config::default();
    config.endpoint.limits.connections = 2;
    config.endpoint.close_timeout = Duration::from_secs(3600);
    let server = Running::start(config);
    let (mut opener, mut joiner) = server.pair("k");
    let message = format!(r#"{{"n":"{}"}}"#, "x".repeat(60_000));
    for _ in 0..MESSAGES {
        joiner.send_text(&message)?;
    }
    joiner.sync();
    opener.send_frame(Opcode::Close, Piece::Last, &1000_u16.to_be_bytes())?;
    opener.stream().shutdown(Shutdown::Write)?;
    assert_eq!(joiner.receive(), Seen::Close(Some(4001), "opener left".into()));
    drop(joiner);
    eventually("the joiner is gone", || server.handle.connections() < 2);
    let _second = client(&server, HERE, "")?;
    for _ in 0..20 {
        assert!(is_unavailable(client(&server, HERE, "")));
    }
    for _ in 0..MESSAGES {
        assert!(matches!(opener.receive(), Seen::Text(_)));
    }
    assert_eq!(opener.receive(), Seen::Close(Some(1000), String::new()));
    eventually("there is room again", || client(&server, HERE, "").is_ok());
    Ok(())
}

#[test]
fn connections_per_ip_beyond_limit_are_rejected() -> io::Result<()> {
    let mut config = Config::default();
    config.connections_per_ip = NonZeroU32::new(2);
    let server = Running::start(config);
    let (opener, joiner) = server.pair("k");
    assert!(is_unavailable(client(&server, HERE, "")));
    assert!(
        is_unavailable(client(&server, HERE, "X-Forwarded-For: 192.0.2.1\r\n")),
        "whoever connects directly is not believed"
    );
    let _elsewhere = client(&server, ELSEWHERE, "")?;
    drop((opener, joiner));
    eventually("there is room again", || client(&server, HERE, "").is_ok());
    Ok(())
}

#[test]
fn connections_per_ip_count_forwarded_clients() -> io::Result<()> {
    let mut config = Config::default();
    config.connections_per_ip = NonZeroU32::new(2);
    config.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    let server = Running::start(config);
    let from = |client_ip: &str| client(&server, HERE, &format!("X-Forwarded-For: {client_ip}\r\n"));
    let held = (from("192.0.2.1")?, from("192.0.2.2")?);
    let second = from("6.6.6.6, 192.0.2.1")?;
    assert!(is_unavailable(from("192.0.2.1")));
    assert!(
        is_unavailable(from("192.0.2.9, 192.0.2.1")),
        "what a client makes up does not help it"
    );
    let neighbours = (from("2001:db8::1")?, from("2001:db8::2")?);
    assert!(is_unavailable(from("2001:db8::3")), "a /64 is one source");
    let _third = from("192.0.2.3")?;
    drop(second);
    eventually("there is room again", || from("192.0.2.1").is_ok());
    drop((held, neighbours));
    Ok(())
}

#[test]
fn handshakes_per_ip_beyond_limit_are_rejected() -> io::Result<()> {
    let mut config = Config::default();
    config.handshakes_per_ip = NonZeroU32::new(2);
    let server = Running::start(config);
    let _through = (
        client(&server, HERE, "")?,
        client(&server, HERE, "")?,
        client(&server, HERE, "")?,
    );
    let held: Vec<TcpStream> = (0..2)
        .map(|_| connect_from(server.addr, HERE))
        .collect::<io::Result<_>>()?;
    eventually("both are taken", || server.handle.connections() == 5);
    assert!(is_unavailable(client(&server, HERE, "")));
    let _elsewhere = client(&server, ELSEWHERE, "")?;
    drop(held);
    eventually("there is room again", || client(&server, HERE, "").is_ok());
    Ok(())
}

/// A rate-limited client is read more slowly. It is not closed, and nothing is lost.
#[test]
fn rates_delay_a_fast_client() -> io::Result<()> {
    for (messages, bytes) in [(20, u32::MAX), (u32::MAX, 20 * 300)] {
        let mut config = Config::default();
        config.endpoint.messages_per_second = messages;
        config.endpoint.bytes_per_second = bytes;
        let server = Running::start(config);
        let (mut opener, mut joiner) = server.pair("k");
        let message = |n: usize| format!(r#"{{"n":"{n:03}","x":"{}"}}"#, "x".repeat(280));
        let frames: Vec<u8> = (0..40)
            .flat_map(|n| frame(Opcode::Text, Piece::Last, message(n).as_bytes()))
            .collect();
        let began = Instant::now();
        joiner.send_raw(&frames)?;
        for n in 0..40 {
            let with_index = message(n).replace('}', r#","index":0}"#);
            assert_eq!(opener.receive(), Seen::Text(with_index));
        }
        // The connection's thread learns of the pause when its events are handled, of which it has four on their way.
        assert!(
            began.elapsed() > Duration::from_millis(700),
            "20 are free, five more may be read before the pause, and 15 take 750 milliseconds"
        );
        assert_eq!(joiner.leftover(), Seen::Nothing, "it is still there");
    }
    Ok(())
}

#[test]
fn byte_rate_counts_fragments_between_pings() -> io::Result<()> {
    let mut config = Config::default();
    config.endpoint.bytes_per_second = 20 * 300;
    let server = Running::start(config);
    let (mut opener, mut joiner) = server.pair("k");
    let message = format!(r#"{{"x":"{}"}}"#, "x".repeat(290));
    let (first, last) = message.as_bytes().split_at(297);
    let frames: Vec<u8> = [
        frame(Opcode::Text, Piece::More, first),
        frame(Opcode::Ping, Piece::Last, b""),
        frame(Opcode::Continuation, Piece::Last, last),
    ]
    .concat();
    let began = Instant::now();
    joiner.send_raw(&frames.repeat(40))?;
    for _ in 0..40 {
        assert!(matches!(opener.receive(), Seen::Text(_)));
    }
    assert!(
        began.elapsed() > Duration::from_millis(700),
        "40 are two seconds' worth"
    );
    Ok(())
}

/// The client would have to wait for a quarter of an hour.
#[test]
fn rate_limited_client_delays_nobody_else_and_can_be_closed() -> io::Result<()> {
    let mut config = Config::default();
    config.endpoint.messages_per_second = 10;
    let server = Running::start(config);
    let (opener, mut joiner) = server.pair("k");
    joiner.send_raw(&frame(Opcode::Text, Piece::Last, b"{}").repeat(10_000))?;
    let (mut other_opener, mut other_joiner) = server.pair("bystanders");
    other_joiner.send_text(r#"{"n":1}"#)?;
    assert_eq!(other_opener.receive(), Seen::Text(r#"{"n":1,"index":0}"#.into()));
    drop((opener, other_opener, other_joiner));
    assert_eq!(joiner.receive(), Seen::Close(Some(4001), "opener left".into()));
    drop(joiner);
    eventually("its thread has ended", || server.handle.connections() == 0);
    Ok(())
}

/// Beyond its guesses, a source finds no key at all: those that are there look like those that are not.
#[test]
fn key_attempts_per_ip_hide_existing_keys() -> io::Result<()> {
    let mut config = Config::default();
    config.endpoint.key_attempts_per_minute = 3;
    let server = Running::start(config);
    let v1 = "Sec-WebSocket-Protocol: sigver.v1\r\n";
    let mut opener = client(&server, ELSEWHERE, v1)?;
    let opened = |key| Seen::Text(format!(r#"{{"type":"opened","key":"{key}"}}"#));
    opener.send_text(r#"{"type":"open","key":"tea"}"#)?;
    assert_eq!(opener.receive(), opened("tea"));
    let unknown = |key: &str| {
        Seen::Text(format!(
            r#"{{"type":"error","code":"unknown-key","message":"`key` is unknown: nobody has it open","key":"{key}"}}"#
        ))
    };
    let taken = |key: &str| {
        Seen::Text(format!(
            r#"{{"type":"error","code":"key-taken","message":"`key` is taken: another opener has it","key":"{key}"}}"#
        ))
    };
    let mut guesser = client(&server, HERE, v1)?;
    let mut ask = |kind: &str, key: &str| {
        let _ = guesser.send_text(&format!(r#"{{"type":"{kind}","key":"{key}"}}"#));
        guesser.receive()
    };
    assert_eq!(ask("join", "a"), unknown("a"));
    assert_eq!(ask("open", "tea"), taken("tea"));
    assert_eq!(ask("join", "tea"), Seen::Text(r#"{"type":"joined","index":0}"#.into()));
    guesser.send_text(r#"{"type":"leave"}"#)?;
    let mut ask = |kind: &str, key: &str| {
        let _ = guesser.send_text(&format!(r#"{{"type":"{kind}","key":"{key}"}}"#));
        guesser.receive()
    };
    assert_eq!(ask("join", "b"), unknown("b"));
    assert_eq!(ask("join", "tea"), unknown("tea"));
    assert_eq!(ask("open", "free"), taken("free"));
    let mut plain = client(&server, HERE, "")?;
    plain.send_text(r#"{"type":"join","key":"tea"}"#)?;
    assert_eq!(plain.receive(), Seen::Close(Some(1008), "key is unknown".into()));
    let mut plain = client(&server, HERE, "")?;
    plain.send_text(r#"{"type":"open","key":"free"}"#)?;
    assert_eq!(plain.receive(), Seen::Close(Some(1008), "key is taken".into()));
    // Whoever has a role keeps it, and others find their keys.
    let mut joiner = client(&server, ELSEWHERE, v1)?;
    joiner.send_text(r#"{"type":"join","key":"tea"}"#)?;
    assert_eq!(joiner.receive(), Seen::Text(r#"{"type":"joined","index":1}"#.into()));
    Ok(())
}
