//! Owns the signals of the process. SIGTERM or SIGINT asks the server to end, a second one does not let it take its time, a third one
//! does not wait at all. SIGHUP has the tokens read again. Never does anything within a signal handler.

use std::{
    io, process,
    sync::{Arc, mpsc::sync_channel},
    thread,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use sigver_server::{Handle, Tokens};

use crate::systemd;

/// Acts on signals from now on.
pub(crate) fn handle(server: Handle, tokens: Option<Arc<Tokens>>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    // A file may keep its reader waiting, and no other signal should. A wish that comes while one waits is the same.
    let (wishes, wished) = sync_channel(1);
    thread::Builder::new().name("sigver-reload".into()).spawn(move || {
        for () in wished {
            reload(tokens.as_deref());
        }
    })?;
    thread::Builder::new().name("sigver-signals".into()).spawn(move || {
        let mut asked = 0;
        for signal in signals.forever() {
            if signal == SIGHUP {
                let _ = wishes.try_send(());
                continue;
            }
            asked += 1;
            match asked {
                1 => {
                    log::info!("ending on signal {signal}; another one ends at once");
                    systemd::stopping();
                    server.shutdown();
                }
                2 => {
                    log::info!("ending at once on signal {signal}");
                    server.shutdown_now();
                }
                // What a shell says of a process that a signal has ended.
                _ => process::exit(128 + signal),
            }
        }
    })?;
    Ok(())
}

fn reload(tokens: Option<&Tokens>) {
    systemd::reloading();
    match tokens.map(Tokens::reload) {
        None => log::info!("there is nothing to read again"),
        Some(Ok(count)) => log::info!("{count} tokens are read again"),
        Some(Err(problem)) => log::error!("the tokens stay as they were: {problem}"),
    }
    systemd::ready();
}
