//! The program itself, as whoever starts it has it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use sigver_transcripts::socket::Client;

pub(crate) const SIGVER: &str = env!("CARGO_BIN_EXE_sigver");

/// The program, running; killed if the test forgets it.
pub(crate) struct Program {
    pub(crate) child: Child,
    pub(crate) addr: SocketAddr,
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
            .strip_prefix("sigver listening on ")
            .expect("it says where it listens");
        let addr = addr.parse().expect("an address");
        Self { child, addr }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr, "/").expect("the server takes a connection")
    }

    /// Waits for a line of the log with this in it. The log up to there, which [`end`](Self::end) does not tell again.
    pub(crate) fn until_logged(&mut self, part: &str) -> String {
        let stderr = self.child.stderr.as_mut().expect("stderr is a pipe");
        let mut log = Vec::new();
        // Byte by byte: what comes behind the line is still to be read.
        while !(log.ends_with(b"\n") && String::from_utf8_lossy(&log).contains(part)) {
            let mut byte = [0];
            stderr
                .read_exact(&mut byte)
                .unwrap_or_else(|error| panic!("it never logged {part}: {error}"));
            log.extend(byte);
        }
        String::from_utf8(log).expect("the log is text")
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
        let mut log = String::new();
        self.child
            .stderr
            .take()
            .expect("stderr is a pipe")
            .read_to_string(&mut log)
            .expect("the log is text");
        (self.child.wait().expect("the program ends").code(), log)
    }
}

/// Sends a request and reads whatever comes back until the end.
pub(crate) fn request(addr: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("somebody listens");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    // A connection that is reset has no answer, which is one.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with these arguments, and nothing of what the environment may say.
pub(crate) fn sigver(arguments: &[&str]) -> Command {
    let mut command = Command::new(SIGVER);
    command.args(arguments).env_remove("PORT").env_remove("RUST_LOG");
    command
}
