//! The command line.

use clap::{Parser, Subcommand};

use crate::{
    agent::{Task, attack::Attack},
    mode::soak::SoakOptions,
    run::options::CommonOptions,
};

/// Load generator for servers of the plain protocol, with a yardstick to compare them with
#[derive(Debug, Parser)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) mode: Mode,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mode {
    /// Measure exchanges: an offer and an answer of 1.2 KB, in a closed loop on each pair
    Exchange {
        /// Number of pairs (a list is measured in sequence)
        #[arg(long, value_delimiter = ',', default_value = "1,64,1000")]
        pairs: Vec<usize>,
        #[command(flatten)]
        common: CommonOptions,
    },
    /// Measure whole sessions: connect, open, join, offer, answer, 8 candidates each way, close
    Sessions {
        /// Number of sessions at the same time (a list is measured in sequence)
        #[arg(long, value_delimiter = ',', default_value = "8,64,256,1000")]
        at_once: Vec<usize>,
        #[command(flatten)]
        common: CommonOptions,
    },
    /// Measure the memory of idle connections
    Idle {
        /// Number of connections (a list is measured in sequence)
        #[arg(long, value_delimiter = ',', default_value = "10000")]
        connections: Vec<usize>,
        /// Connect openers only, instead of half openers and half joiners
        #[arg(long)]
        openers: bool,
        #[command(flatten)]
        common: CommonOptions,
    },
    /// Check that unique payloads arrive once, in order and unchanged; exit status 1 if not
    Verify {
        /// Number of openers
        #[arg(long, default_value_t = 16)]
        keys: u32,
        /// Number of joiners of each opener
        #[arg(long, default_value_t = 4)]
        joiners: u32,
        /// Number of payloads each way between an opener and each of its joiners
        #[arg(long, default_value_t = 200)]
        messages: u32,
        #[command(flatten)]
        common: CommonOptions,
    },
    /// Measure a connection storm: the time until all clients are served, and the latency of an established pair
    Storm {
        /// Number of connections (a list is measured in sequence)
        #[arg(long, value_delimiter = ',', default_value = "10000")]
        connections: Vec<usize>,
        #[command(flatten)]
        common: CommonOptions,
    },
    /// Measure exchanges beside idle connections
    MostlyIdle {
        /// Number of idle connections (a list is measured in sequence)
        #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
        idle: Vec<usize>,
        /// Number of active pairs
        #[arg(long, default_value_t = 64)]
        pairs: usize,
        #[command(flatten)]
        common: CommonOptions,
    },
    /// Measure the latency of a pair, alone and during an attack of another client
    Fairness {
        /// Attacks to run
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = Attack::ALL)]
        attacks: Vec<Attack>,
        #[command(flatten)]
        common: CommonOptions,
    },
    /// Relay on thousands of pairs, openers and joiners in separate processes, and check all payloads
    Many {
        /// Number of pairs
        #[arg(long, default_value_t = 5000)]
        pairs: u32,
        /// Number of payloads each way on each pair
        #[arg(long, default_value_t = 10)]
        messages: u32,
        #[command(flatten)]
        common: CommonOptions,
    },
    /// Send an open and a join at the same moment, beside busy threads; exit status 1 if a joiner is refused
    Race {
        /// Number of pairs
        #[arg(long, default_value_t = 10_000)]
        pairs: usize,
        /// Number of pairs at the same time
        #[arg(long, default_value_t = 16)]
        at_once: usize,
        /// Number of busy threads
        #[arg(long, default_value_t = 4)]
        hogs: usize,
        #[command(flatten)]
        common: CommonOptions,
    },
    /// Measure joiners of an opener that another joiner floods; exit status 1 if it is closed or they wait too long
    Shares {
        /// Speed at which the opener reads, in KB/s (a list is measured in sequence)
        #[arg(long, value_delimiter = ',', default_value = "10000,100", value_parser = clap::value_parser!(u32).range(1..))]
        speeds: Vec<u32>,
        /// Length of a message of the flood (a list is measured in sequence)
        #[arg(long, value_delimiter = ',', default_value = "4096,65000")]
        flood_bytes: Vec<usize>,
        #[command(flatten)]
        common: CommonOptions,
    },
    /// Soak test: pairs with checked payloads beside hostile clients; exit status 1 if a pair is disconnected
    Soak(SoakOptions),
    /// Run a part of a mode in a separate process
    #[command(hide = true)]
    Agent {
        /// WebSocket URL of the server
        #[arg(long)]
        url: String,
        /// Lower the priority below that of the measuring process
        #[arg(long)]
        nice: bool,
        #[command(subcommand)]
        task: Task,
    },
}
