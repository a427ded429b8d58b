//! Signal handling, in threads and not in signal handlers. The first SIGTERM or SIGINT starts a graceful shutdown, the second closes all
//! connections, the third exits immediately. A signal during the pre-stop delay ends the delay and is not counted. SIGHUP reloads files.

use std::{
    io, process,
    sync::mpsc::sync_channel,
    thread,
    time::{Duration, Instant},
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::signal_name,
};
use sigver_server::Handle;

use crate::{files::Files, systemd};

/// Starts the threads that handle signals.
pub(crate) fn handle(server: Handle, pre_stop_delay: Duration, files: Files) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    // Reading a file may block, for example on a FIFO, so it has a thread. Requests during a reload are merged into one.
    let (requests, reloads) = sync_channel(1);
    thread::Builder::new().name("sigver-reload".into()).spawn(move || {
        for () in reloads {
            systemd::reloading();
            files.reload();
            systemd::ready();
        }
    })?;
    thread::Builder::new().name("sigver-signals".into()).spawn(move || {
        let mut received = 0;
        // When the pre-stop delay began, until it has ended.
        let mut delayed = None;
        for signal in signals.forever() {
            if signal == SIGHUP {
                let _ = requests.try_send(());
                continue;
            }
            let is_in_delay = delayed
                .take()
                .is_some_and(|since: Instant| since.elapsed() < pre_stop_delay);
            let name = signal_name(signal).unwrap_or("signal");
            if is_in_delay {
                log::info!("shutting down before the end of the delay on a second {name}");
                server.shutdown();
                continue;
            }
            received += 1;
            match received {
                1 if pre_stop_delay.is_zero() => {
                    log::info!("shutting down on {name}; a second signal closes all connections immediately");
                    systemd::stopping();
                    server.shutdown();
                }
                1 => {
                    let seconds = pre_stop_delay.as_secs_f64();
                    log::info!("shutting down on {name} in {seconds} s; a second signal ends the delay");
                    delayed = Some(Instant::now());
                    systemd::stopping();
                    server.shutdown();
                }
                2 => {
                    log::info!("closing all connections on a second {name}");
                    server.shutdown_now();
                }
                // The exit code that shells report for a process killed by a signal.
                _ => process::exit(128 + signal),
            }
        }
    })?;
    Ok(())
}
