//! Command line options of all modes except `soak`.

use std::path::PathBuf;

use clap::Args;

/// Options of all modes except `soak`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CommonOptions {
    /// Command that starts the server under test: words separated by spaces. The server must print "listening on HOST:PORT"
    /// [default: sigver-server in the directory of this program, with --listen 127.0.0.1:0 and without rate limits]
    #[arg(long, value_name = "CMD")]
    pub(crate) server: Option<String>,
    /// Command that starts another server to compare with (repeatable)
    #[arg(long, value_name = "CMD")]
    pub(crate) against: Vec<String>,
    /// WebSocket URL of a running server to compare with (repeatable). `sessions` also measures servers of other protocols, with the schemes
    /// matchbox+ws and peerjs+ws
    #[arg(long, value_name = "URL")]
    pub(crate) against_url: Vec<String>,
    /// Process ID of that server, to read its CPU time and memory (one for each URL, in the same order)
    #[arg(long, value_name = "PID", requires = "against_url")]
    pub(crate) against_pid: Vec<u32>,
    /// Number of measurements of each server, alternating with the others
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Duration of one measurement, in seconds
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Pin servers to the first core and the generator to the second (default on Linux)
    #[arg(long, overrides_with = "no_pin")]
    pin: bool,
    /// Do not pin servers and generator to cores
    #[arg(long)]
    no_pin: bool,
    /// File to append the standard error of the servers to [default: discarded]
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// File to write all results to, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

impl CommonOptions {
    pub(crate) fn is_pinned(&self) -> bool {
        self.pin || (cfg!(target_os = "linux") && !self.no_pin)
    }
}
