//! The limits of the server: what a client beyond a limit receives, and that other clients are not affected. Transcripts test the limits of
//! the protocol, `handshakes.rs` and `frames.rs` those of a request head, `slow_reader.rs` the backlog, `binary.rs` the connection limit.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, TcpStream},
    num::{NonZeroU32, NonZeroU64},
    thread,
    time::{Duration, Instant},
};

use sigver_server::Page;
use sigver_transcripts::{
    Seen,
    socket::{Client, Opcode, Piece, frame},
};
use socket2::SockRef;

use crate::support::{Running, connect_from, eventually, exchange, get, handshake, test_config};

const FIRST_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));
const SECOND_IP: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

/// Connects a client from this address, with these headers.
fn client(server: &Running, from: IpAddr, headers: &str) -> io::Result<Client> {
    Ok(handshake(connect_from(server.addr, from)?, "/", headers)?.0)
}

fn is_unavailable(outcome: io::Result<Client>) -> bool {
    outcome.err().is_some_and(|error| error.to_string().contains(" 503 "))
}

#[test]
fn connections_beyond_limit_are_rejected_with_503() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.limits.connections = NonZeroU32::new(2);
    let server = Running::start(config);
    let (opener, mut joiner) = server.pair("k");
    for _ in 0..3 {
        assert!(is_unavailable(client(&server, FIRST_IP, "")));
    }
    assert_eq!(joiner.leftover(), Seen::Nothing);
    drop(opener);
    eventually("a place is free again", || client(&server, FIRST_IP, "").is_ok());
    Ok(())
}

/// An orchestrator would restart a full server that does not answer its probe. Connections that send nothing do not keep the probe out.
#[test]
fn full_server_answers_plain_requests() -> io::Result<()> {
    let mut by_connections = test_config();
    by_connections.endpoint.limits.connections = NonZeroU32::new(1);
    let mut by_ip = test_config();
    by_ip.connections_per_ip = NonZeroU32::new(1);
    for mut config in [by_connections, by_ip] {
        config.pages = vec![
            Page::new("/small", "text/plain", *b"small"),
            Page::new("/large", "text/plain", vec![b'x'; 4 << 20]),
        ];
        let server = Running::start(config);
        let (mut held, _) = handshake(TcpStream::connect(server.addr)?, "/", "")?;
        held.sync();
        for _ in 0..3 {
            let _silent: Vec<TcpStream> = (0..40)
                .map(|_| TcpStream::connect(server.addr))
                .collect::<io::Result<_>>()?;
            for (path, status) in [
                ("/health", "200 OK"),
                ("/ready", "200 OK"),
                ("/small", "200 OK"),
                ("/none", "404 Not Found"),
                ("/large", "503 Service Unavailable"),
            ] {
                let answer = get(server.addr, path)?;
                assert!(
                    answer.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                    "{path}: {answer}"
                );
            }
            let mut bytewise = TcpStream::connect(server.addr)?;
            for byte in b"GET /health HTTP/1.0\r\n\r\n" {
                bytewise.write_all(&[*byte])?;
            }
            let mut answer = String::new();
            bytewise.read_to_string(&mut answer)?;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
            assert!(is_unavailable(client(&server, FIRST_IP, "")));
            let answer = exchange(server.addr, b"GET /health HTTP/1.1\r\n\r\n")?;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            let answer = exchange(server.addr, format!("GET /{}", "x".repeat(17_000)).as_bytes())?;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        }
        assert_eq!(held.leftover(), Seen::Nothing);
        assert_eq!(server.handle.connection_count(), 1);
    }
    Ok(())
}

/// The probe of a load balancer may come from the address of the clients that have reached a limit, or be forwarded for one of them.
#[test]
fn address_at_its_limit_gets_probes_answered() -> io::Result<()> {
    const CLIENT: &str = "X-Forwarded-For: 192.0.2.1\r\n";
    let mut by_handshakes = test_config();
    by_handshakes.handshakes_per_ip = NonZeroU32::new(1);
    let mut forwarded = test_config();
    forwarded.connections_per_ip = NonZeroU32::new(1);
    forwarded.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    for config in [by_handshakes, forwarded] {
        let is_proxied = !config.trusted_proxies.is_empty();
        let server = Running::start(config);
        let _held = connect_from(server.addr, FIRST_IP)?;
        let _client = is_proxied.then(|| client(&server, FIRST_IP, CLIENT)).transpose()?;
        eventually("the limit is reached", || {
            is_unavailable(client(&server, FIRST_IP, CLIENT))
        });
        for path in ["/health", "/ready"] {
            let probe = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{CLIENT}\r\n");
            for _ in 0..3 {
                let answer = exchange(server.addr, probe.as_bytes())?;
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
            }
        }
    }
    Ok(())
}

#[test]
fn full_server_reports_shutdown_on_ready_only() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.limits.connections = NonZeroU32::new(1);
    config.pre_stop_delay = Duration::from_secs(3600);
    let server = Running::start(config);
    let mut held = server.client();
    held.sync();
    assert!(get(server.addr, "/ready")?.starts_with("HTTP/1.1 200 OK\r\n"));
    server.handle.shutdown();
    assert!(get(server.addr, "/ready")?.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    assert!(get(server.addr, "/health")?.starts_with("HTTP/1.1 200 OK\r\n"));
    Ok(())
}

/// A client over the limit that sends nothing is rejected after a while.
#[test]
fn silent_client_over_the_limit_is_rejected_with_503() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.limits.connections = NonZeroU32::new(1);
    let server = Running::start(config);
    let mut held = server.client();
    held.sync();
    let mut answer = String::new();
    TcpStream::connect(server.addr)?.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    Ok(())
}

/// Nor is the end of its connection waited for: what it sends is discarded up to a limit.
#[test]
fn rejected_client_that_keeps_sending_is_disconnected() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.limits.connections = NonZeroU32::new(1);
    let server = Running::start(config);
    let mut held = server.client();
    held.sync();
    let mut flood = TcpStream::connect(server.addr)?;
    flood.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let chunk = [b'x'; 4096];
    while flood.write_all(&chunk).is_ok() {}
    Ok(())
}

/// A half-closed client that does not read its pending frames counts until it reads them or is aborted.
#[test]
fn closing_connections_count_against_the_limit() -> io::Result<()> {
    const MESSAGES: usize = 14;
    let mut config = test_config();
    config.endpoint.limits.connections = NonZeroU32::new(2);
    config.endpoint.close_timeout = Duration::from_secs(3600);
    let server = Running::start(config);
    let (mut opener, mut joiner) = server.pair("k");
    let message = format!(r#"{{"index":0,"n":"{}"}}"#, "x".repeat(60_000));
    for _ in 0..MESSAGES {
        opener.send_text(&message)?;
    }
    opener.sync();
    joiner.send_frame(Opcode::Close, Piece::Last, &1000_u16.to_be_bytes())?;
    joiner.stream().shutdown(Shutdown::Write)?;
    eventually("the joiner is closing", || server.handle.stats().connections == 1);
    for _ in 0..20 {
        assert!(is_unavailable(client(&server, FIRST_IP, "")));
    }
    for _ in 0..MESSAGES {
        assert!(matches!(joiner.receive(), Seen::Text(_)));
    }
    assert_eq!(joiner.receive(), Seen::Close(Some(1000), String::new()));
    eventually("a place is free again", || client(&server, FIRST_IP, "").is_ok());
    Ok(())
}

#[test]
fn connections_per_ip_beyond_limit_are_rejected() -> io::Result<()> {
    let mut config = test_config();
    config.connections_per_ip = NonZeroU32::new(2);
    let server = Running::start(config);
    let (opener, joiner) = server.pair("k");
    assert!(is_unavailable(client(&server, FIRST_IP, "")));
    assert!(
        is_unavailable(client(&server, FIRST_IP, "X-Forwarded-For: 192.0.2.1\r\n")),
        "X-Forwarded-For of a direct client is ignored"
    );
    let _elsewhere = client(&server, SECOND_IP, "")?;
    drop((opener, joiner));
    eventually("a place is free again", || client(&server, FIRST_IP, "").is_ok());
    Ok(())
}

#[test]
fn connections_per_ip_count_forwarded_clients() -> io::Result<()> {
    let mut config = test_config();
    config.connections_per_ip = NonZeroU32::new(2);
    config.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    let server = Running::start(config);
    let from = |client_ip: &str| client(&server, FIRST_IP, &format!("X-Forwarded-For: {client_ip}\r\n"));
    let held = (from("192.0.2.1")?, from("192.0.2.2")?);
    let second = from("6.6.6.6, 192.0.2.1")?;
    assert!(is_unavailable(from("192.0.2.1")));
    assert!(
        is_unavailable(from("192.0.2.9, 192.0.2.1")),
        "addresses before the trusted one are ignored"
    );
    let neighbours = (from("2001:db8::1")?, from("2001:db8::2")?);
    assert!(is_unavailable(from("2001:db8::3")), "a /64 network is one client IP");
    let _third = from("192.0.2.3")?;
    drop(second);
    eventually("a place is free again", || from("192.0.2.1").is_ok());
    drop((held, neighbours));
    Ok(())
}

#[test]
fn handshakes_per_ip_beyond_limit_are_rejected() -> io::Result<()> {
    let mut config = test_config();
    config.handshakes_per_ip = NonZeroU32::new(2);
    let server = Running::start(config);
    let _through = (
        client(&server, FIRST_IP, "")?,
        client(&server, FIRST_IP, "")?,
        client(&server, FIRST_IP, "")?,
    );
    let held: Vec<TcpStream> = (0..2)
        .map(|_| connect_from(server.addr, FIRST_IP))
        .collect::<io::Result<_>>()?;
    eventually("both are accepted", || server.handle.connection_count() == 5);
    assert!(is_unavailable(client(&server, FIRST_IP, "")));
    let _elsewhere = client(&server, SECOND_IP, "")?;
    drop(held);
    eventually("a place is free again", || client(&server, FIRST_IP, "").is_ok());
    Ok(())
}

/// The handshakes of clients behind a proxy are not limited, not even for an instant.
#[test]
fn handshakes_per_ip_do_not_count_forwarded_clients() -> io::Result<()> {
    let mut config = test_config();
    config.handshakes_per_ip = NonZeroU32::new(1);
    config.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    let server = Running::start(config);
    let served = thread::scope(|scope| {
        let attempts = || {
            (0..50)
                .filter(|_| client(&server, FIRST_IP, "X-Forwarded-For: 192.0.2.1\r\n").is_ok())
                .count()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(attempts)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("it does not panic"))
            .sum::<usize>()
    });
    assert_eq!(served, 400);
    Ok(())
}

/// A rate-limited client is delayed, not closed, and no message is lost.
#[test]
fn rates_delay_a_fast_client() -> io::Result<()> {
    for (messages, bytes) in [(20, u32::MAX), (u32::MAX, 20 * 300)] {
        let mut config = test_config();
        config.endpoint.messages_per_second = NonZeroU32::new(messages);
        config.endpoint.bytes_per_second = NonZeroU32::new(bytes);
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
        // The connection's thread pauses when the relay handles its events, and four of them may be queued.
        assert!(
            began.elapsed() > Duration::from_millis(700),
            "20 messages are a burst, five more may be queued, and 15 take 750 ms"
        );
        assert_eq!(joiner.leftover(), Seen::Nothing, "it is not closed");
    }
    Ok(())
}

/// Behind a trusted proxy, the source is the client that the proxy forwards.
#[test]
fn rate_per_ip_delays_all_connections_of_a_client() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.messages_per_second = None;
    config.endpoint.messages_per_second_per_source = NonZeroU32::new(20);
    config.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    let server = Running::start(config);
    let from = |client_ip: &str| client(&server, FIRST_IP, &format!("X-Forwarded-For: {client_ip}\r\n"));
    let pings = frame(Opcode::Ping, Piece::Last, b"").repeat(20);
    let began = Instant::now();
    let mut busy: Vec<Client> = (0..2).map(|_| from("192.0.2.1")).collect::<io::Result<_>>()?;
    for client in &mut busy {
        client.send_raw(&pings)?;
    }
    let mut other = from("192.0.2.2")?;
    other.send_raw(&pings[..pings.len() / 2])?;
    other.sync();
    for client in &mut busy {
        client.sync();
        assert_eq!(client.leftover(), Seen::Nothing, "it is not closed");
    }
    // The thread of a connection pauses when the relay handles its event. Six more may be under way.
    assert!(
        began.elapsed() > Duration::from_millis(400),
        "20 of 42 pings are a burst, twelve more may be under way, and 10 take 500 ms"
    );
    Ok(())
}

/// The kernel discards what a client that disconnects during a pause has sent.
#[test]
fn rate_per_ip_is_not_evaded_by_connecting_again() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.messages_per_second_per_source = NonZeroU32::new(20);
    let server = Running::start(config);
    let pings = frame(Opcode::Ping, Piece::Last, b"").repeat(5);
    let mut pongs = 0;
    let began = Instant::now();
    for _ in 0..40 {
        let mut client = client(&server, FIRST_IP, "")?;
        client.send_raw(&pings)?;
        client.stream().shutdown(Shutdown::Write)?;
        let mut answers = Vec::new();
        // Ends with an error if something was discarded.
        let _ = client.stream().read_to_end(&mut answers);
        pongs += answers.len() / b"\x8a\x00".len();
    }
    let allowed = 20.0 * (1.0 + began.elapsed().as_secs_f64());
    // One connection may have all of its pings under way when the rate is exceeded.
    assert!(
        pongs >= 20 && pongs as f64 <= allowed + 5.0,
        "{pongs}, allowed {allowed}"
    );
    Ok(())
}

#[test]
fn byte_rate_counts_fragments_between_pings() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.bytes_per_second = NonZeroU32::new(20 * 300);
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
        "40 messages take two seconds"
    );
    Ok(())
}

/// The messages that the client has sent take a quarter of an hour.
#[test]
fn rate_limited_client_delays_no_other_and_can_be_closed() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.messages_per_second = NonZeroU32::new(10);
    let server = Running::start(config);
    let (opener, mut joiner) = server.pair("k");
    joiner.send_raw(&frame(Opcode::Text, Piece::Last, b"{}").repeat(10_000))?;
    let (mut other_opener, mut other_joiner) = server.pair("bystanders");
    other_joiner.send_text(r#"{"n":1}"#)?;
    assert_eq!(other_opener.receive(), Seen::Text(r#"{"n":1,"index":0}"#.into()));
    drop((opener, other_opener, other_joiner));
    assert_eq!(joiner.receive(), Seen::Close(Some(4001), "opener left".into()));
    drop(joiner);
    eventually("its thread has exited", || server.handle.connection_count() == 0);
    Ok(())
}

/// Beyond the limit, the reply is the same whether the key exists or not.
#[test]
fn attempts_over_the_limit_are_refused_whatever_the_key() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.key_attempts_per_minute = NonZeroU32::new(3);
    let server = Running::start(config);
    let v1 = "Sec-WebSocket-Protocol: sigver.v1\r\n";
    let mut opener = client(&server, SECOND_IP, v1)?;
    let is_opened =
        |seen: &Seen| matches!(seen, Seen::Text(text) if text.starts_with(r#"{"type":"opened","key":"tea""#));
    opener.send_text(r#"{"type":"open","key":"tea"}"#)?;
    assert!(is_opened(&opener.receive()));
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
    let throttled = |key: &str| {
        Seen::Text(format!(
            r#"{{"type":"error","code":"too-many-attempts","message":"too many attempts at keys: try again in a minute","key":"{key}"}}"#
        ))
    };
    let mut attacker = client(&server, FIRST_IP, v1)?;
    let mut ask = |kind: &str, key: &str| {
        let _ = attacker.send_text(&format!(r#"{{"type":"{kind}","key":"{key}"}}"#));
        attacker.receive()
    };
    assert_eq!(ask("join", "a"), unknown("a"));
    assert_eq!(ask("open", "tea"), taken("tea"));
    assert_eq!(ask("join", "tea"), Seen::Text(r#"{"type":"joined","index":0}"#.into()));
    attacker.send_text(r#"{"type":"leave"}"#)?;
    let mut ask = |kind: &str, key: &str| {
        let _ = attacker.send_text(&format!(r#"{{"type":"{kind}","key":"{key}"}}"#));
        attacker.receive()
    };
    assert_eq!(ask("join", "b"), unknown("b"));
    assert_eq!(ask("join", "tea"), throttled("tea"));
    assert_eq!(ask("open", "free"), throttled("free"));
    // The address gets ten times three.
    for _ in 3..30 {
        let mut other = client(&server, FIRST_IP, v1)?;
        other.send_text(r#"{"type":"join","key":"guess"}"#)?;
        assert_eq!(other.receive(), unknown("guess"));
    }
    let mut plain = client(&server, FIRST_IP, "")?;
    plain.send_text(r#"{"type":"join","key":"tea"}"#)?;
    assert_eq!(
        plain.receive(),
        Seen::Close(Some(1013), "too many attempts at keys".into())
    );
    let mut plain = client(&server, FIRST_IP, "")?;
    plain.send_text(r#"{"type":"open","key":"free"}"#)?;
    assert_eq!(
        plain.receive(),
        Seen::Close(Some(1013), "too many attempts at keys".into())
    );
    // Existing roles and other client IPs are not affected.
    let mut joiner = client(&server, SECOND_IP, v1)?;
    joiner.send_text(r#"{"type":"join","key":"tea"}"#)?;
    assert_eq!(joiner.receive(), Seen::Text(r#"{"type":"joined","index":1}"#.into()));
    Ok(())
}

/// The end of a connection is no way around its rate: what was sent over it is lost.
#[test]
fn half_closed_client_is_not_read_faster_than_its_rate() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.messages_per_second = NonZeroU32::new(10);
    let server = Running::start(config);
    let mut client = server.client();
    client.send_text(r#"{"type":"open","key":"k"}"#)?;
    client.send_raw(&frame(Opcode::Text, Piece::Last, br#"{"index":9}"#).repeat(1_000))?;
    client.stream().shutdown(Shutdown::Write)?;
    eventually("those within the rate are handled", || {
        server.handle.stats().dropped > 0
    });
    eventually("it is gone", || server.handle.connection_count() == 0);
    let handled = server.handle.stats().dropped;
    assert!(handled < 500, "{handled} of 1,000 messages were handled");
    Ok(())
}

/// Slow consumers use up the limit of all write buffers. Those with the most unread data are closed, and a pair that reads is not.
#[test]
fn slow_consumers_over_the_total_backlog_are_closed() -> io::Result<()> {
    const LIMIT: u64 = 4 << 20;
    let mut config = test_config();
    config.endpoint.backlog_total_bytes = NonZeroU64::new(LIMIT);
    config.endpoint.bytes_per_second = None;
    let server = Running::start(config);
    let (mut opener, mut joiner) = server.pair("honest");
    let mut slow: Vec<_> = (0..16).map(|key| server.pair(&key.to_string())).collect();
    let message = format!(r#"{{"index":0,"x":"{}"}}"#, "x".repeat(60_000));
    for (opener, joiner) in &slow {
        SockRef::from(joiner.stream()).set_recv_buffer_size(4096)?;
        opener.stream().set_write_timeout(Some(Duration::from_secs(1)))?;
    }
    for _ in 0..15 {
        for (opener, _) in &mut slow {
            opener.send_text(&message)?;
        }
        joiner.send_text("{}")?;
        assert_eq!(opener.receive(), Seen::Text(r#"{"index":0}"#.into()));
    }
    let metric = |name: &str| {
        let metrics = server.handle.metrics();
        let value = metrics.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.trim().parse::<f64>().ok())
    };
    assert_eq!(metric("sigver_backlog_limit_bytes "), Some(LIMIT as f64));
    eventually("slow consumers are closed", || {
        metric("sigver_evicted_total ") > Some(0.0)
    });
    let too_slow = r#"sigver_refused_total{reason="too-slow"} "#;
    eventually("the backlogs are within the limit", || {
        metric("sigver_backlog_bytes ") <= Some(LIMIT as f64) && metric(too_slow) > Some(0.0)
    });
    joiner.send_text("{}")?;
    assert_eq!(opener.receive(), Seen::Text(r#"{"index":0}"#.into()));
    Ok(())
}
