//! A signaling server in an event loop with mio, on one thread: [`Endpoint`](sigver_core::Endpoint) makes the decisions; these files provide
//! sockets and WebSocket framing. Start from it if one task or thread per connection costs too much.
//!
//! `cargo run --release --example embed_mio -- --listen 127.0.0.1:8000`
//!
//! | file | content |
//! |---|---|
//! | `server.rs` | the event loop: reports events to the endpoint and carries out the outputs |
//! | `conns.rs` | all connections, their timers, their registration in the poll |
//! | `conn.rs` | one connection: its socket, its state and its write buffer |
//! | `frame.rs` | WebSocket frames, in both directions |
//! | `../handshake.rs` | the WebSocket handshake |
//! | `options.rs` | the command line |
//!
//! It differs from the `sigver-server` binary in this: it has no log and no metrics page, it listens on one address, and a slow consumer receives
//! its close frame after everything that was queued before. One thread uses one core. To use more, run one process per core and route
//! all clients of a key to the same process. It passes the whole conformance kit.

#![forbid(unsafe_code)]

mod conn;
mod conns;
mod frame;
#[path = "../handshake.rs"]
mod handshake;
mod options;
mod server;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use options::Options;
use server::Server;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("embed_mio: {error}");
            return ExitCode::from(2);
        }
    };
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("embed_mio: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> io::Result<()> {
    let server = Server::bind(options)?;
    // Fails if stdout is closed. The server runs anyway.
    let _ = writeln!(io::stdout(), "listening on {}", server.local_addr()?);
    server.run()
}
