//! Starts and controls an agent from its parent process.
//!
//! The agent prints `ready` lines and finally `result [..]`. The parent writes `go`, and stops the agent by closing its
//! input, so that an agent also stops if its parent is killed.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use sigver_benches::{
    engine::Endpoint,
    error::{Context, Error},
};

use crate::{
    agent::{
        protocol::{GO, READY, unexpected},
        result::{AgentResult, parse_result},
    },
    run::bench::Bench,
};

/// A running agent. It is killed on drop.
#[derive(Debug)]
pub(crate) struct AgentProcess {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// Scheduling priority of an agent, relative to the measuring process on the same core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    Low,
    Normal,
}

impl AgentProcess {
    /// Starts this program as an agent. `task` is the rest of its command line.
    pub(crate) fn start(endpoint: &Endpoint, priority: Priority, task: &[String]) -> Result<Self, Error> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("agent")
            .arg(format!("--url=ws://{}{}", endpoint.addr, endpoint.path));
        if priority == Priority::Low {
            command.arg("--nice");
        }
        let mut child = command
            .args(task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start agent")?;
        let input = child.stdin.take();
        let output = child.stdout.take();
        let (sender, lines) = mpsc::channel();
        if let Some(output) = output {
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    // Ignored: the receiver is dropped together with the agent.
                    let _ = sender.send(line);
                }
            });
        }
        Ok(Self { child, input, lines })
    }

    /// Returns whether the agent has reported that it is ready. Does not block.
    pub(crate) fn poll_ready(&self) -> Result<bool, Error> {
        match self.lines.try_recv() {
            Ok(line) if line == READY => Ok(true),
            Ok(line) => Err(unexpected(&line)),
            Err(mpsc::TryRecvError::Empty) => Ok(false),
            Err(mpsc::TryRecvError::Disconnected) => Err(Error::new("agent failed")),
        }
    }

    /// Waits until the agent reports that it is ready.
    pub(crate) fn wait_ready(&self, bench: &Bench, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        while !self.poll_ready()? {
            bench.check_interrupted()?;
            if Instant::now() > deadline {
                return Err(Error::new("agent not ready in time"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Starts the work that the agent is ready for.
    pub(crate) fn start_work(&mut self) -> Result<(), Error> {
        let input = self.input.as_mut();
        let input = input.ok_or_else(|| Error::new("agent has no input"))?;
        writeln!(input, "{GO}").context("agent exited")
    }

    /// Requests a stop. Does not wait for the result.
    pub(crate) fn request_stop(&mut self) {
        self.input = None;
    }

    /// Stops the agent and returns its result.
    pub(crate) fn stop(mut self, timeout: Duration) -> Result<AgentResult, Error> {
        self.request_stop();
        let line = self.lines.recv_timeout(timeout);
        parse_result(&line.map_err(|_| Error::new("no result from agent in time"))?)
    }

    /// Returns the result of an agent that has stopped, or `None` if it is still running. Does not block.
    pub(crate) fn poll_result(&self) -> Result<Option<AgentResult>, Error> {
        match self.lines.try_recv() {
            Ok(line) => parse_result(&line).map(Some),
            Err(mpsc::TryRecvError::Empty) => Ok(None),
            Err(mpsc::TryRecvError::Disconnected) => Err(Error::new("agent failed")),
        }
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        // Ignored: it may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
