//! Agents: parts of a mode that run in their own process.
//!
//! A separate process keeps the load of an agent out of the measured latency and has its own descriptor limit. An agent
//! and its parent communicate over standard input and output: [`process`] is the side of the parent, [`parent`] the side
//! of the agent.

pub(crate) mod attack;
pub(crate) mod process;

mod flood;
mod halves;
mod hostile;
mod parent;
mod protocol;
mod result;
mod storm;

use clap::Subcommand;
use sigver_benches::{
    engine::Engine,
    error::{Context, Error},
    limits,
};

use crate::run::{servers, signals};

/// The task of an agent.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Runs an attack until standard input is closed.
    Attack {
        /// The attack.
        #[arg(long)]
        kind: attack::Attack,
    },
    /// Joins a key and sends to its opener until standard input is closed.
    Flood {
        /// The key.
        #[arg(long)]
        key: String,
        /// Length of a message.
        #[arg(long)]
        message_len: usize,
    },
    /// Runs all hostile clients until standard input is closed.
    HostileClients,
    /// Opens all connections at once.
    Storm {
        /// Number of openers.
        #[arg(long)]
        connections: usize,
    },
    /// Runs openers that answer each payload.
    Openers(halves::HalfOptions),
    /// Runs joiners that send payloads and check the answers.
    Joiners(halves::HalfOptions),
}

/// Runs a task and prints its result.
pub(crate) fn run(url: &str, nice: bool, task: &Task) -> Result<(), Error> {
    let _ = limits::raise_descriptor_limit();
    if nice {
        rustix::process::nice(19).context("cannot lower priority")?;
    }
    let endpoint = servers::parse_url(url)?;
    let mut engine = Engine::new(&endpoint, signals::stop_on_signals()?)?;
    let parent = parent::ParentLink::spawn_reader();
    let result = match task {
        Task::HostileClients => hostile::run(&endpoint, &parent)?,
        Task::Attack { kind } => attack::run(&mut engine, &parent, *kind)?,
        Task::Flood { key, message_len } => flood::run(&mut engine, &parent, key, *message_len)?,
        Task::Storm { connections } => storm::run(&mut engine, &parent, *connections)?,
        Task::Openers(options) => halves::run_openers(&mut engine, &parent, options)?,
        Task::Joiners(options) => halves::run_joiners(&mut engine, &parent, options)?,
    };
    println!("{}{}", protocol::RESULT, result.to_json());
    Ok(())
}
