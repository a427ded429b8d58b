//! What the command line says.

use clap::{Parser, Subcommand};

use crate::{
    agent::{Task, attack::Attack},
    mode::soak::Soak,
    run::options::Common,
};

/// Loads any server that speaks the plain protocol, and compares it with the yardstick.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// An offer and an answer of 1.2 KB, again and again, on some pairs at once.
    Exchange {
        /// How many pairs; a list is tried one after the other.
        #[arg(long, value_delimiter = ',', default_value = "1,64,1000")]
        pairs: Vec<usize>,
        #[command(flatten)]
        common: Common,
    },
    /// Whole sessions: connect, open, join, offer, answer, 8 candidates each way, close.
    Sessions {
        /// How many sessions at once; a list is tried one after the other.
        #[arg(long, value_delimiter = ',', default_value = "8")]
        concurrency: Vec<usize>,
        #[command(flatten)]
        common: Common,
    },
    /// Memory of connections that do nothing.
    Idle {
        /// How many connections; a list is tried one after the other.
        #[arg(long, value_delimiter = ',', default_value = "10000")]
        connections: Vec<usize>,
        /// Nothing but openers, instead of half openers, half joiners.
        #[arg(long)]
        openers: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Every payload unique and compared byte for byte; exit status 1 if any is not as it should be.
    Verify {
        /// How many openers.
        #[arg(long, default_value_t = 16)]
        keys: u32,
        /// How many joiners of each.
        #[arg(long, default_value_t = 4)]
        joiners: u32,
        /// How many payloads each way between an opener and each of its joiners.
        #[arg(long, default_value_t = 200)]
        messages: u32,
        #[command(flatten)]
        common: Common,
    },
    /// How long it takes until all of many clients that come at once are in, and what a pair feels meanwhile.
    Storm {
        /// How many connections; a list is tried one after the other.
        #[arg(long, value_delimiter = ',', default_value = "10000")]
        connections: Vec<usize>,
        #[command(flatten)]
        common: Common,
    },
    /// Exchanges of some pairs beside many connections that do nothing.
    MostlyIdle {
        /// How many idle connections; a list is tried one after the other.
        #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
        idle: Vec<usize>,
        /// How many active pairs.
        #[arg(long, default_value_t = 64)]
        pairs: usize,
        #[command(flatten)]
        common: Common,
    },
    /// What a pair feels, calm and then beside an attacker.
    Fairness {
        /// Which attacks.
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = Attack::ALL)]
        attacks: Vec<Attack>,
        #[command(flatten)]
        common: Common,
    },
    /// Thousands of openers and joiners in separate processes, relaying on all, every payload checked.
    Many {
        /// How many pairs.
        #[arg(long, default_value_t = 5000)]
        pairs: u32,
        /// How many payloads each way on each pair.
        #[arg(long, default_value_t = 10)]
        messages: u32,
        #[command(flatten)]
        common: Common,
    },
    /// Pairs that do nothing wrong, every payload checked, beside clients that do everything wrong; exit status 1 if a pair was harmed.
    Soak(Soak),
    /// Part of a mode, in a process of its own.
    #[command(hide = true)]
    Agent {
        /// The server's WebSocket address.
        #[arg(long)]
        url: String,
        /// Give way to the process that measures.
        #[arg(long)]
        nice: bool,
        #[command(subcommand)]
        task: Task,
    },
}
