//! The load generator. `benches/README.md` describes what each mode measures and how to read its results.
//!
//! A mode measures the yardstick, the server under test and other servers in turn, each time in a new process, and prints
//! medians and ratios. `load` stops all processes that it has started, and no others.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "tables and the lines from agents to their parent go to standard output"
)]

mod agent;
mod cli;
mod measure;
mod mode;
mod run;

use std::process::ExitCode;

use clap::Parser;
use sigver_benches::error::Error;

use cli::{Cli, Mode};
use mode::{exchange, fairness, idle, many, race, sessions, shares, soak, storm, verify};
use run::idle::IdleRoles;

fn main() -> ExitCode {
    match run(Cli::parse().mode) {
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
        Mode::Sessions { at_once, common } => sessions::run(&at_once, common),
        Mode::Idle {
            connections,
            openers,
            common,
        } => {
            let roles = if openers { IdleRoles::Openers } else { IdleRoles::Pairs };
            idle::run(&connections, roles, common)
        }
        Mode::Verify {
            keys,
            joiners,
            messages,
            common,
        } => {
            let load = verify::VerifyLoad {
                keys,
                joiners,
                messages,
            };
            verify::run(load, common)
        }
        Mode::Storm { connections, common } => storm::run(&connections, common),
        Mode::MostlyIdle { idle, pairs, common } => exchange::run_mostly_idle(&idle, pairs, common),
        Mode::Fairness { attacks, common } => fairness::run(&attacks, common),
        Mode::Many {
            pairs,
            messages,
            common,
        } => many::run(many::ManyLoad { pairs, messages }, common),
        Mode::Race {
            pairs,
            at_once,
            hogs,
            common,
        } => race::run(race::RaceLoad { pairs, at_once, hogs }, common),
        Mode::Shares {
            speeds,
            flood_bytes,
            common,
        } => shares::run(&speeds, &flood_bytes, common),
        Mode::Soak(options) => soak::run(&options),
        Mode::Agent { url, nice, task } => agent::run(&url, nice, &task),
    }
}
