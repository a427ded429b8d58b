//! Runs the examples as processes.

use std::{
    error::Error,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use sigver_transcripts::kit::exchange;

/// Returns a command for the example's binary, which cargo builds next to this test.
pub(crate) fn example(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("the path of the test");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    Command::new(path.join("examples").join(name))
}

/// A running server of an example.
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

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) -> Result<(), Box<dyn Error>> {
        let pid = Pid::from_raw(self.child.id().try_into()?).ok_or("no process")?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Waits for the process to exit.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus, Box<dyn Error>> {
        Ok(self.child.wait()?)
    }

    /// Sends a request and returns the status line of the response.
    pub(crate) fn status(&self, request: &str) -> Result<String, Box<dyn Error>> {
        let answer = exchange(self.addr, request.as_bytes())?;
        Ok(answer.lines().next().unwrap_or_default().to_owned())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Fails if the process has exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
