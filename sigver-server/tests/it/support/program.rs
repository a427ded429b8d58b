//! The program itself, as whoever starts it has it.

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

/// The program, running; killed if the test forgets it.
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
            .expect("it says where it listens");
        let addr = addr.parse().expect("an address");
        Self {
            child,
            addr,
            lines: None,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr, "/").expect("the server takes a connection")
    }

    /// Waits for a line of the log with this in it. The log up to there, which [`end`](Self::end) does not tell again.
    pub(crate) fn until_logged(&mut self, part: &str) -> String {
        let lines = self.lines();
        let mut log = String::new();
        while !log.lines().last().is_some_and(|line| line.contains(part)) {
            let line = lines.recv_timeout(DEADLINE);
            log += &line.unwrap_or_else(|error| panic!("it never logged {part}, {error}: {log}"));
        }
        log
    }

    /// The lines of the log. A thread reads them from the first call on, and nobody before.
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

    /// Where the metrics page is, as the log says.
    pub(crate) fn admin(&mut self) -> SocketAddr {
        let log = self.until_logged("metrics at http://");
        let addr = log.split("metrics at http://").nth(1);
        let addr = addr.and_then(|addr| addr.split('/').next());
        addr.and_then(|addr| addr.parse().ok()).expect("an address")
    }

    /// Ends the program; its exit code and what it logged.
    pub(crate) fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).expect("the program runs");
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

/// The program with these arguments, and nothing of what the environment may say.
pub(crate) fn sigver_server(arguments: &[&str]) -> Command {
    let mut command = Command::new(SIGVER_SERVER);
    command.args(arguments).env_remove("PORT").env_remove("RUST_LOG");
    command
}
