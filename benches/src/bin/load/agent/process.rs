//! The parent's side of an agent: a part of a mode that runs in a process of its own.
//!
//! The agent prints `ready` lines and at last `result {..}`; the parent writes `go`, and ends the agent by closing
//! its input. So an agent ends with its parent, whatever ends the parent.

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
        findings::{Findings, parse_result},
        protocol::{GO, READY, unexpected},
    },
    run::bench::Bench,
};

/// An agent that runs. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// Whether the agent gives way to the measuring process, with which it shares a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    Low,
    Same,
}

impl Agent {
    /// Starts this program again for a task, given as the words of its command line.
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
            .context("cannot start an agent")?;
        let input = child.stdin.take();
        let output = child.stdout.take();
        let (sender, lines) = mpsc::channel();
        if let Some(output) = output {
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    // Ignored: a parent that no longer listens is about to end the agent.
                    let _ = sender.send(line);
                }
            });
        }
        Ok(Self { child, input, lines })
    }

    /// Whether the agent has said that much, without waiting for it.
    pub(crate) fn is_ready(&self) -> Result<bool, Error> {
        match self.lines.try_recv() {
            Ok(line) if line == READY => Ok(true),
            Ok(line) => Err(unexpected(&line)),
            Err(mpsc::TryRecvError::Empty) => Ok(false),
            Err(mpsc::TryRecvError::Disconnected) => Err(Error::new("an agent has failed")),
        }
    }

    /// Waits until the agent says so.
    pub(crate) fn wait_ready(&self, bench: &Bench, time: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + time;
        while !self.is_ready()? {
            bench.go_on()?;
            if Instant::now() > deadline {
                return Err(Error::new("an agent is not ready in time"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Lets the agent begin what it is ready for.
    pub(crate) fn go(&mut self) -> Result<(), Error> {
        let input = self.input.as_mut();
        let input = input.ok_or_else(|| Error::new("an agent has no input"))?;
        writeln!(input, "{GO}").context("an agent is gone")
    }

    /// Asks the agent to end, without waiting for its result.
    pub(crate) fn ask_to_end(&mut self) {
        self.input = None;
    }

    /// Ends the agent and takes its result.
    pub(crate) fn finish(mut self, time: Duration) -> Result<Findings, Error> {
        self.ask_to_end();
        let line = self.lines.recv_timeout(time);
        parse_result(&line.map_err(|_| Error::new("an agent gave no result in time"))?)
    }

    /// The result of an agent that ends by itself or was asked to, if it has one yet.
    pub(crate) fn try_result(&self) -> Result<Option<Findings>, Error> {
        match self.lines.try_recv() {
            Ok(line) => parse_result(&line).map(Some),
            Err(mpsc::TryRecvError::Empty) => Ok(None),
            Err(mpsc::TryRecvError::Disconnected) => Err(Error::new("an agent has failed")),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Ignored: it may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
