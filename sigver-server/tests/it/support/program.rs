//! The `sigver-server` binary as a child process.

use std::{
    io::{BufRead, BufReader},
    mem,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use sigver_transcripts::{kit::DEADLINE, socket::Client};

pub(crate) const SIGVER_SERVER: &str = env!("CARGO_BIN_EXE_sigver-server");

/// A running binary, killed on drop.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) addr: SocketAddr,
    lines: Option<Receiver<String>>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("stdout is text");
        let addr = line
            .trim()
            .strip_prefix("sigver-server listening on ")
            .expect("stdout names the address");
        let addr = addr.parse().expect("an address");
        Self {
            child,
            addr,
            lines: None,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr, "/").expect("the server accepts a connection")
    }

    /// Waits for a log line that contains `part`. Returns the log up to that line, which [`end`](Self::end) does not repeat.
    pub(crate) fn until_logged(&mut self, part: &str) -> String {
        let lines = self.lines();
        let mut log = String::new();
        while !log.lines().last().is_some_and(|line| line.contains(part)) {
            let line = lines.recv_timeout(DEADLINE);
            log += &line.unwrap_or_else(|error| panic!("{part:?} is not logged, {error}: {log}"));
        }
        log
    }

    /// Returns the lines of the log. The first call starts the thread that reads them.
    fn lines(&mut self) -> &Receiver<String> {
        let stderr = self.child.stderr.take();
        self.lines.get_or_insert_with(|| {
            let (sender, lines) = channel();
            let mut stderr = BufReader::new(stderr.expect("stderr is a pipe"));
            thread::spawn(move || {
                let mut line = String::new();
                while stderr.read_line(&mut line).expect("the log is text") > 0
                    && sender.send(mem::take(&mut line)).is_ok()
                {}
            });
            lines
        })
    }

    /// Returns the address of the metrics page from the log.
    pub(crate) fn admin(&mut self) -> SocketAddr {
        let log = self.until_logged("metrics at http://");
        let addr = log.split("metrics at http://").nth(1);
        let addr = addr.and_then(|addr| addr.split('/').next());
        addr.and_then(|addr| addr.parse().ok()).expect("an address")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the program runs");
    }

    /// Sends `signal` and waits for the exit. Returns the exit code and the rest of the log.
    pub(crate) fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        self.signal(signal);
        let log = self.lines().iter().collect();
        (self.child.wait().expect("the program ends").code(), log)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a command that runs the binary with these arguments, without variables that change its behavior.
pub(crate) fn sigver_server(arguments: &[&str]) -> Command {
    let mut command = Command::new(SIGVER_SERVER);
    command.args(arguments).env_remove("PORT").env_remove("RUST_LOG");
    command
}
