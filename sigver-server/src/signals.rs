//! Owns the signals that end the process: the first SIGTERM or SIGINT asks the server to end, a second one does not wait for it.

use std::{io, process, thread};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use sigver_server::Handle;

/// Forwards signals to the server from now on.
pub(crate) fn forward(handle: Handle) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("sigver-signals".into()).spawn(move || {
        let mut signals = signals.forever();
        if let Some(signal) = signals.next() {
            log::info!("ending on signal {signal}");
            handle.shutdown();
        }
        if let Some(signal) = signals.next() {
            // What a shell says of a process that a signal has ended.
            process::exit(128 + signal);
        }
    })?;
    Ok(())
}
