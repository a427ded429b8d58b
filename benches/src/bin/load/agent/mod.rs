//! An agent: a part of a mode in a process of its own, so that what it queues is not measured as the server's
//! latency, and so that clients need not share one process's limits.
//!
//! It speaks with its parent over standard input and output; see `child.rs` for the other side.

pub(crate) mod attack;
pub(crate) mod process;

mod findings;
mod halves;
mod hostile;
mod parent;
mod protocol;
mod storm;

use clap::Subcommand;
use sigver_benches::{
    engine::Engine,
    error::{Context, Error},
    limits,
};

use crate::run::{servers, signals};

/// What an agent does.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Attacks until its input ends.
    Attack {
        /// In which way.
        #[arg(long)]
        kind: attack::Attack,
    },
    /// Does wrong in every way, until its input ends.
    Siege,
    /// Connects everything at once.
    Storm {
        /// How many openers.
        #[arg(long)]
        connections: usize,
    },
    /// Holds openers, answers what joiners send.
    Openers(halves::Members),
    /// Holds joiners, sends, and compares what comes back.
    Joiners(halves::Members),
}

/// Runs a task to its end.
pub(crate) fn run(url: &str, nice: bool, task: &Task) -> Result<(), Error> {
    let _ = limits::raise_descriptors();
    if nice {
        rustix::process::nice(19).context("cannot give way")?;
    }
    let endpoint = servers::parse_url(url)?;
    let mut engine = Engine::new(&endpoint, signals::stop_on_signals()?)?;
    let parent = parent::Parent::listen();
    let findings = match task {
        Task::Siege => hostile::run(&endpoint, &parent)?,
        Task::Attack { kind } => attack::run(&mut engine, &parent, *kind)?,
        Task::Storm { connections } => storm::run(&mut engine, &parent, *connections)?,
        Task::Openers(members) => halves::run_openers(&mut engine, &parent, members)?,
        Task::Joiners(members) => halves::run_joiners(&mut engine, &parent, members)?,
    };
    println!("{}{}", protocol::RESULT, findings.to_json());
    Ok(())
}
