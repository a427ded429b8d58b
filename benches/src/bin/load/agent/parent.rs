//! The connection of an agent to its parent process: standard input and output.

use std::{
    io::BufRead,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::agent::protocol;

/// Requests of the parent, which a thread reads from standard input.
#[derive(Clone, Debug)]
pub(super) struct ParentLink {
    start: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl ParentLink {
    pub(super) fn spawn_reader() -> Self {
        let parent = Self {
            start: Arc::default(),
            stop: Arc::default(),
        };
        let reader = parent.clone();
        thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                reader.start.store(line == protocol::GO, Ordering::Relaxed);
            }
            reader.stop.store(true, Ordering::Relaxed);
        });
        parent
    }

    pub(super) fn start_requested(&self) -> bool {
        self.start.load(Ordering::Relaxed)
    }

    pub(super) fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(super) fn report_ready(&self) {
        println!("{}", protocol::READY);
    }
}
