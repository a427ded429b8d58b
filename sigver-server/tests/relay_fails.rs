//! A panic of the relay thread: every client is disconnected, and `run` returns an error. The test has a binary of its own because it
//! installs a logger, which is how it makes that thread panic.

use std::thread;

use log::{LevelFilter, Log, Metadata, Record};
use sigver_server::RunError;
use sigver_transcripts::Seen;
use support::{Running, test_config};

#[path = "it/support/mod.rs"]
mod support;

/// A logger that panics on the relay thread.
struct PanickingLogger;

impl Log for PanickingLogger {
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
    log::set_logger(&PanickingLogger).expect("the only logger");
    log::set_max_level(LevelFilter::Info);
    let server = Running::start(test_config());
    let (mut opener, mut joiner) = server.pair("k");
    // The relay logs how many connections it will close.
    server.handle.shutdown();
    assert_eq!((opener.receive(), joiner.receive()), (Seen::Lost, Seen::Lost));
    assert!(matches!(server.stop(), Err(RunError::Relay)));
}
