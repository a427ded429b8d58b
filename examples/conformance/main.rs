//! Holds any server to PROTOCOL.md: plays every transcript and every hostile case against it, in either dialect, and says what was
//! expected and what was seen.
//!
//! `cargo run --release --example conformance -- ws://localhost:8000`
//!
//! | file | owns |
//! |---|---|
//! | `options.rs` | the command line |
//! | `case.rs` | which cases there are, which of them are skipped, and running one |
//! | `dialect.rs` | what clients and servers of each dialect say |
//! | `judge.rs` | what is the same, where a server may choose its words |
//! | `pair.rs` | an opener and a joiner that talk |
//! | `hostile/` | what no transcript can say: heads, frames, texts and crowds that a server has to survive |
//! | `report.rs` | the table, TAP, JSON |
//!
//! It knows what PROTOCOL.md says and nothing else of the server: codes and messages are compared, texts for people are not. The
//! transcripts use keys such as `tea`, so a server that is in use may have them open already, and then cases fail.
//!
//! Exit status: 0 when nothing failed, 1 when something did, 2 when the command line is wrong or there is no server.

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
use options::{Options, Stop};
use report::{Report, Row, Verdict};

fn main() -> ExitCode {
    let options = match Options::read() {
        Ok(options) => options,
        Err(Stop::Answered) => return ExitCode::SUCCESS,
        Err(Stop::Wrong(problem)) => return give_up(&problem),
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => give_up(&problem),
    }
}

fn give_up(problem: &str) -> ExitCode {
    eprintln!("conformance: {problem}");
    ExitCode::from(2)
}

/// Whether nothing has failed. An error is why nothing could be run.
fn run(options: &Options) -> Result<bool, String> {
    let cases = Case::all().map_err(|error| format!("no transcripts: {error}"))?;
    let mut cases: Vec<Case> = cases.into_iter().filter(|case| options.chooses(&case.name)).collect();
    // They are started first and reported last.
    cases.sort_by_key(Case::waits);
    if cases.is_empty() {
        return Err("no case has such a name (see --list)".into());
    }
    // A reader that has seen enough may close the pipe; there is nobody else to tell.
    if options.list {
        let _ = report::list(&cases);
        return Ok(true);
    }
    let target = options.target()?;
    answers(&target, options).map_err(|error| format!("no connection to {}: {error}", target.addr))?;
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
                    Verdict::Failed(Mismatch::new("a verdict", "a panic of the kit")),
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

/// Runs a case, unless it has to be skipped. Returns how long that took as well.
fn run_case(case: &Case, options: &Options, target: &Target) -> (Verdict, Duration) {
    let started = Instant::now();
    let verdict = match case.skipped(options) {
        Some(reason) => Verdict::Skipped(reason),
        None => case
            .run(options, target)
            .map_or_else(Verdict::Failed, |()| Verdict::Passed),
    };
    (verdict, started.elapsed())
}

/// Whether anyone is there at all.
fn answers(target: &Target, options: &Options) -> io::Result<()> {
    target.dial(Instant::now() + options.deadline).map(drop)
}
