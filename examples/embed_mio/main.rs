//! The core in an event loop: a whole server, of both dialects, on one thread, with mio. To start from where one
//! thread per connection is not wanted.
//!
//! `cargo run --release --example embed_mio -- --listen 127.0.0.1:8000`
//!
//! | file | owns |
//! |---|---|
//! | `server.rs` | the loop and the [`Hub`](sigver_core::Hub): what happened goes in, what follows goes out |
//! | `conns.rs` | all connections, their timers, their places in the poll |
//! | `conn.rs` | one connection's socket, what it is waiting for, and the bytes on their way to its client |
//! | `frame.rs` | WebSocket frames, both ways |
//! | `../handshake.rs` | the handshake |
//! | `options.rs` | the command line |
//!
//! It serves what the `sigver` binary serves, but for this: it keeps no log, serves no page, listens on one address,
//! and a client that is closed for reading too slowly finds its close frame behind all that it has not read. One thread
//! is also one core; to use more, run a process for each and give all clients of a key to the same one.

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
        Err(problem) => {
            eprintln!("embed_mio: {problem}");
            return ExitCode::from(2);
        }
    };
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("embed_mio: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: Options) -> io::Result<()> {
    let server = Server::bind(options)?;
    // A closed stdout is no reason not to serve.
    let _ = writeln!(io::stdout(), "listening on {}", server.local_addr()?);
    server.run()
}
