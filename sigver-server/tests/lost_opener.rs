//! The key of an opener that has vanished is free before its end is logged. The test has a binary of its own because it installs a logger.

use std::sync::{Mutex, MutexGuard, PoisonError};

use log::{LevelFilter, Log, Metadata, Record};
use sigver_transcripts::Seen;
use support::{Running, eventually, test_config};

#[path = "it/support/mod.rs"]
mod support;

/// Locked while nobody reads the log.
static LOG: Mutex<()> = Mutex::new(());

/// A logger that blocks on the line of a lost connection.
struct BlockingLogger;

impl Log for BlockingLogger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.args().to_string().contains(" lost after ") {
            drop(log());
        }
    }

    fn flush(&self) {}
}

fn log() -> MutexGuard<'static, ()> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn key_of_a_lost_opener_is_free_while_its_log_line_is_blocked() {
    log::set_logger(&BlockingLogger).expect("the only logger");
    log::set_max_level(LevelFilter::Info);
    let server = Running::start(test_config());
    let (mut opener, mut joiner) = server.pair("k");
    let blocked = log();
    opener.vanish().expect("it is connected");
    assert_eq!(joiner.receive(), Seen::Close(Some(4001), "opener left".into()));
    eventually("the key is free", || server.handle.stats().keys == 0);
    let _again = server.pair("k");
    drop(blocked);
}
