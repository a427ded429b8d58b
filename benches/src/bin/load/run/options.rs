//! The options that all modes but `soak` have in common.

use std::path::PathBuf;

use clap::Args;

/// What all modes have in common.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// How to start the server under test: words separated by spaces. It has to print "listening on HOST:PORT".
    /// [default: sigver, from the directory of this program, with --listen 127.0.0.1:0]
    #[arg(long, value_name = "CMD")]
    pub(crate) server: Option<String>,
    /// How to start another server to compare with; may be given again.
    #[arg(long, value_name = "CMD")]
    pub(crate) against: Vec<String>,
    /// A server to compare with that runs already.
    #[arg(long, value_name = "URL")]
    pub(crate) against_url: Option<String>,
    /// That server's process, for its CPU and memory.
    #[arg(long, value_name = "PID", requires = "against_url")]
    pub(crate) against_pid: Option<u32>,
    /// How often each server is measured, in turn with the others.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// How long one measurement takes.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Servers on the first core, the generator on the second. The default on Linux.
    #[arg(long, overrides_with = "no_pin")]
    pin: bool,
    /// Let the system place servers and generator.
    #[arg(long)]
    no_pin: bool,
    /// Where to put what the servers write to standard error. It is thrown away otherwise.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Where to write all figures as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl Common {
    pub(crate) fn pinned(&self) -> bool {
        self.pin || (cfg!(target_os = "linux") && !self.no_pin)
    }
}
