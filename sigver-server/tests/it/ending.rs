//! Graceful shutdown: the order of close frames, and the responses during a drain.

use std::{
    io::{self, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use sigver_server::Server;
use sigver_transcripts::{Seen, socket::Client};

use crate::support::{Running, eventually, get, handshake, test_config};

const PAIRS: usize = 50;

fn shutting_down() -> Seen {
    Seen::Close(Some(1001), "server shutting down".into())
}

/// If openers were closed first, their joiners would receive 4001. Unit tests in virtual time check the pace of a drain.
#[test]
fn drain_closes_openers_last_and_answers_probes() -> io::Result<()> {
    let mut config = test_config();
    config.endpoint.drain = Duration::from_secs(3600);
    let server = Running::start(config);
    let addr = server.addr;
    assert!(get(addr, "/ready")?.starts_with("HTTP/1.1 200 OK\r\n"));
    let (openers, joiners): (Vec<_>, Vec<_>) = (0..PAIRS).map(|n| server.pair(&n.to_string())).unzip();
    // Its violation must not close one of the other joiners with 4001.
    let (mut lone, _) = server.pair("lone");
    let began = Instant::now();
    server.handle.shutdown();
    lone.send_text(r#"{"still":"here","index":"no number"}"#)?;
    // The drain takes a second. On a busy machine, a request may be too late for a response.
    let is_answered = |path: &str, status: &str| {
        let answer = get(addr, path).unwrap_or_default();
        assert!(answer.is_empty() || answer.starts_with(status), "{path}: {answer}");
    };
    is_answered("/ready", "HTTP/1.1 503 Service Unavailable\r\n");
    is_answered("/health", "HTTP/1.1 200 OK\r\n");
    assert!(Client::connect(addr, "/").is_err(), "new clients are rejected");
    for mut joiner in joiners {
        assert_eq!(joiner.receive(), shutting_down());
    }
    let malformed = Seen::Close(Some(1007), "`index` is not a non-negative integer".into());
    let first = lone.receive();
    assert!(
        first == malformed || first == shutting_down(),
        "clients are served until their turn: {first}"
    );
    for mut opener in openers {
        assert_eq!(opener.receive(), shutting_down());
    }
    // Clients are closed 10 milliseconds apart.
    let least = Duration::from_millis(PAIRS as u64 * 2 * 10 - 50);
    assert!(began.elapsed() >= least, "all are closed after {:?}", began.elapsed());
    server.stop().expect("the server shuts down without an error");
    assert!(TcpStream::connect(addr).is_err(), "the listener is closed");
    Ok(())
}

/// Load balancers see that the server is about to end before it rejects anybody. The delay is longer than the test: a second call ends it.
#[test]
fn pre_stop_delay_serves_everything_with_ready_at_503() -> io::Result<()> {
    let mut config = test_config();
    config.pre_stop_delay = Duration::from_secs(3600);
    let server = Running::start(config);
    let (mut opener, mut joiner) = server.pair("k");
    server.handle.shutdown();
    assert!(get(server.addr, "/ready")?.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    assert!(get(server.addr, "/health")?.starts_with("HTTP/1.1 200 OK\r\n"));
    let (new_opener, mut new_joiner) = server.pair("new");
    joiner.send_text("{}")?;
    assert_eq!(opener.receive(), Seen::Text(r#"{"index":0}"#.into()));
    drop(new_opener);
    assert_eq!(new_joiner.receive(), Seen::Close(Some(4001), "opener left".into()));
    server.handle.shutdown();
    assert_eq!((joiner.receive(), opener.receive()), (shutting_down(), shutting_down()));
    Ok(())
}

#[test]
fn drain_begins_after_the_pre_stop_delay() {
    let mut config = test_config();
    config.pre_stop_delay = Duration::from_millis(300);
    let server = Running::start(config);
    let mut client = server.client();
    client.sync();
    let began = Instant::now();
    server.handle.shutdown();
    assert_eq!(client.receive(), shutting_down());
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[test]
fn pre_stop_delay_ends_at_once_with_shutdown_now() {
    let mut config = test_config();
    config.pre_stop_delay = Duration::MAX;
    let server = Running::start(config);
    let mut client = server.client();
    client.sync();
    server.handle.shutdown();
    server.handle.shutdown_now();
    assert_eq!(client.receive(), shutting_down());
}

#[test]
fn drain_of_few_clients_ends_early() {
    let mut config = test_config();
    config.endpoint.drain = Duration::from_secs(3600);
    let server = Running::start(config);
    let (mut opener, mut joiner) = server.pair("k");
    server.handle.shutdown();
    assert_eq!((joiner.receive(), opener.receive()), (shutting_down(), shutting_down()));
}

/// The drain waits for pending handshakes, so that no client sees the restart. Here there are none.
#[test]
fn drain_with_inherited_listener_ends_without_clients() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut config = test_config();
    config.handshake_timeout = Duration::from_secs(3600);
    let server = Server::with_listeners(config, vec![listener]).expect("it is a listener");
    let (addr, handle) = (server.local_addr().expect("a TCP address"), server.handle());
    let running = thread::spawn(|| server.run());
    let mut client = Client::connect(addr, "/")?;
    let mut half = TcpStream::connect(addr)?;
    half.write_all(b"GET / HT")?;
    eventually("both are accepted", || handle.connection_count() == 2);
    handle.shutdown();
    assert_eq!(client.receive(), shutting_down());
    drop((client, half));
    running
        .join()
        .expect("it does not panic")
        .expect("the server shuts down without an error");
    Ok(())
}

#[test]
fn counters_are_final_when_run_returns() {
    let server = Running::start(test_config());
    let handle = server.handle.clone();
    let (mut opener, mut joiner) = server.pair("k");
    handle.shutdown_now();
    assert_eq!((joiner.receive(), opener.receive()), (shutting_down(), shutting_down()));
    drop((opener, joiner));
    server.stop().expect("the server shuts down without an error");
    let stats = handle.stats();
    assert_eq!(
        (stats.connections, stats.keys, stats.joiners, stats.closed),
        (0, 0, 0, 2)
    );
}

#[test]
fn second_shutdown_ends_a_drain() {
    let mut config = test_config();
    config.endpoint.drain = Duration::from_secs(3600);
    let server = Running::start(config);
    let mut pairs: Vec<_> = (0..PAIRS).map(|n| server.pair(&n.to_string())).collect();
    server.handle.shutdown();
    assert_eq!(pairs[0].1.receive(), shutting_down());
    server.handle.shutdown_now();
    for (opener, joiner) in &mut pairs {
        assert_eq!(opener.receive(), shutting_down());
        // The order of the two is not fixed.
        let seen = joiner.receive();
        assert!(seen == shutting_down() || seen == Seen::Lost, "{seen:?}");
    }
    server.stop().expect("the server shuts down without an error");
}

/// The close frame follows complete frames, even under load.
#[test]
fn shutdown_truncates_no_frame() -> io::Result<()> {
    for now in [false, true] {
        let mut config = test_config();
        // A slow machine reads more slowly than it is flooded.
        config.endpoint.backlog_bytes = u32::MAX;
        let server = Running::start(config);
        let (mut opener, mut joiner) = server.pair("k");
        let flooded = joiner.stream().try_clone()?;
        let flood = thread::spawn(move || {
            let message = format!(r#"{{"x":"{}"}}"#, "x".repeat(20_000));
            while joiner.send_text(&message).is_ok() {}
        });
        let complete = Seen::Text(format!(r#"{{"x":"{}","index":0}}"#, "x".repeat(20_000)));
        for _ in 0..20 {
            assert_eq!(opener.receive(), complete);
        }
        if now {
            server.handle.shutdown_now();
        } else {
            server.handle.shutdown();
        }
        let last = loop {
            let seen = opener.receive();
            if seen != complete {
                break seen;
            }
        };
        assert_eq!(last, shutting_down());
        server.stop().expect("the server shuts down without an error");
        // The kernel may keep the window of the closed socket at zero for a minute before it resets the connection. This call fails if
        // the connection has been reset.
        let _ = flooded.shutdown(Shutdown::Both);
        flood.join().expect("the thread only sends");
    }
    Ok(())
}

/// A client that sees the end of its connection may open its key again at once: a plain one, and one of `sigver.v1` with its token.
#[test]
fn vanished_opener_opens_its_key_again_when_its_connection_is_closed() -> io::Result<()> {
    let server = Running::start(test_config());
    let mut token = String::new();
    for n in 0..300 {
        let stream = TcpStream::connect(server.addr)?;
        let (mut opener, _) = handshake(stream, "/", "Sec-WebSocket-Protocol: sigver.v1\r\n")?;
        opener.send_text(&format!(r#"{{"type":"open","key":"tea","token":"{token}"}}"#))?;
        let opened = opener.receive().to_string();
        let rest = opened.strip_prefix(r#"{"type":"opened","key":"tea","token":""#);
        token = rest
            .and_then(|rest| rest.strip_suffix(r#""}"#))
            .ok_or_else(|| io::Error::other(format!("{n}: {opened}")))?
            .to_owned();
        opener.vanish()?;

        let mut plain = Client::connect(server.addr, "/")?;
        plain.send_text(r#"{"type":"open","key":"coffee"}"#)?;
        plain.sync();
        assert_eq!(plain.leftover(), Seen::Nothing, "{n}");
        plain.vanish()?;
    }
    Ok(())
}
