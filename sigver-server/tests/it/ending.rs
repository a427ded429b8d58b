//! The end of the server: who is told, when, in which order, and what is answered meanwhile.

use std::{
    io,
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use sigver_server::Config;
use sigver_transcripts::{Seen, socket::Client};

use crate::support::{Running, get};

const PAIRS: usize = 50;

fn bye() -> Seen {
    Seen::Close(Some(1001), "server shutting down".into())
}

/// Joiners would get 4001 if their openers were closed first. The pace of a drain is tested in virtual time.
#[test]
fn drain_closes_openers_last_and_answers_probes() -> io::Result<()> {
    let mut config = Config::default();
    config.drain = Duration::from_secs(3600);
    let server = Running::start(config);
    let addr = server.addr;
    assert!(get(addr, "/ready")?.starts_with("HTTP/1.1 200 OK\r\n"));
    let (mut openers, joiners): (Vec<_>, Vec<_>) = (0..PAIRS).map(|n| server.pair(&n.to_string())).unzip();
    let began = Instant::now();
    server.handle.shutdown();
    openers[0].send_text(r#"{"still":"here","index":"no number"}"#)?;
    // The drain takes a second, in which a busy machine may not get to ask. Then nobody answers any more.
    let is_answered = |path: &str, status: &str| {
        let answer = get(addr, path).unwrap_or_default();
        assert!(answer.is_empty() || answer.starts_with(status), "{path}: {answer}");
    };
    is_answered("/ready", "HTTP/1.1 503 Service Unavailable\r\n");
    is_answered("/health", "HTTP/1.1 200 OK\r\n");
    assert!(Client::connect(addr, "/").is_err(), "nobody new comes in");
    // The first opener ends early, and perhaps before its joiner.
    for mut joiner in joiners.into_iter().skip(1) {
        assert_eq!(joiner.receive(), bye());
    }
    let malformed = Seen::Close(Some(1007), "`index` is not a non-negative integer".into());
    let first = openers[0].receive();
    assert!(
        first == malformed || first == bye(),
        "clients are served until their turn: {first}"
    );
    for opener in &mut openers[1..] {
        assert_eq!(opener.receive(), bye());
    }
    // 10 milliseconds from one client to the next.
    let least = Duration::from_millis(PAIRS as u64 * 2 * 10 - 50);
    assert!(began.elapsed() >= least, "all are closed after {:?}", began.elapsed());
    server.stop().expect("the server ends in order");
    assert!(TcpStream::connect(addr).is_err(), "nobody listens any more");
    Ok(())
}

#[test]
fn drain_of_few_clients_does_not_take_its_whole_time() {
    let mut config = Config::default();
    config.drain = Duration::from_secs(3600);
    let server = Running::start(config);
    let (mut opener, mut joiner) = server.pair("k");
    server.handle.shutdown();
    assert_eq!((joiner.receive(), opener.receive()), (bye(), bye()));
}

#[test]
fn second_shutdown_ends_a_drain() {
    let mut config = Config::default();
    config.drain = Duration::from_secs(3600);
    let server = Running::start(config);
    let mut pairs: Vec<_> = (0..PAIRS).map(|n| server.pair(&n.to_string())).collect();
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
}

/// Amid a flood, the last frame comes behind whole ones.
#[test]
fn no_frame_is_cut_in_the_middle() -> io::Result<()> {
    for now in [false, true] {
        let server = Running::start(Config::default());
        let (mut opener, mut joiner) = server.pair("k");
        let flooded = joiner.stream().try_clone()?;
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
        // The kernel may keep the window of a socket that the server has closed shut for a minute before it resets the connection. It fails
        // where the connection has been reset.
        let _ = flooded.shutdown(Shutdown::Both);
        flood.join().expect("it only sends");
    }
    Ok(())
}
