//! The hostile clients of `soak`: one or more threads for each behavior, with blocking sockets.
//!
//! Each thread repeats its behavior until the parent requests a stop, and reconnects if it is disconnected. One behavior
//! is legitimate: it sends byte by byte, and the server must relay it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use sigver_benches::{engine::Endpoint, error::Error};
use sigver_transcripts::{
    Seen,
    socket::{Client, Opcode, Piece, frame},
};
use socket2::SockRef;

use crate::{
    agent::{parent::ParentLink, result::AgentResult},
    run::clients,
};

/// A name, the number of threads, and the function that each thread repeats.
type Behavior = (&'static str, usize, fn(&Attempt<'_>) -> io::Result<()>);

const BEHAVIORS: &[Behavior] = &[
    ("floods", 2, flood),
    ("slow readers", 2, read_slowly),
    ("half-open connections", 20, stay_half_open),
    ("slow handshakes", 10, slow_handshake),
    ("mid-frame resets", 1, reset),
    ("byte-by-byte messages served", 2, byte_by_byte),
    ("garbage", 1, garbage),
    ("churn sessions", 2, churn),
];

/// Context of one run of a behavior.
struct Attempt<'a> {
    addr: SocketAddr,
    stop: &'a AtomicBool,
    key: String,
}

pub(super) fn run(endpoint: &Endpoint, parent: &ParentLink) -> Result<AgentResult, Error> {
    let stop = AtomicBool::new(false);
    let counts: Vec<AtomicU64> = BEHAVIORS.iter().map(|_| AtomicU64::new(0)).collect();
    let unserved = AtomicU64::new(0);
    let addr = endpoint.addr;
    thread::scope(|scope| {
        for ((name, threads, attempt), count) in BEHAVIORS.iter().zip(&counts) {
            for _ in 0..*threads {
                let (stop, unserved) = (&stop, &unserved);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let key = clients::unique_prefix();
                        match attempt(&Attempt { addr, stop, key }) {
                            Ok(()) => drop(count.fetch_add(1, Ordering::Relaxed)),
                            // Hostile clients are expected to fail.
                            Err(_) if name.ends_with("served") && !stop.load(Ordering::Relaxed) => {
                                unserved.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(_) => {}
                        }
                        thread::sleep(RETRY_DELAY);
                    }
                });
            }
        }
        while !parent.stop_requested() {
            thread::sleep(RETRY_DELAY);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let mut result = AgentResult::default();
    for ((name, ..), count) in BEHAVIORS.iter().zip(&counts) {
        result.push(name, count.load(Ordering::Relaxed) as f64);
    }
    result.push(
        "byte-by-byte messages not served",
        unserved.load(Ordering::Relaxed) as f64,
    );
    Ok(result)
}

impl Attempt<'_> {
    fn is_running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn client(&self) -> io::Result<Client> {
        let client = Client::connect(self.addr, "/")?;
        client.stream().set_write_timeout(Some(Duration::from_secs(2)))?;
        Ok(client)
    }

    fn pair(&self) -> io::Result<(Client, Client)> {
        let (mut opener, mut joiner) = (self.client()?, self.client()?);
        let key = &self.key;
        opener.send_text(&format!(r#"{{"type":"open","key":"{key}"}}"#))?;
        opener.sync();
        joiner.send_text(&format!(r#"{{"type":"join","key":"{key}"}}"#))?;
        match opener.receive() {
            Seen::Text(text) if text == r#"{"type":"join"}"# => Ok((opener, joiner)),
            seen => Err(io::Error::other(format!("{seen:?}"))),
        }
    }
}

/// A joiner that sends as fast as it can, to an opener that reads.
fn flood(attempt: &Attempt<'_>) -> io::Result<()> {
    let (mut opener, mut joiner) = attempt.pair()?;
    let chunk = frame(Opcode::Text, Piece::Last, br#"{"a":1}"#).repeat(500);
    let reader = SockRef::from(opener.stream()).try_clone()?;
    thread::scope(|scope| {
        scope.spawn(|| while attempt.is_running() && joiner.send_raw(&chunk).is_ok() {});
        while attempt.is_running() && opener.receive() != Seen::Lost {}
        // Unblocks the sender.
        let _ = reader.shutdown(std::net::Shutdown::Both);
        drop(opener);
    });
    Ok(())
}

/// A joiner that sends fast, to an opener that reads slowly.
fn read_slowly(attempt: &Attempt<'_>) -> io::Result<()> {
    let (opener, mut joiner) = attempt.pair()?;
    let message = frame(
        Opcode::Text,
        Piece::Last,
        format!(r#"{{"x":"{}"}}"#, "x".repeat(16_000)).as_bytes(),
    );
    let mut stream = opener.stream();
    let mut chunk = [0; 512];
    while attempt.is_running() {
        joiner.send_raw(&message)?;
        if stream.read(&mut chunk)? == 0 {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A half-open connection: an opener that answers no ping, until the server closes it.
fn stay_half_open(attempt: &Attempt<'_>) -> io::Result<()> {
    let mut client = attempt.client()?;
    client.send_text(&format!(r#"{{"type":"open","key":"{}"}}"#, attempt.key))?;
    let mut sink = [0; 64];
    let mut stream = client.stream();
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    while attempt.is_running() {
        match stream.read(&mut sink) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A handshake that is sent byte by byte and never completed.
fn slow_handshake(attempt: &Attempt<'_>) -> io::Result<()> {
    let mut stream = TcpStream::connect(attempt.addr)?;
    stream.write_all(b"GET / HTTP/1.1\r\nX: ")?;
    while attempt.is_running() && stream.write_all(b"y").is_ok() {
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// A part of a frame, then a TCP reset.
fn reset(attempt: &Attempt<'_>) -> io::Result<()> {
    let (mut opener, mut joiner) = attempt.pair()?;
    let whole = frame(Opcode::Text, Piece::Last, &[b' '; 3000]);
    for client in [&mut joiner, &mut opener] {
        client.send_raw(&whole[..2000])?;
        SockRef::from(client.stream()).set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}

/// A pair whose joiner sends byte by byte, as on a bad network. The message must arrive.
fn byte_by_byte(attempt: &Attempt<'_>) -> io::Result<()> {
    let (mut opener, mut joiner) = attempt.pair()?;
    let sent = format!(r#"{{"key":"{}"}}"#, attempt.key);
    for byte in frame(Opcode::Text, Piece::Last, sent.as_bytes()) {
        joiner.send_raw(&[byte])?;
        thread::sleep(Duration::from_millis(2));
    }
    let expected = Seen::Text(sent.replace('}', r#","index":0}"#));
    match opener.receive() {
        seen if seen == expected => Ok(()),
        seen => Err(io::Error::other(format!("{seen:?}"))),
    }
}

/// Random bytes, before and after a handshake.
fn garbage(attempt: &Attempt<'_>) -> io::Result<()> {
    let mut state = attempt
        .key
        .bytes()
        .fold(1_u64, |state, byte| state.wrapping_mul(31) + u64::from(byte))
        | 1;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(2000)
    .collect();
    TcpStream::connect(attempt.addr)?.write_all(&bytes)?;
    let mut client = attempt.client()?;
    client.send_raw(&bytes)?;
    let deadline = Instant::now() + Duration::from_secs(1);
    while attempt.is_running() && Instant::now() < deadline && client.receive() != Seen::Lost {}
    Ok(())
}

/// A complete session: connect, exchange, close.
fn churn(attempt: &Attempt<'_>) -> io::Result<()> {
    let (mut opener, mut joiner) = attempt.pair()?;
    joiner.send_text(r#"{"type":"offer"}"#)?;
    opener.receive();
    opener.send_text(r#"{"index":0,"type":"answer"}"#)?;
    joiner.receive();
    for mut client in [joiner, opener] {
        client.send_frame(Opcode::Close, Piece::Last, &1000_u16.to_be_bytes())?;
        client.receive();
    }
    Ok(())
}

/// Pause between two runs of a behavior.
const RETRY_DELAY: Duration = Duration::from_millis(10);
