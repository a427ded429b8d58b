//! The stated bound on memory, against clients that do all they can to exceed it. The kernel's part is what it was told: `listen.rs` has a
//! test that it took it so.
#![cfg(target_os = "linux")]

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use sigver_server::{Config, Server};
use sigver_transcripts::socket::{Client, Opcode, Piece, frame};
use socket2::SockRef;

use crate::support::{
    eventually,
    program::{Program, sigver_server},
};

const CONNECTIONS: u32 = 60;
const MESSAGE: u32 = 65_536;
const BACKLOG: u32 = 1_048_576;

/// Connections that have a full backlog. The others do other things.
const FILLED: u32 = 40;

/// How often openers that do not read are flooded until they are closed, once the backlogs are full, and how many clients are one too many.
const FLOODS: u32 = 3;
const REFUSALS: u32 = 20;

/// How far the siege has come.
#[derive(Default)]
struct Siege {
    is_full: AtomicBool,
    floods: AtomicU32,
    refusals: AtomicU32,
    is_over: AtomicBool,
}

impl Siege {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn wait(&self) {
        eventually("the siege is over", || !self.goes_on());
    }
}

/// Ends the siege, also where the test fails: its threads are waited for.
struct OverOnDrop<'a>(&'a Siege);

impl Drop for OverOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// The highest resident memory of a process so far, in bytes.
fn peak(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    Ok(kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) * 1024)
}

fn client(addr: SocketAddr) -> io::Result<Client> {
    let client = Client::connect(addr, "/")?;
    // Its own share of what is measured stays small.
    SockRef::from(client.stream()).set_send_buffer_size(4096)?;
    SockRef::from(client.stream()).set_recv_buffer_size(4096)?;
    client.stream().set_write_timeout(Some(Duration::from_millis(300)))?;
    Ok(client)
}

/// Sends the same bytes for as long as the siege lasts, or until nobody takes them.
fn pour(client: &mut Client, bytes: &[u8], siege: &Siege) {
    while siege.goes_on() && client.send_raw(bytes).is_ok() {}
}

fn text(length: usize) -> Vec<u8> {
    frame(
        Opcode::Text,
        Piece::Last,
        format!(r#"{{"x":"{}"}}"#, "x".repeat(length - 8)).as_bytes(),
    )
}

/// Joiners that do not read, and an opener that sends to each as much as it may without being closed, and then stays.
fn fill_joiners(addr: SocketAddr, siege: &Siege) -> io::Result<()> {
    let mut opener = client(addr)?;
    opener.stream().set_write_timeout(None)?;
    opener.stream().set_read_timeout(Some(Duration::from_secs(60)))?;
    opener.send_text(r#"{"type":"open","key":"k"}"#)?;
    opener.sync();
    let mut joiners = Vec::new();
    for _ in 0..FILLED {
        let mut joiner = client(addr)?;
        joiner.send_text(r#"{"type":"join","key":"k"}"#)?;
        joiners.push(joiner);
    }
    opener.sync();
    for _ in 0..BACKLOG / MESSAGE {
        for index in 0..FILLED {
            let message = format!(r#"{{"index":{index},"x":"{}"}}"#, "x".repeat(MESSAGE as usize - 100));
            opener.send_text(&message)?;
        }
    }
    // The pong comes when all of it has been handed on.
    opener.sync();
    siege.is_full.store(true, Ordering::Relaxed);
    siege.wait();
    Ok(())
}

/// An opener that does not read and a joiner that sends all it can, until both are closed; again and again.
fn flood_an_opener(addr: SocketAddr, key: u32, siege: &Siege) -> io::Result<()> {
    let mut opener = client(addr)?;
    opener.send_text(&format!(r#"{{"type":"open","key":"{key}"}}"#))?;
    opener.sync();
    let mut joiner = client(addr)?;
    joiner.send_text(&format!(r#"{{"type":"join","key":"{key}"}}"#))?;
    pour(&mut joiner, &text(MESSAGE as usize), siege);
    drop(opener);
    Ok(())
}

/// A message that is all there but for its last byte, as its largest piece and many before it; then nothing.
fn almost_send(addr: SocketAddr, siege: &Siege) -> io::Result<()> {
    let mut client = client(addr)?;
    let half = vec![b' '; MESSAGE as usize / 2 - 1];
    client.send_frame(Opcode::Text, Piece::More, &half)?;
    let last = frame(Opcode::Continuation, Piece::Last, &half);
    client.send_raw(&last[..last.len() - 1])?;
    siege.wait();
    Ok(())
}

/// Pings whose pongs nobody reads.
fn ping(addr: SocketAddr, siege: &Siege) -> io::Result<()> {
    let mut client = client(addr)?;
    pour(
        &mut client,
        &frame(Opcode::Ping, Piece::Last, &[7; 125]).repeat(500),
        siege,
    );
    Ok(())
}

/// A request that is all there but for its end.
fn almost_ask(addr: SocketAddr, siege: &Siege) -> io::Result<()> {
    use io::Write;
    let mut stream = TcpStream::connect(addr)?;
    write!(stream, "GET /{} HTTP/1.1\r\nX: ", "x".repeat(8000))?;
    siege.wait();
    Ok(())
}

#[test]
fn memory_bound_holds_under_attack() -> io::Result<()> {
    let mut config = Config::default();
    config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
    config.endpoint.limits.connections = CONNECTIONS;
    config.endpoint.limits.message_bytes = MESSAGE;
    config.endpoint.backlog_bytes = BACKLOG;
    let bound = Server::bind(config).expect("a free port").memory_bound();
    let arguments = format!(
        "--listen 127.0.0.1:0 --connections {CONNECTIONS} --message-bytes {MESSAGE} --backlog-bytes {BACKLOG} \
         --messages-per-second 0 --bytes-per-second 0 --handshake-timeout 60"
    );
    let program = Program::start(&mut sigver_server(&arguments.split(' ').collect::<Vec<_>>()));
    let (addr, pid) = (program.addr, program.child.id());
    let siege = &Siege::default();
    thread::scope(|scope| {
        let _over = OverOnDrop(siege);
        // What they meet on their way is of no interest: being refused, closed, cut.
        let filled = scope.spawn(move || fill_joiners(addr, siege));
        eventually("the backlogs are full", || {
            siege.is_full.load(Ordering::Relaxed) || filled.is_finished()
        });
        for key in 0..3 {
            scope.spawn(move || {
                while siege.goes_on() {
                    if flood_an_opener(addr, key, siege).is_ok() {
                        siege.floods.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            scope.spawn(move || almost_send(addr, siege));
            scope.spawn(move || while siege.goes_on() && ping(addr, siege).is_err() {});
            scope.spawn(move || almost_ask(addr, siege));
        }
        // Those that are too many.
        scope.spawn(move || {
            let mut held = Vec::new();
            while siege.goes_on() {
                match Client::connect(addr, "/") {
                    Ok(client) => held.push(client),
                    Err(_) => {
                        siege.refusals.fetch_add(1, Ordering::Relaxed);
                        held.clear();
                    }
                }
            }
        });
        eventually("everybody does their worst", || {
            filled.is_finished()
                || (siege.floods.load(Ordering::Relaxed) >= FLOODS
                    && siege.refusals.load(Ordering::Relaxed) >= REFUSALS)
        });
        assert!(!filled.is_finished(), "none of the full was closed");
    });
    let (peak, process) = (peak(pid)?, bound.fixed + u64::from(CONNECTIONS) * bound.process);
    assert!(peak <= process, "{peak} bytes of {process}");
    // It was a siege, and the bound is not beyond all that can happen.
    let backlogs = u64::from(FILLED) * u64::from(BACKLOG) * 3 / 4;
    assert!(
        peak >= backlogs,
        "{peak} bytes, and the backlogs alone should have taken {backlogs}"
    );
    let (code, log) = program.end(Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(log.contains(&format!("{bound}")), "{bound} is said in {log}");
    Ok(())
}
