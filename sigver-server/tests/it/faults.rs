//! What goes wrong on our side: the system refuses descriptors or threads, the process is stopped and goes on, stderr stalls. Each time the
//! pairs that are there go on, and the log says it once.
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
    eventually, get,
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

    /// How many bytes of addresses it uses.
    fn address_space(&self) -> io::Result<u64> {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        let pages = statm.split(' ').next().and_then(|pages| pages.parse::<u64>().ok());
        Ok(pages.unwrap_or(0) * rustix::param::page_size() as u64)
    }

    /// How many descriptors it has open.
    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// Ends it when it has said that the trouble is over. `log` is what it logged before. It has told of the trouble once.
    fn end_after(mut self, trouble: &str, log: String) {
        let log = log + &self.until_logged("accepting again") + &self.end(Signal::TERM).1;
        assert_eq!(log.matches(trouble).count(), 1, "{log}");
        assert_eq!(log.matches("accepting again").count(), 1, "{log}");
    }

    fn limit(&self, resource: Resource, current: Option<u64>) {
        let maximum = getrlimit(resource).maximum;
        prlimit(Some(self.pid()), resource, Rlimit { current, maximum }).expect("a child of our own");
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
    // Room for one, which the next takes when it goes.
    let used = program.descriptors();
    program.limit(Resource::Nofile, Some(used as u64 + 1));
    let mut waiting = Vec::new();
    for _ in 0..ROUNDS {
        let three: Vec<_> = (0..3)
            .map(|_| TcpStream::connect(program.addr))
            .collect::<io::Result<_>>()?;
        // Those of the round before go when these have come: somebody always waits.
        waiting = three;
        eventually("one is accepted", || program.descriptors() > used);
    }
    talk(&mut pair)?;
    program.limit(Resource::Nofile, Some(1000));
    drop(waiting);
    let log = program.until_logged(NO_DESCRIPTORS) + &program.until_logged("accepting again");
    let log = log + &program.end(Signal::TERM).1;
    // More than one where a busy machine has kept the server waiting for a second.
    let told = log.matches(NO_DESCRIPTORS).count();
    assert_eq!(told, log.matches("accepting again").count(), "{log}");
    assert!(told <= ROUNDS / 2, "{log}");
    Ok(())
}

/// The metrics page's listener stays readable as well, while nobody can be accepted from it.
#[test]
fn out_of_descriptors_delays_metrics() -> io::Result<()> {
    let mut program = Program::start(&mut sigver_server(&[LISTEN, &["--admin", "127.0.0.1:0"]].concat()));
    let admin = program.admin();
    let mut pair = program.pair()?;
    program.limit(Resource::Nofile, Some(3));
    let page = thread::spawn(move || get(admin, "/metrics"));
    let log = program.until_logged(NO_DESCRIPTORS);
    talk(&mut pair)?;
    assert!(!page.is_finished(), "nothing is left to answer with");
    program.limit(Resource::Nofile, Some(1000));
    let page = page.join().expect("it only asks")?;
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    program.end_after(NO_DESCRIPTORS, log);
    Ok(())
}

#[test]
fn out_of_threads_rejects_until_recovery() -> io::Result<()> {
    let mut program = Program::start(&mut sigver_server(LISTEN));
    let mut pair = program.pair()?;
    // Less room than the stack of another thread takes. A thread that waits for a connection may still take one, and one that ends
    // makes room.
    eventually("a client is refused", || {
        let size = program.address_space().expect("it runs");
        program.limit(Resource::As, Some(size + 64 * 1024));
        let refused = Client::connect(program.addr, "/").err().map(|error| error.to_string());
        refused.is_some_and(|text| text.contains("503"))
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

/// What a suspended laptop, a snapshot of a machine or a starved host is to the server: its clock has jumped.
#[test]
fn clock_jump_closes_no_client() -> io::Result<()> {
    const KEEP_ALIVE: Duration = Duration::from_millis(300);
    let program = Program::start(&mut sigver_server(&["--listen", "127.0.0.1:0", "--keep-alive", "0.3"]));
    let mut pair = program.pair()?;
    let mut answered = Instant::now();
    for _ in 0..2 {
        kill_process(program.pid(), Signal::STOP)?;
        let before = answered.elapsed();
        // The jump itself: how long the process is stopped.
        thread::sleep(KEEP_ALIVE * 5);
        let resumed = Instant::now();
        kill_process(program.pid(), Signal::CONT)?;
        let is_alive = pair.0.leftover() == Seen::Nothing && pair.1.leftover() == Seen::Nothing;
        answered = Instant::now();
        // Clients on a busy machine may be silent for so long that they are closed for it.
        if before > KEEP_ALIVE || answered - resumed > KEEP_ALIVE {
            return Ok(());
        }
        assert!(is_alive, "both clients answer pings and are closed");
    }
    Ok(())
}

/// Nobody reads the log, and its pipe is full.
#[test]
fn stalled_stderr_blocks_no_client() -> io::Result<()> {
    let program = Program::start(sigver_server(&[LISTEN, &["--log-format", "json"]].concat()).env("RUST_LOG", "debug"));
    let mut pair = program.pair()?;
    // Two lines and more for each; a pipe holds 64 KiB, the queue 4,096 lines.
    for _ in 0..4_000 {
        drop(TcpStream::connect(program.addr)?);
    }
    // It is accepted behind all of these.
    drop(program.client());
    talk(&mut pair)?;
    let (code, log) = program.end(Signal::TERM);
    assert_eq!(code, Some(0));
    let loss = log.lines().find(|line| line.contains("log lines: stderr is too slow"));
    let loss: serde_json::Value = serde_json::from_str(loss.expect("the loss is owned up to")).expect("JSON");
    assert!(
        loss["time"].is_string() && loss["level"] == "warn" && loss["target"].is_string(),
        "{loss}"
    );
    Ok(())
}

/// What an operator writes to say never: further away than the clock can say.
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

/// Reading the tokens again waits for somebody to write them, and nothing else does.
#[test]
fn blocking_token_file_delays_no_signal() -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("sigver-fifo-{}", std::process::id()));
    std::fs::write(&path, "first-SECRET-0123456789\n")?;
    let program = Program::start(sigver_server(LISTEN).env("SIGVER_TOKEN_FILE", &path));
    std::fs::remove_file(&path)?;
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR)?;
    kill_process(program.pid(), Signal::HUP)?;
    // Fails until somebody reads. From then on that one waits for this end to write.
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
    // The time of each comes 10 milliseconds after that of the one before.
    let mut clients: Vec<_> = (0..300).map(|_| program.client()).collect();
    kill_process(program.pid(), Signal::TERM)?;
    let bye = Seen::Close(Some(1001), "server shutting down".into());
    assert_eq!(clients[0].receive(), bye);
    let (code, log) = program.end(Signal::INT);
    assert!(clients.iter_mut().skip(1).all(|client| client.receive() == bye));
    assert_eq!(code, Some(0), "{log}");
    Ok(())
}

#[test]
fn sighup_reloads_tokens_and_keeps_them_on_error() -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("sigver-sighup-{}", std::process::id()));
    std::fs::write(&path, "first-SECRET-0123456789\n")?;
    let mut program = Program::start(
        sigver_server(LISTEN)
            .env("SIGVER_TOKEN_FILE", &path)
            .env("RUST_LOG", "trace"),
    );
    let addr = program.addr;
    let admits = |token: &str| Client::connect(addr, &format!("/?token={token}")).is_ok();
    assert!(admits("first-SECRET-0123456789"));
    assert!(!admits("second-SECRET-0123456789"));
    std::fs::write(&path, "second-SECRET-0123456789\n")?;
    kill_process(program.pid(), Signal::HUP)?;
    eventually("the second token is known", || admits("second-SECRET-0123456789"));
    assert!(!admits("first-SECRET-0123456789"));
    std::fs::write(&path, "short SECRET\n")?;
    kill_process(program.pid(), Signal::HUP)?;
    let before = program.until_logged("cannot reload tokens");
    assert!(admits("second-SECRET-0123456789"));
    let (code, after) = program.end(Signal::TERM);
    assert_eq!(code, Some(0));
    let log = before + &after;
    assert!(log.contains("reloaded 1 token") && log.contains("line 1"), "{log}");
    assert!(!log.contains("SECRET"), "{log}");
    std::fs::remove_file(&path)
}
