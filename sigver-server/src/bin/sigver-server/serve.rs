//! Runs the server: binds or inherits the listeners, announces their addresses and serves until shutdown.

use std::{
    error::Error,
    io::{self, Write},
};

use sigver_server::Server;

use crate::{cli::Serve, signals, systemd};

pub(crate) fn serve(command: Serve) -> Result<(), Box<dyn Error>> {
    let inherited =
        systemd::listeners().map_err(|error| format!("a socket of the service manager is no good: {error}"))?;
    let server = if inherited.is_empty() {
        Server::bind(command.config)?
    } else {
        log::info!("listening where the service manager does, and not where --listen says");
        Server::with_listeners(command.config, inherited)?
    };
    signals::handle(server.handle(), command.tokens).map_err(|error| format!("cannot listen for signals: {error}"))?;
    announce(&server, command.demo);
    systemd::ready();
    Ok(server.run()?)
}

/// Says on stdout where the server can be reached, a line for each address. A closed stdout is no reason not to serve.
fn announce(server: &Server, demo: bool) {
    let mut stdout = io::stdout().lock();
    for addr in server.local_addrs() {
        let _ = writeln!(stdout, "sigver-server listening on {addr}");
    }
    if demo {
        let _ = writeln!(
            stdout,
            "open http://localhost:{}/ in two tabs",
            server.local_addr().port()
        );
    }
    let _ = stdout.flush();
}
