//! The memory bound against hostile clients. It covers the process; a unit test of `sys/listener.rs` covers the socket buffers.
#![cfg(target_os = "linux")]

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    num::{NonZeroU32, NonZeroU64},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use sigver_server::Server;
use sigver_transcripts::socket::{Client, Opcode, Piece, frame};
use socket2::SockRef;

use crate::support::{
    eventually,
    program::{Program, sigver_server},
    test_config,
};

const CONNECTIONS: u32 = 60;
const MESSAGE: u32 = 65_536;
const BACKLOG: u32 = 1_048_576;

/// Connections with a full backlog.
const FILLED: u32 = 40;

/// All backlogs together: those that are filled, and those of the openers that are flooded.
const BACKLOGS: u64 = (FILLED as u64 + 4) * BACKLOG as u64;

/// The stack of a connection's thread.
const STACK: u64 = 256 * 1024;

/// The most that a thread touches of its stack. `memory.rs` in `src` counts as much.
const TOUCHED_STACK: u64 = 48 * 1024;

/// Openers to flood until they are closed as slow consumers, after the backlogs are full.
const FLOODS: u32 = 3;

/// Connections to be rejected because of the connection limit.
const REJECTIONS: u32 = 20;

/// Progress of the attack.
#[derive(Default)]
struct Attack {
    is_full: AtomicBool,
    floods: AtomicU32,
    rejections: AtomicU32,
    is_over: AtomicBool,
}

impl Attack {
    fn is_running(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn wait(&self) {
        eventually("the attack is over", || !self.is_running());
    }
}

/// Ends the attack on drop, so that its threads exit even if the test fails.
struct EndOnDrop<'a>(&'a Attack);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// Returns the resident memory of a process in bytes.
fn resident(pid: u32) -> io::Result<u64> {
    status(pid, "VmRSS:")
}

/// Returns the peak of its resident memory in bytes.
fn peak(pid: u32) -> io::Result<u64> {
    status(pid, "VmHWM:")
}

fn status(pid: u32, name: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    Ok(kib.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) * 1024)
}

/// Returns how much of the stack of each connection's thread is resident, in bytes.
fn touched_stacks(pid: u32) -> io::Result<Vec<u64>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let kib = |line: &str| line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    let (mut stacks, mut before, mut map) = (Vec::new(), Map::default(), Map::default());
    for line in maps.lines() {
        if let Some(next) = Map::parse(line) {
            (before, map) = (map, next);
        } else if line.starts_with("Rss:") && map.is_stack_above(&before) {
            stacks.extend(kib(line).map(|kib| kib * 1024));
        }
    }
    Ok(stacks)
}

/// A memory map.
#[derive(Default)]
struct Map {
    start: u64,
    end: u64,
    is_accessible: bool,
}

impl Map {
    /// Parses the first line of a map.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        Some(Self {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            is_accessible: !words.next()?.starts_with("---"),
        })
    }

    /// Returns whether this is a stack: the heap may have a map of the same size, but none with a guard page below it.
    fn is_stack_above(&self, below: &Self) -> bool {
        let guard = below.end - below.start;
        let is_guarded = !below.is_accessible && below.end == self.start && guard < STACK;
        is_guarded && self.is_accessible && self.end - self.start == STACK
    }
}

fn client(addr: SocketAddr) -> io::Result<Client> {
    let client = Client::connect(addr, "/")?;
    // Small buffers, to put the load on the server.
    SockRef::from(client.stream()).set_send_buffer_size(4096)?;
    SockRef::from(client.stream()).set_recv_buffer_size(4096)?;
    client.stream().set_write_timeout(Some(Duration::from_millis(300)))?;
    Ok(client)
}

/// Sends the same bytes until the attack ends or sending fails.
fn flood(client: &mut Client, bytes: &[u8], attack: &Attack) {
    while attack.is_running() && client.send_raw(bytes).is_ok() {}
}

fn text(length: usize) -> Vec<u8> {
    frame(
        Opcode::Text,
        Piece::Last,
        format!(r#"{{"x":"{}"}}"#, "x".repeat(length - 8)).as_bytes(),
    )
}

/// Joiners that do not read, and an opener that fills the backlog of each without closing it.
fn fill_joiners(addr: SocketAddr, attack: &Attack) -> io::Result<()> {
    let _clients = filled_joiners(addr)?;
    attack.is_full.store(true, Ordering::Relaxed);
    attack.wait();
    Ok(())
}

/// Returns an opener, and joiners whose backlogs it has filled.
fn filled_joiners(addr: SocketAddr) -> io::Result<(Client, Vec<Client>)> {
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
    // The pong follows when all messages are relayed.
    opener.sync();
    Ok((opener, joiners))
}

/// An opener that does not read, and a joiner that floods it until both are closed.
fn flood_an_opener(addr: SocketAddr, key: u32, attack: &Attack) -> io::Result<()> {
    let mut opener = client(addr)?;
    opener.send_text(&format!(r#"{{"type":"open","key":"{key}"}}"#))?;
    opener.sync();
    let mut joiner = client(addr)?;
    joiner.send_text(&format!(r#"{{"type":"join","key":"{key}"}}"#))?;
    flood(&mut joiner, &text(MESSAGE as usize), attack);
    drop(opener);
    Ok(())
}

/// A fragmented message without its last byte.
fn send_incomplete_message(addr: SocketAddr, attack: &Attack) -> io::Result<()> {
    let mut client = client(addr)?;
    let half = vec![b' '; MESSAGE as usize / 2 - 1];
    client.send_frame(Opcode::Text, Piece::More, &half)?;
    let last = frame(Opcode::Continuation, Piece::Last, &half);
    client.send_raw(&last[..last.len() - 1])?;
    attack.wait();
    Ok(())
}

/// Pings whose pongs are not read.
fn flood_pings(addr: SocketAddr, attack: &Attack) -> io::Result<()> {
    let mut client = client(addr)?;
    flood(
        &mut client,
        &frame(Opcode::Ping, Piece::Last, &[7; 125]).repeat(500),
        attack,
    );
    Ok(())
}

/// A request head without its end.
fn send_incomplete_head(addr: SocketAddr, attack: &Attack) -> io::Result<()> {
    use io::Write;
    let mut stream = TcpStream::connect(addr)?;
    write!(stream, "GET /{} HTTP/1.1\r\nX: ", "x".repeat(8000))?;
    attack.wait();
    Ok(())
}

#[test]
fn memory_bound_holds_under_attack() -> io::Result<()> {
    let mut config = test_config();
    config.listen = vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()];
    config.endpoint.limits.connections = NonZeroU32::new(CONNECTIONS);
    config.endpoint.limits.message_bytes = MESSAGE;
    config.endpoint.backlog_bytes = BACKLOG;
    config.endpoint.backlog_total_bytes = NonZeroU64::new(BACKLOGS);
    let bound = Server::bind(config).expect("a free port").memory_bound();
    let arguments = format!(
        "--listen 127.0.0.1:0 --connections {CONNECTIONS} --message-bytes {MESSAGE} --backlog-bytes {BACKLOG} \
         --backlog-total {BACKLOGS} --messages-per-second 0 --bytes-per-second 0 --handshake-timeout 60"
    );
    let program = Program::start(&mut sigver_server(&arguments.split(' ').collect::<Vec<_>>()));
    let (addr, pid) = (program.addr, program.child.id());
    let attack = &Attack::default();
    thread::scope(|scope| {
        let _end = EndOnDrop(attack);
        // The attackers ignore errors: they may be rejected, closed or aborted.
        let filled = scope.spawn(move || fill_joiners(addr, attack));
        eventually("the backlogs are full", || {
            attack.is_full.load(Ordering::Relaxed) || filled.is_finished()
        });
        for key in 0..3 {
            scope.spawn(move || {
                while attack.is_running() {
                    if flood_an_opener(addr, key, attack).is_ok() {
                        attack.floods.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
            scope.spawn(move || send_incomplete_message(addr, attack));
            scope.spawn(move || while attack.is_running() && flood_pings(addr, attack).is_err() {});
            scope.spawn(move || send_incomplete_head(addr, attack));
        }
        // Clients beyond the connection limit.
        scope.spawn(move || {
            let mut held = Vec::new();
            while attack.is_running() {
                match Client::connect(addr, "/") {
                    Ok(client) => held.push(client),
                    Err(_) => {
                        attack.rejections.fetch_add(1, Ordering::Relaxed);
                        held.clear();
                    }
                }
            }
        });
        eventually("the attack is complete", || {
            filled.is_finished()
                || (attack.floods.load(Ordering::Relaxed) >= FLOODS
                    && attack.rejections.load(Ordering::Relaxed) >= REJECTIONS)
        });
        assert!(!filled.is_finished(), "no joiner with a full backlog is closed");
        // musl maps a stack together with other memory of its thread.
        if cfg!(target_env = "gnu") {
            let stacks = touched_stacks(pid)?;
            assert!(stacks.len() >= FILLED as usize, "{stacks:?}");
            assert!(stacks.iter().all(|stack| *stack <= TOUCHED_STACK), "{stacks:?}");
        }
        io::Result::Ok(())
    })?;
    let process = bound.fixed + bound.backlogs + u64::from(CONNECTIONS) * bound.process;
    let peak = peak(pid)?;
    assert!(peak <= process, "{peak} bytes of {process}");
    // The attack is effective: the peak is not far below the bound.
    let backlogs = u64::from(FILLED) * u64::from(BACKLOG) * 3 / 4;
    assert!(
        peak >= backlogs,
        "{peak} bytes, less than the {backlogs} of the backlogs"
    );
    let (code, log) = program.end(Signal::TERM);
    assert_eq!(code, Some(0));
    assert!(log.contains(&format!("{bound}")), "{bound} is logged: {log}");
    Ok(())
}

/// Some of the clients stay, and what they use lies between what the others have freed.
#[cfg(target_env = "gnu")]
#[test]
fn memory_is_returned_after_a_peak() -> io::Result<()> {
    let arguments = format!(
        "--listen 127.0.0.1:0 --message-bytes {MESSAGE} --backlog-bytes {BACKLOG} --messages-per-second 0 --bytes-per-second 0"
    );
    let program = Program::start(&mut sigver_server(&arguments.split(' ').collect::<Vec<_>>()));
    let pid = program.child.id();
    let (_opener, mut joiners) = filled_joiners(program.addr)?;
    let backlogs = u64::from(FILLED) * u64::from(BACKLOG) * 3 / 4;
    let full = resident(pid)?;
    assert!(full > backlogs, "{full} bytes");
    let mut number = 0;
    joiners.retain(|_| {
        number += 1;
        number % 8 == 0
    });
    eventually("memory is returned", || {
        resident(pid).is_ok_and(|now| now < full - backlogs * 2 / 3)
    });
    Ok(())
}
