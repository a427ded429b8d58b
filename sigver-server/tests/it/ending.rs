//! The end of the server: who is told, when, in which order, and what is answered meanwhile.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use sigver_server::Config;
use sigver_transcripts::{Seen, socket::Client};

use crate::support::Running;

const PAIRS: usize = 150;

fn bye() -> Seen {
    Seen::Close(Some(1001), "server shutting down".into())
}

/// The status of a plain request.
fn get(addr: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Everyone is told, one after the other; those who wait for their turn go on talking; nobody new comes in; and probes are answered.
#[test]
fn clients_are_closed_one_after_the_other_and_openers_last() -> io::Result<()> {
    let mut config = Config::default();
    config.endpoint.drain = Duration::from_millis(2400);
    let server = Running::start(config);
    let addr = server.addr;
    assert!(get(addr, "/ready")?.starts_with("HTTP/1.1 200 OK\r\n"));
    let (openers, joiners): (Vec<_>, Vec<_>) = (0..PAIRS).map(|n| server.pair(&n.to_string())).unzip();
    let began = Instant::now();
    server.handle.shutdown();
    let ends = |clients: Vec<Client>| -> Vec<_> {
        let wait = |mut client: Client| {
            thread::spawn(move || {
                assert_eq!(client.receive(), bye());
                began.elapsed()
            })
        };
        clients.into_iter().map(wait).collect()
    };
    let (mut openers, joiners) = (openers, ends(joiners));
    openers[0].send_text(r#"{"still":"here","index":"no number"}"#)?;
    assert_eq!(
        openers[0].receive(),
        Seen::Close(Some(1007), "`index` is not a non-negative integer".into()),
        "those whose turn has not come are served"
    );
    let openers = ends(openers.split_off(1));
    assert!(get(addr, "/ready")?.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    assert!(get(addr, "/health")?.starts_with("HTTP/1.1 200 OK\r\n"));
    let refused = Client::connect(addr, "/").err().map(|error| error.to_string());
    assert!(refused.is_some_and(|refused| refused.contains("503")));
    let join = |threads: Vec<thread::JoinHandle<Duration>>| -> Vec<Duration> {
        threads
            .into_iter()
            .map(|thread| thread.join().expect("it was told"))
            .collect()
    };
    let (joiners, openers) = (join(joiners), join(openers));
    let last = openers.iter().max().expect("there are some");
    assert!(*last >= Duration::from_millis(2300), "not before their time: {last:?}");
    let spread = joiners
        .iter()
        .max()
        .zip(joiners.iter().min())
        .map(|(last, first)| *last - *first);
    assert!(
        spread >= Some(Duration::from_millis(500)),
        "one after the other: {spread:?}"
    );
    server.stop().expect("the server ends in order");
    assert!(TcpStream::connect(addr).is_err(), "nobody listens any more");
    Ok(())
}

#[test]
fn few_clients_are_not_kept_waiting() {
    let mut config = Config::default();
    config.endpoint.drain = Duration::from_secs(3600);
    let server = Running::start(config);
    let (mut opener, mut joiner) = server.pair("k");
    let began = Instant::now();
    server.handle.shutdown();
    assert_eq!((joiner.receive(), opener.receive()), (bye(), bye()));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_server_that_takes_its_time_can_be_told_not_to() {
    let mut config = Config::default();
    config.endpoint.drain = Duration::from_secs(3600);
    let server = Running::start(config);
    // These alone would take three seconds.
    let mut pairs: Vec<_> = (0..PAIRS).map(|n| server.pair(&n.to_string())).collect();
    let began = Instant::now();
    server.handle.shutdown();
    assert_eq!(pairs[0].1.receive(), bye());
    server.handle.shutdown_now();
    for (opener, joiner) in &mut pairs {
        assert_eq!(opener.receive(), bye());
        // One that is closed behind its opener is told of that instead.
        let seen = joiner.receive();
        assert!(seen == bye() || seen == Seen::Lost, "{seen:?}");
    }
    server.stop().expect("the server ends in order");
    assert!(began.elapsed() < Duration::from_millis(2500));
}

/// Amid a flood, the last frame comes behind whole ones.
#[test]
fn no_frame_is_cut_in_the_middle() -> io::Result<()> {
    for now in [false, true] {
        let server = Running::start(Config::default());
        let (mut opener, mut joiner) = server.pair("k");
        let flood = thread::spawn(move || {
            let message = format!(r#"{{"x":"{}"}}"#, "x".repeat(20_000));
            while joiner.send_text(&message).is_ok() {}
        });
        let whole = Seen::Text(format!(r#"{{"x":"{}","index":0}}"#, "x".repeat(20_000)));
        for _ in 0..20 {
            assert_eq!(opener.receive(), whole);
        }
        if now {
            server.handle.shutdown_now();
        } else {
            server.handle.shutdown();
        }
        let last = loop {
            let seen = opener.receive();
            if seen != whole {
                break seen;
            }
        };
        assert_eq!(last, bye());
        server.stop().expect("the server ends in order");
        flood.join().expect("it only sends");
    }
    Ok(())
}
