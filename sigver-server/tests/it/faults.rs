//! Faults of the host: no descriptors or threads, a stopped process, a stalled stderr. Existing pairs are served, and each fault is logged
//! once.
#![cfg(target_os = "linux")]

use std::{
    io,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit},
};
use sigver_transcripts::{Seen, socket::Client};

use crate::support::{
    eventually,
    file::TempFile,
    get,
    program::{Program, sigver_server},
};

const LISTEN: &[&str] = &["--listen", "127.0.0.1:0"];

impl Program {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn pair(&self) -> io::Result<(Client, Client)> {
        let (mut opener, mut joiner) = (self.client(), self.client());
        opener.send_text(r#"{"type":"open","key":"k"}"#)?;
        opener.sync();
        joiner.send_text(r#"{"type":"join","key":"k"}"#)?;
        assert_eq!(opener.receive(), Seen::Text(r#"{"type":"join"}"#.into()));
        Ok((opener, joiner))
    }

    /// Returns the size of its address space in bytes.
    fn address_space(&self) -> io::Result<u64> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages = statm.split(' ').next().and_then(|pages| pages.parse::<u64>().ok());
        Ok(pages.unwrap_or(0) * rustix::param::page_size() as u64)
    }

    /// Returns the number of its open descriptors.
    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// Ends it after it has logged its recovery. `log` is the log so far. The fault must be logged once.
    fn end_after(mut self, fault: &str, log: String) {
        let log = log + &self.until_logged("accepting again") + &self.end(Signal::TERM).1;
        assert_eq!(log.matches(fault).count(), 1, "{log}");
        assert_eq!(log.matches("accepting again").count(), 1, "{log}");
    }

    fn limit(&self, resource: Resource, current: Option<u64>) {
        let maximum = getrlimit(resource).maximum;
        prlimit(Some(self.pid()), resource, Rlimit { current, maximum }).expect("permission to limit a child process");
    }
}

fn talk((opener, joiner): &mut (Client, Client)) -> io::Result<()> {
    joiner.send_text(r#"{"a":1}"#)?;
    assert_eq!(opener.receive(), Seen::Text(r#"{"a":1,"index":0}"#.into()));
    opener.send_text(r#"{"index":0}"#)?;
    assert_eq!(joiner.receive(), Seen::Text(r#"{"index":0}"#.into()));
    Ok(())
}

const NO_DESCRIPTORS: &str = "cannot accept connections: ";

#[test]
fn out_of_descriptors_pauses_accepting() -> io::Result<()> {
    let mut program = Program::start(&mut sigver_server(LISTEN));
    let mut pair = program.pair()?;
    program.limit(Resource::Nofile, Some(3));
    let waiting: Vec<_> = (0..5)
        .map(|_| TcpStream::connect(program.addr))
        .collect::<io::Result<_>>()?;
    let log = program.until_logged(NO_DESCRIPTORS);
    talk(&mut pair)?;
    program.limit(Resource::Nofile, Some(1000));
    drop(waiting);
    eventually("clients are accepted", || Client::connect(program.addr, "/").is_ok());
    talk(&mut pair)?;
    program.end_after(NO_DESCRIPTORS, log);
    Ok(())
}

#[test]
fn flapping_descriptors_log_few_lines() -> io::Result<()> {
    const ROUNDS: usize = 10;
    let mut program = Program::start(&mut sigver_server(LISTEN));
    let mut pair = program.pair()?;
    // One free descriptor, which the next client gets when the previous one disconnects.
    let used = program.descriptors();
    program.limit(Resource::Nofile, Some(used as u64 + 1));
    let mut waiting = Vec::new();
    for _ in 0..ROUNDS {
        let three: Vec<_> = (0..3)
            .map(|_| TcpStream::connect(program.addr))
            .collect::<io::Result<_>>()?;
        // The clients of the previous round disconnect only now, so one is always waiting.
        waiting = three;
        eventually("one is accepted", || program.descriptors() > used);
    }
    talk(&mut pair)?;
    program.limit(Resource::Nofile, Some(1000));
    drop(waiting);
    let log = program.until_logged(NO_DESCRIPTORS) + &program.until_logged("accepting again");
    let log = log + &program.end(Signal::TERM).1;
    // A busy machine may delay the server for a second, so more than one pause is possible.
    let pauses = log.matches(NO_DESCRIPTORS).count();
    assert_eq!(pauses, log.matches("accepting again").count(), "{log}");
    assert!(pauses <= ROUNDS / 2, "{log}");
    Ok(())
}

/// The metrics listener stays readable while no connection can be accepted from it.
#[test]
fn out_of_descriptors_delays_metrics() -> io::Result<()> {
    let mut program = Program::start(&mut sigver_server(&[LISTEN, &["--admin", "127.0.0.1:0"]].concat()));
    let admin = program.admin();
    let mut pair = program.pair()?;
    program.limit(Resource::Nofile, Some(3));
    let page = thread::spawn(move || get(admin, "/metrics"));
    let log = program.until_logged(NO_DESCRIPTORS);
    talk(&mut pair)?;
    assert!(!page.is_finished(), "no descriptor is left to accept with");
    program.limit(Resource::Nofile, Some(1000));
    let page = page.join().expect("the thread only sends a request")?;
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    program.end_after(NO_DESCRIPTORS, log);
    Ok(())
}

#[test]
fn out_of_threads_rejects_until_recovery() -> io::Result<()> {
    let mut program = Program::start(&mut sigver_server(LISTEN));
    let mut pair = program.pair()?;
    // Less space than the stack of another thread needs. An idle thread may still take a connection, and a thread that exits frees space.
    eventually("a client is rejected", || {
        let size = program.address_space().expect("it runs");
        program.limit(Resource::As, Some(size + 64 * 1024));
        let error = Client::connect(program.addr, "/").err().map(|error| error.to_string());
        error.is_some_and(|text| text.contains("503"))
    });
    talk(&mut pair)?;
    program.limit(Resource::As, None);
    eventually("clients are accepted", || Client::connect(program.addr, "/").is_ok());
    talk(&mut pair)?;
    program.until_logged("cannot start a thread");
    program.until_logged("accepting again");
    let (code, log) = program.end(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    Ok(())
}

/// The clock jumps on a suspended laptop, a restored snapshot or an overloaded host.
#[test]
fn clock_jump_closes_no_client() -> io::Result<()> {
    const KEEP_ALIVE: Duration = Duration::from_millis(300);
    let program = Program::start(&mut sigver_server(&["--listen", "127.0.0.1:0", "--keep-alive", "0.3"]));
    let mut pair = program.pair()?;
    let mut answered = Instant::now();
    for _ in 0..2 {
        kill_process(program.pid(), Signal::STOP)?;
        let before = answered.elapsed();
        // The length of the jump.
        thread::sleep(KEEP_ALIVE * 5);
        let resumed = Instant::now();
        kill_process(program.pid(), Signal::CONT)?;
        let is_alive = pair.0.leftover() == Seen::Nothing && pair.1.leftover() == Seen::Nothing;
        answered = Instant::now();
        // On a busy machine, the clients may be too slow to answer pings. The test is then inconclusive.
        if before > KEEP_ALIVE || answered - resumed > KEEP_ALIVE {
            return Ok(());
        }
        assert!(is_alive, "clients that answer pings are not closed");
    }
    Ok(())
}

#[test]
fn clock_jump_closes_no_client_that_asked_in_time() -> io::Result<()> {
    const DEADLINE: Duration = Duration::from_secs(2);
    let program = Program::start(&mut sigver_server(&[LISTEN, &["--role-deadline", "2"]].concat()));
    let connected = Instant::now();
    let mut clients: Vec<Client> = (0..20).map(|_| program.client()).collect();
    kill_process(program.pid(), Signal::STOP)?;
    for (number, client) in clients.iter_mut().enumerate() {
        client.send_text(&format!(r#"{{"type":"open","key":"{number}"}}"#))?;
    }
    // On a busy machine, the clients may be too late. The test is then inconclusive.
    let in_time = connected.elapsed() < DEADLINE;
    // The length of the jump.
    thread::sleep(DEADLINE * 2);
    kill_process(program.pid(), Signal::CONT)?;
    for client in &mut clients {
        let seen = client.leftover();
        assert!(!in_time || seen == Seen::Nothing, "{seen}");
    }
    Ok(())
}

/// Nothing reads the log, and its pipe is full.
#[test]
fn stalled_stderr_blocks_no_client() -> io::Result<()> {
    let program = Program::start(sigver_server(&[LISTEN, &["--log-format", "json"]].concat()).env("RUST_LOG", "debug"));
    let mut pair = program.pair()?;
    // At least two lines each; a pipe holds 64 KiB, the queue 4,096 lines.
    for _ in 0..4_000 {
        drop(TcpStream::connect(program.addr)?);
    }
    // It is accepted after all of these.
    drop(program.client());
    talk(&mut pair)?;
    let (code, log) = program.end(Signal::TERM);
    assert_eq!(code, Some(0));
    let loss = log.lines().find(|line| line.contains("log lines: stderr is too slow"));
    let loss: serde_json::Value = serde_json::from_str(loss.expect("the loss is logged")).expect("JSON");
    assert!(
        loss["time"].is_string() && loss["level"] == "warn" && loss["target"].is_string(),
        "{loss}"
    );
    Ok(())
}

/// Operators may write huge values for "never", beyond the range of the clock.
#[test]
fn huge_timeouts_close_no_client() -> io::Result<()> {
    let never = [
        "handshake-timeout",
        "role-deadline",
        "keep-alive",
        "close-timeout",
        "drain",
    ]
    .map(|flag| format!("--{flag}=1e19"));
    let never: Vec<_> = never.iter().map(String::as_str).collect();
    let program = Program::start(&mut sigver_server(&[LISTEN, &never].concat()));
    let mut pair = program.pair()?;
    talk(&mut pair)?;
    pair.1.send_text("{")?;
    assert!(matches!(pair.1.receive(), Seen::Close(Some(1007), _)));
    drop(pair);
    drop(program.client());
    let (code, log) = program.end(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    Ok(())
}

/// Reloading the tokens blocks on a FIFO, and other signals are still handled.
#[test]
fn blocking_token_file_delays_no_signal() -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("sigver-fifo-{}", std::process::id()));
    std::fs::write(&path, "first-SECRET-0123456789\n")?;
    let program = Program::start(sigver_server(LISTEN).env("SIGVER_TOKEN_FILE", &path));
    std::fs::remove_file(&path)?;
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR)?;
    kill_process(program.pid(), Signal::HUP)?;
    // Opening fails until the server reads. From then on, the server waits for this end to write.
    let mut writer = None;
    eventually("the tokens are read", || {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK;
        writer = rustix::fs::open(&path, flags, Mode::empty()).ok();
        writer.is_some()
    });
    let (code, log) = program.end(Signal::TERM);
    assert_eq!(code, Some(0), "{log}");
    std::fs::remove_file(&path)
}

#[test]
fn second_signal_skips_the_drain() -> io::Result<()> {
    let program = Program::start(&mut sigver_server(&["--listen", "127.0.0.1:0", "--drain", "3600"]));
    // They are closed 10 milliseconds apart.
    let mut clients: Vec<_> = (0..300).map(|_| program.client()).collect();
    kill_process(program.pid(), Signal::TERM)?;
    let closed = Seen::Close(Some(1001), "server shutting down".into());
    assert_eq!(clients[0].receive(), closed);
    let (code, log) = program.end(Signal::INT);
    assert!(clients.iter_mut().skip(1).all(|client| client.receive() == closed));
    assert_eq!(code, Some(0), "{log}");
    Ok(())
}

#[test]
fn sighup_reloads_tokens_and_keeps_them_on_error() -> io::Result<()> {
    let tokens = TempFile::with("sighup", "first-SECRET-0123456789\n");
    let mut program = Program::start(
        sigver_server(LISTEN)
            .env("SIGVER_TOKEN_FILE", tokens.path())
            .env("RUST_LOG", "trace"),
    );
    let addr = program.addr;
    let admits = |token: &str| Client::connect(addr, &format!("/?token={token}")).is_ok();
    assert!(admits("first-SECRET-0123456789"));
    assert!(!admits("second-SECRET-0123456789"));
    tokens.write("second-SECRET-0123456789\n");
    kill_process(program.pid(), Signal::HUP)?;
    eventually("the second token is accepted", || admits("second-SECRET-0123456789"));
    assert!(!admits("first-SECRET-0123456789"));
    tokens.write("short SECRET\n");
    kill_process(program.pid(), Signal::HUP)?;
    let before = program.until_logged("cannot reload tokens");
    assert!(admits("second-SECRET-0123456789"));
    let (code, after) = program.end(Signal::TERM);
    assert_eq!(code, Some(0));
    let log = before + &after;
    assert!(log.contains("reloaded 1 token") && log.contains("line 1"), "{log}");
    assert!(!log.contains("SECRET"), "{log}");
    Ok(())
}
