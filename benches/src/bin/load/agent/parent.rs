//! The agent's side of the pipe to its parent.

use std::{
    io::BufRead,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::agent::protocol;

/// What the parent has said.
#[derive(Clone, Debug)]
pub(super) struct Parent {
    go: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Parent {
    pub(super) fn listen() -> Self {
        let parent = Self {
            go: Arc::default(),
            ended: Arc::default(),
        };
        let heard = parent.clone();
        thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                heard.go.store(line == protocol::GO, Ordering::Relaxed);
            }
            heard.ended.store(true, Ordering::Relaxed);
        });
        parent
    }

    pub(super) fn says_go(&self) -> bool {
        self.go.load(Ordering::Relaxed)
    }

    pub(super) fn says_end(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    pub(super) fn tell_ready(&self) {
        println!("{}", protocol::READY);
    }
}
