//! The besiegers of `soak`: a thread or more for each way of doing wrong, with blocking sockets. Each does it until the parent has enough,
//! and comes back when it was thrown out. One of them does no wrong, but sends byte by byte, and must be served.

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
    agent::{findings::Findings, parent::Parent},
    run::admission,
};

/// What one thread does again and again: a name, how many do it, and one turn of it.
type Way = (&'static str, usize, fn(&Turn<'_>) -> io::Result<()>);

const WAYS: &[Way] = &[
    ("floods", 2, flood),
    ("slow readers", 2, read_slowly),
    ("half-open connections", 20, say_nothing),
    ("slow handshakes", 10, shake_hands_slowly),
    ("resets in mid-frame", 1, reset),
    ("messages byte by byte, served", 2, byte_by_byte),
    ("garbage", 1, garbage),
    ("sessions of churn", 2, churn),
];

/// What a turn needs.
struct Turn<'a> {
    addr: SocketAddr,
    stop: &'a AtomicBool,
    key: String,
}

pub(super) fn run(endpoint: &Endpoint, parent: &Parent) -> Result<Findings, Error> {
    let stop = AtomicBool::new(false);
    let counts: Vec<AtomicU64> = WAYS.iter().map(|_| AtomicU64::new(0)).collect();
    let unserved = AtomicU64::new(0);
    let addr = endpoint.addr;
    thread::scope(|scope| {
        for ((name, threads, turn), count) in WAYS.iter().zip(&counts) {
            for _ in 0..*threads {
                let (stop, unserved) = (&stop, &unserved);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let key = admission::unique();
                        match turn(&Turn { addr, stop, key }) {
                            Ok(()) => drop(count.fetch_add(1, Ordering::Relaxed)),
                            // What the others meet is what they are there for.
                            Err(_) if name.ends_with("served") && !stop.load(Ordering::Relaxed) => {
                                unserved.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(_) => {}
                        }
                        thread::sleep(BREATH);
                    }
                });
            }
        }
        while !parent.says_end() {
            thread::sleep(BREATH);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let mut findings = Findings::default();
    for ((name, ..), count) in WAYS.iter().zip(&counts) {
        findings.add(name, count.load(Ordering::Relaxed) as f64);
    }
    findings.add("byte by byte, not served", unserved.load(Ordering::Relaxed) as f64);
    Ok(findings)
}

impl Turn<'_> {
    fn goes_on(&self) -> bool {
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

/// All that one joiner can send, to an opener that reads it.
fn flood(turn: &Turn<'_>) -> io::Result<()> {
    let (mut opener, mut joiner) = turn.pair()?;
    let chunk = frame(Opcode::Text, Piece::Last, br#"{"a":1}"#).repeat(500);
    let reader = SockRef::from(opener.stream()).try_clone()?;
    thread::scope(|scope| {
        scope.spawn(|| while turn.goes_on() && joiner.send_raw(&chunk).is_ok() {});
        while turn.goes_on() && opener.receive() != Seen::Lost {}
        // Wakes the sender.
        let _ = reader.shutdown(std::net::Shutdown::Both);
        drop(opener);
    });
    Ok(())
}

/// An opener that reads a little now and then, of a joiner that sends much.
fn read_slowly(turn: &Turn<'_>) -> io::Result<()> {
    let (opener, mut joiner) = turn.pair()?;
    let message = frame(
        Opcode::Text,
        Piece::Last,
        format!(r#"{{"x":"{}"}}"#, "x".repeat(16_000)).as_bytes(),
    );
    let mut stream = opener.stream();
    let mut sip = [0; 512];
    while turn.goes_on() {
        joiner.send_raw(&message)?;
        if stream.read(&mut sip)? == 0 {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// An opener whose network is gone: it answers no ping, until the server has had enough.
fn say_nothing(turn: &Turn<'_>) -> io::Result<()> {
    let mut client = turn.client()?;
    client.send_text(&format!(r#"{{"type":"open","key":"{}"}}"#, turn.key))?;
    let mut sink = [0; 64];
    let mut stream = client.stream();
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    while turn.goes_on() {
        match stream.read(&mut sink) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A request that comes a byte at a time and never ends.
fn shake_hands_slowly(turn: &Turn<'_>) -> io::Result<()> {
    let mut stream = TcpStream::connect(turn.addr)?;
    stream.write_all(b"GET / HTTP/1.1\r\nX: ")?;
    while turn.goes_on() && stream.write_all(b"y").is_ok() {
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Half a frame, and then a reset.
fn reset(turn: &Turn<'_>) -> io::Result<()> {
    let (mut opener, mut joiner) = turn.pair()?;
    let whole = frame(Opcode::Text, Piece::Last, &[b' '; 3000]);
    for client in [&mut joiner, &mut opener] {
        client.send_raw(&whole[..2000])?;
        SockRef::from(client.stream()).set_linger(Some(Duration::ZERO))?;
    }
    Ok(())
}

/// A pair whose joiner sends byte by byte, as a bad network does; what it says has to arrive.
fn byte_by_byte(turn: &Turn<'_>) -> io::Result<()> {
    let (mut opener, mut joiner) = turn.pair()?;
    let sent = format!(r#"{{"key":"{}"}}"#, turn.key);
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

/// Bytes of no meaning, before a handshake and behind one.
fn garbage(turn: &Turn<'_>) -> io::Result<()> {
    let mut state = turn
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
    TcpStream::connect(turn.addr)?.write_all(&bytes)?;
    let mut client = turn.client()?;
    client.send_raw(&bytes)?;
    let deadline = Instant::now() + Duration::from_secs(1);
    while turn.goes_on() && Instant::now() < deadline && client.receive() != Seen::Lost {}
    Ok(())
}

/// Come, talk, go: in order.
fn churn(turn: &Turn<'_>) -> io::Result<()> {
    let (mut opener, mut joiner) = turn.pair()?;
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

/// From one turn to the next.
const BREATH: Duration = Duration::from_millis(10);
