//! The examples as processes: found beside the tests, started, ended.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    error::Error,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use sigver_transcripts::kit::exchange;

/// The example's binary, which cargo has built beside this test.
pub(crate) fn example(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("a test knows where it is");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    Command::new(path.join("examples").join(name))
}

/// An example that serves until it is told to end.
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) addr: SocketAddr,
}

impl Serving {
    /// Starts it on a free port.
    pub(crate) fn start(name: &str, args: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut command = example(name);
        command.args(["--listen", "127.0.0.1:0"]).args(args);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut line)?;
        let addr = line.trim_end().rsplit(' ').next().unwrap_or_default().parse()?;
        Ok(Self { child, addr })
    }

    /// Asks it to end, as whoever runs it would.
    pub(crate) fn terminate(&self) -> Result<(), Box<dyn Error>> {
        let pid = Pid::from_raw(self.child.id().try_into()?).ok_or("no process")?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, Box<dyn Error>> {
        Ok(self.child.wait()?)
    }

    /// What it answers to bytes that are no handshake: the status line.
    pub(crate) fn status(&self, request: &str) -> Result<String, Box<dyn Error>> {
        let answer = exchange(self.addr, request.as_bytes())?;
        Ok(answer.lines().next().unwrap_or_default().to_owned())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Fails where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
