//! The `sigver-server` binary: parses the command line, starts the log, and serves until a signal ends the process.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

use std::process::ExitCode;

mod cli;
mod demo;
mod files;
mod logging;
mod serve;
mod signals;
mod systemd;
mod values;

fn main() -> ExitCode {
    let options = match cli::parse() {
        Ok(options) => options,
        Err(exit) => return exit.report(),
    };
    let log = logging::start(options.log_format);
    if !options.unknown_variables.is_empty() {
        log::warn!("unknown variables, ignored: {}", options.unknown_variables.join(", "));
    }
    let outcome = serve::serve(options);
    // The last error goes to stderr after the last line of the log.
    log.flush();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", cli::NAME);
            ExitCode::FAILURE
        }
    }
}
