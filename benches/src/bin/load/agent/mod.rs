//! An agent: a part of a mode in a process of its own, so that what it queues is not measured as the server's
//! latency, and so that clients need not share one process's limits.
//!
//! It speaks with its parent over standard input and output; see `child.rs` for the other side.

mod attack;
mod halves;
mod hostile;
pub(crate) mod process;
mod storm;

use std::{
    io::BufRead,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use clap::Subcommand;
use sigver_benches::{
    engine::Engine,
    error::{Context, Error},
    limits,
};

use crate::{
    mode::fairness::Attack,
    run::{bench, servers},
};

/// What an agent does.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Attacks until its input ends.
    Attack {
        /// In which way.
        #[arg(long)]
        kind: Attack,
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
    Openers(Members),
    /// Holds joiners, sends, and compares what comes back.
    Joiners(Members),
}

/// One of the two halves of `many`.
#[derive(Debug, clap::Args)]
pub(crate) struct Members {
    /// The part that all keys begin with.
    #[arg(long)]
    prefix: String,
    /// How many.
    #[arg(long)]
    count: u32,
    /// Payloads each way on each pair.
    #[arg(long)]
    messages: u32,
}

/// Runs a task to its end.
pub(crate) fn run(url: &str, nice: bool, task: &Task) -> Result<(), Error> {
    let _ = limits::raise_descriptors();
    if nice {
        rustix::process::nice(19).context("cannot give way")?;
    }
    let endpoint = servers::parse_url(url)?;
    let mut engine = Engine::new(&endpoint, bench::stop_on_signals()?)?;
    let parent = Parent::listen();
    let findings = match task {
        Task::Siege => hostile::run(&endpoint, &parent)?,
        Task::Attack { kind } => attack::run(&mut engine, &parent, *kind)?,
        Task::Storm { connections } => storm::run(&mut engine, &parent, *connections)?,
        Task::Openers(members) => halves::run_openers(&mut engine, &parent, members)?,
        Task::Joiners(members) => halves::run_joiners(&mut engine, &parent, members)?,
    };
    println!("{}{}", process::RESULT, findings.to_json());
    Ok(())
}

/// What the parent has said.
#[derive(Clone, Debug)]
struct Parent {
    go: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Parent {
    fn listen() -> Self {
        let parent = Self {
            go: Arc::default(),
            ended: Arc::default(),
        };
        let heard = parent.clone();
        thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                heard.go.store(line == process::GO, Ordering::Relaxed);
            }
            heard.ended.store(true, Ordering::Relaxed);
        });
        parent
    }

    fn says_go(&self) -> bool {
        self.go.load(Ordering::Relaxed)
    }

    fn says_end(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn tell_ready(&self) {
        println!("{}", process::READY);
    }
}
