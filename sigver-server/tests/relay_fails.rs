//! A bug in the thread that owns the hub: every client is let go, and `run` says so; the process lives on. Alone in its file, for the log,
//! which is the only thing that can make that thread panic, is one for the whole process.

use std::thread;

use log::{LevelFilter, Log, Metadata, Record};
use sigver_server::{Config, RunError};
use sigver_transcripts::Seen;
use support::Running;

#[path = "it/support/mod.rs"]
mod support;

/// A log that is broken, for one thread.
struct Broken;

impl Log for Broken {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        assert_ne!(thread::current().name(), Some("sigver-relay"), "{}", record.args());
    }

    fn flush(&self) {}
}

#[test]
fn relay_panic_is_an_error_of_run() {
    log::set_logger(&Broken).expect("the only logger");
    log::set_max_level(LevelFilter::Info);
    let server = Running::start(Config::default());
    let (mut opener, mut joiner) = server.pair("k");
    // It says how many there are to close.
    server.handle.shutdown();
    assert_eq!((opener.receive(), joiner.receive()), (Seen::Lost, Seen::Lost));
    assert!(matches!(server.stop(), Err(RunError::Relay)));
}
