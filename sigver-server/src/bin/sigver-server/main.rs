//! The sigver signaling server: reads its arguments, serves until it is told to stop, and says why if it cannot.
//!
//! Owns the process: its arguments, log, signals, exit code. Never a connection: everything else is in the `sigver_server` library.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

use std::{
    io::{self, Write},
    process::ExitCode,
};

mod cli;
mod demo;
mod logging;
mod serve;
mod signals;
mod systemd;

/// The command line was wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match cli::read() {
        Ok(cli::Command::Serve(command)) => *command,
        Ok(cli::Command::Print(text)) => return printed(io::stdout().write_all(text.as_bytes())),
        Err(cli::Stop::Answered(outcome)) => return printed(outcome),
        Err(cli::Stop::Wrong(problem)) => {
            eprintln!("sigver-server: {problem}");
            return ExitCode::from(USAGE);
        }
    };
    let log = logging::start(command.log_format);
    let outcome = serve::serve(command);
    // What was logged last should not overtake, or be lost to, the end of the process.
    log.flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("sigver-server: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for is on stdout, or is not. A reader that has seen enough may close the pipe.
fn printed(outcome: io::Result<()>) -> ExitCode {
    match outcome.and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("sigver-server: cannot write to stdout: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
