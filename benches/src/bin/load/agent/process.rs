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

use serde_json::{Value, json};
use sigver_benches::{
    engine::Endpoint,
    error::{Context, Error},
};

use crate::{
    measure::report::{Metric, Sample},
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

/// Named numbers that an agent has found, in the order in which they are shown.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<(String, f64)>);

impl Findings {
    pub(crate) fn add(&mut self, name: &str, number: f64) {
        self.0.push((name.to_owned(), number));
    }

    /// Takes out one number.
    pub(crate) fn take(&mut self, name: &str) -> Result<f64, Error> {
        let place = self.0.iter().position(|(other, _)| other == name);
        let place = place.ok_or_else(|| Error::new(format!("an agent did not say {name:?}")))?;
        Ok(self.0.remove(place).1)
    }

    /// The numbers as figures of which no ratio is taken.
    pub(crate) fn figures(self) -> Sample {
        self.0
            .into_iter()
            .map(|(name, number)| Metric::absolute(name, number))
            .collect()
    }

    pub(crate) fn to_json(&self) -> Value {
        json!(self.0)
    }

    fn from_json(json: &str) -> Result<Self, Error> {
        let pairs: Vec<Value> = serde_json::from_str(json)?;
        let pair = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_f64()?));
        let numbers: Option<Vec<_>> = pairs.iter().map(pair).collect();
        numbers.map(Self).ok_or_else(|| unexpected(json))
    }
}

fn parse_result(line: &str) -> Result<Findings, Error> {
    let json = line.strip_prefix(RESULT).ok_or_else(|| unexpected(line))?;
    Findings::from_json(json)
}

fn unexpected(line: &str) -> Error {
    Error::new(format!("an agent says {line:?}"))
}

pub(crate) const READY: &str = "ready";
pub(crate) const GO: &str = "go";
pub(crate) const RESULT: &str = "result ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_cross_the_pipe() {
        let mut findings = Findings::default();
        findings.add("b", 1.5);
        findings.add("a \"quoted\"", 4_000.0);
        let line = format!("{RESULT}{}", findings.to_json());
        let mut again = parse_result(&line).expect("a result");
        assert_eq!(again.take("b").expect("is there"), 1.5);
        again.take("b").expect_err("was taken");
        let figures = again.figures();
        assert_eq!((figures[0].name.as_str(), figures[0].value), ("a \"quoted\"", 4_000.0));
        parse_result("result [[1,2]]").expect_err("no name");
        parse_result("ready").expect_err("no result");
    }
}
