//! Signal handling, in threads and not in signal handlers. The first SIGTERM or SIGINT starts a graceful shutdown, the second closes all
//! connections, the third exits immediately. SIGHUP reloads the tokens.

use std::{
    io, process,
    sync::{Arc, mpsc::sync_channel},
    thread,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
    low_level::signal_name,
};
use sigver_server::{Handle, Tokens};

use crate::systemd;

/// Starts the threads that handle signals.
pub(crate) fn handle(server: Handle, tokens: Option<Arc<Tokens>>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    // Reading the token file may block, for example on a FIFO, so it has a thread. Requests during a reload are merged into one.
    let (requests, reloads) = sync_channel(1);
    thread::Builder::new().name("sigver-reload".into()).spawn(move || {
        for () in reloads {
            reload(tokens.as_deref());
        }
    })?;
    thread::Builder::new().name("sigver-signals".into()).spawn(move || {
        let mut received = 0;
        for signal in signals.forever() {
            if signal == SIGHUP {
                let _ = requests.try_send(());
                continue;
            }
            received += 1;
            let name = signal_name(signal).unwrap_or("signal");
            match received {
                1 => {
                    log::info!("shutting down on {name}; a second signal closes all connections immediately");
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

fn reload(tokens: Option<&Tokens>) {
    systemd::reloading();
    match tokens.map(Tokens::reload) {
        None => log::info!("nothing to reload: no --token-file"),
        Some(Ok(1)) => log::info!("reloaded 1 token"),
        Some(Ok(count)) => log::info!("reloaded {count} tokens"),
        Some(Err(error)) => log::error!("cannot reload tokens, keeping the previous ones: {error}"),
    }
    systemd::ready();
}
