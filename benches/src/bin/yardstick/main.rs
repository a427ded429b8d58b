//! The yardstick: a bare relay of the plain protocol, on one thread with epoll or similar.
//!
//! It measures the minimum cost of relaying; results of servers are divided by its results. It is **not a server for
//! production**: it does not validate UTF-8 or JSON (it finds `type`, `key` and `index` by a byte scan), has no limits and
//! no timeouts, and queues without bound for slow consumers.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "the address goes to standard output, where the parent process reads it"
)]

mod conn;
mod relay;
mod scan;

use std::{io::Write, net::SocketAddr};

use clap::Parser;
use sigver_benches::{error::Error, limits};

/// Bare relay of the plain protocol, to compare servers with; not for production
#[derive(Debug, Parser)]
struct Options {
    /// Address to listen on; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

fn main() -> Result<(), Error> {
    let options = Options::parse();
    let _ = limits::raise_descriptor_limit();
    let mut relay = relay::Relay::bind(options.listen)?;
    println!("yardstick listening on {}", relay.local_addr()?);
    std::io::stdout().flush()?;
    relay.run()?;
    Ok(())
}
