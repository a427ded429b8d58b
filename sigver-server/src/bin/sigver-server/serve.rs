//! Runs the server: binds or inherits its listeners, announces their addresses and serves until shutdown.

use std::{
    error::Error,
    io::{self, Write},
};

use sigver_server::Server;

use crate::{
    cli::{NAME, ServeOptions},
    signals, systemd,
};

/// Serves until a signal shuts the server down.
///
/// # Errors
///
/// The server cannot start, or one of its threads has failed.
pub(crate) fn serve(options: ServeOptions) -> Result<(), Box<dyn Error>> {
    let inherited = systemd::listeners().map_err(|error| format!("invalid inherited socket: {error}"))?;
    let pre_stop_delay = options.config.pre_stop_delay;
    let server = if inherited.is_empty() {
        Server::bind(options.config)?
    } else {
        log::info!("listening on inherited sockets; --listen is ignored");
        Server::with_listeners(options.config, inherited)?
    };
    options.files.log_notices();
    signals::handle(server.handle(), pre_stop_delay, options.files)
        .map_err(|error| format!("cannot handle signals: {error}"))?;
    announce(&server, options.demo);
    systemd::ready();
    Ok(server.run()?)
}

/// Logs each address and prints it to stdout, where programs wait for it. A closed stdout is not an error.
fn announce(server: &Server, demo: bool) {
    let mut stdout = io::stdout().lock();
    for addr in server.local_addrs() {
        log::info!("listening on {addr}");
        let _ = writeln!(stdout, "{NAME} listening on {addr}");
    }
    if let (true, Some(addr)) = (demo, server.local_addr()) {
        let _ = writeln!(
            stdout,
            "demo: open http://localhost:{}/ and share the link that it shows",
            addr.port()
        );
    }
    let _ = stdout.flush();
}
