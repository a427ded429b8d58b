//! Signals that end a run.

use std::sync::{Arc, atomic::AtomicBool};

use sigver_benches::error::{Context, Error};

/// Sets a flag on SIGINT and SIGTERM, so that everything started here is ended on the ordinary way out.
pub(crate) fn stop_on_signals() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("signals")?;
    }
    Ok(stop)
}
