//! Signal handling.

use std::sync::{Arc, atomic::AtomicBool};

use sigver_benches::error::{Context, Error};

/// Returns a flag that SIGINT and SIGTERM set, so that a run returns and stops the processes that it has started.
pub(crate) fn stop_on_signals() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot register signal handler")?;
    }
    Ok(stop)
}
