//! Tests any server for conformance with PROTOCOL.md: runs every transcript and every hostile case against it, in both dialects, and reports
//! the expected and the actual behaviour.
//!
//! `cargo run --release --example conformance -- ws://localhost:8000`
//!
//! | file | content |
//! |---|---|
//! | `options.rs` | the command line |
//! | `case.rs` | the cases: which are skipped, and how one runs |
//! | `dialect.rs` | the messages of each dialect |
//! | `judge.rs` | comparison of expected and received frames |
//! | `pair.rs` | an opener and a joiner that exchange data |
//! | `hostile/` | cases that transcripts cannot express: broken, slow, oversize and many requests, frames and messages |
//! | `report.rs` | the output: table, TAP or JSON |
//!
//! For a server without parts of the protocol, `--dialect` and `--without-additions` skip their cases. Transcripts for other
//! limits run with `--set`.
//!
//! The kit compares codes and messages, but not texts for people. The transcripts use keys such as `tea`. If other clients of the server have
//! such a key open, cases fail.
//!
//! Exit status: 0 if no case failed, 1 if a case failed, 2 if the command line is invalid or the server cannot be reached.

#![forbid(unsafe_code)]

mod case;
mod dialect;
mod hostile;
mod judge;
mod options;
mod pair;
mod report;

use std::{
    io,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use sigver_transcripts::socket::Target;

use case::Case;
use judge::Mismatch;
use options::{Exit, Options};
use report::{Report, Row, Verdict};

fn main() -> ExitCode {
    let options = match Options::read() {
        Ok(options) => options,
        Err(Exit::Printed) => return ExitCode::SUCCESS,
        Err(Exit::Usage(error)) => return fail(&error),
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("conformance: {error}");
    ExitCode::from(2)
}

/// Runs the chosen cases. Returns whether all have passed or were skipped.
///
/// # Errors
///
/// If no case can run, with the reason.
fn run(options: &Options) -> Result<bool, String> {
    let cases = Case::all().map_err(|error| format!("cannot read the transcripts: {error}"))?;
    let mut cases: Vec<Case> = cases.into_iter().filter(|case| options.includes(&case.name)).collect();
    // Cases that wait are started first and reported last.
    cases.sort_by_key(Case::waits);
    if cases.is_empty() {
        return Err("no case matches (see --list)".into());
    }
    // Writing fails if the reader has closed the pipe. Such errors are ignored.
    if options.list {
        let _ = report::list(&cases);
        return Ok(true);
    }
    let target = options.target()?;
    check_reachable(&target, options).map_err(|error| format!("cannot connect to {}: {error}", target.addr))?;
    let mut report = Report::new(options, &cases);
    let mut failed = false;
    let _ = report.begin();
    thread::scope(|scope| {
        let target = &target;
        let (waiting, others): (Vec<_>, Vec<_>) = cases.iter().partition(|case| case.waits());
        let waiting: Vec<_> = waiting
            .into_iter()
            .map(|case| (case, scope.spawn(move || run_case(case, options, target))))
            .collect();
        let others = others.into_iter().map(|case| (case, run_case(case, options, target)));
        let waiting = waiting.into_iter().map(|(case, thread)| {
            let panicked = |_| {
                (
                    Verdict::Failed(Mismatch::new("a verdict", "the kit panicked")),
                    Duration::ZERO,
                )
            };
            (case, thread.join().unwrap_or_else(panicked))
        });
        for (case, (verdict, took)) in others.chain(waiting) {
            failed |= matches!(verdict, Verdict::Failed(_));
            let _ = report.add(Row::new(case, verdict, took));
        }
    });
    let _ = report.end();
    Ok(!failed)
}

/// Runs a case, or skips it. Returns the verdict and the duration.
fn run_case(case: &Case, options: &Options, target: &Target) -> (Verdict, Duration) {
    let started = Instant::now();
    let verdict = match case.skip_reason(options) {
        Some(reason) => Verdict::Skipped(reason),
        None => case
            .run(options, target)
            .map_or_else(Verdict::Failed, |()| Verdict::Passed),
    };
    (verdict, started.elapsed())
}

/// Checks that the server accepts a connection.
fn check_reachable(target: &Target, options: &Options) -> io::Result<()> {
    target.dial(Instant::now() + options.deadline).map(drop)
}
