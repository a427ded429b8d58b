//! The yardstick: what relaying the plain protocol costs when nothing else is done.
//!
//! A bare relay on one thread over epoll (or the system's like). It is the measure that the server's figures are
//! divided by, **not a product**: it does not check UTF-8 or JSON (it finds `type`, `key` and `index` by a scan for
//! their bytes), has no limits and no time-outs, and keeps for a slow reader whatever a fast sender sends. Never give
//! it to anyone as a server.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    reason = "the address goes to standard output: whoever started the program waits for it"
)]

mod conn;
mod relay;
mod scan;

use std::{io::Write, net::SocketAddr};

use clap::Parser;
use sigver_benches::{error::Error, limits};

/// A bare relay of the plain protocol, to compare servers with. Not a product.
#[derive(Debug, Parser)]
struct Options {
    /// The address to listen on; with port 0 the system chooses one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

fn main() -> Result<(), Error> {
    let options = Options::parse();
    let _ = limits::raise_descriptors();
    let mut relay = relay::Relay::bind(options.listen)?;
    println!("yardstick listening on {}", relay.local_addr()?);
    std::io::stdout().flush()?;
    relay.run()?;
    Ok(())
}
