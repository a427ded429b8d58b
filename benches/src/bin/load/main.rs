//! The load generator: see `benches/README.md` for what each mode measures and how to read it.
//!
//! Every mode measures the yardstick, the server under test and any others in turn, a fresh process each time, and
//! shows medians and ratios. It ends every process that it has started, and no other.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "tables go to standard output, and so do the lines that agents say to their parent"
)]

mod agent;
mod cli;
mod measure;
mod mode;
mod run;

use std::process::ExitCode;

use clap::Parser;
use sigver_benches::error::Error;

use cli::{Mode, Options};
use mode::{exchange, fairness, idle, many, sessions, soak, storm, verify};
use run::idle::Roles;

fn main() -> ExitCode {
    match run(Options::parse().mode) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(mode: Mode) -> Result<(), Error> {
    match mode {
        Mode::Exchange { pairs, common } => exchange::run(&pairs, common),
        Mode::Sessions { concurrency, common } => sessions::run(&concurrency, common),
        Mode::Idle {
            connections,
            openers,
            common,
        } => {
            let roles = if openers { Roles::Openers } else { Roles::Half };
            idle::run(&connections, roles, common)
        }
        Mode::Verify {
            keys,
            joiners,
            messages,
            common,
        } => {
            let extent = verify::Extent {
                keys,
                joiners,
                messages,
            };
            verify::run(extent, common)
        }
        Mode::Storm { connections, common } => storm::run(&connections, common),
        Mode::MostlyIdle { idle, pairs, common } => exchange::run_mostly_idle(&idle, pairs, common),
        Mode::Fairness { attacks, common } => fairness::run(&attacks, common),
        Mode::Many {
            pairs,
            messages,
            common,
        } => many::run(many::Extent { pairs, messages }, common),
        Mode::Soak(options) => soak::run(&options),
        Mode::Agent { url, nice, task } => agent::run(&url, nice, &task),
    }
}
