//! The sigver signaling server as a library: sockets and threads around [`sigver_core`].
//!
//! Blocking WebSockets, one OS thread for each connection, all feeding one bounded channel into the one thread that owns the
//! [`Hub`](sigver_core::Hub). That thread waits for no socket: it writes without blocking, and what the kernel does not take is
//! left to one flusher thread. No signal handler, panic hook or logger is installed here; the one thing that the rest of a process
//! notices is that [`Server::bind`] raises its soft limit on open files to the hard one.
//!
//! ```no_run
//! use sigver_server::{Config, Server};
//!
//! let mut config = Config::default();
//! config.listen = vec!["127.0.0.1:0".parse()?];
//! let server = Server::bind(config)?;
//! println!("listening on {}", server.local_addr());
//! let handle = server.handle(); // handle.shutdown(), from any thread, ends run()
//! server.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Who may connect is decided by an [`Admission`], of which [`Origins`] and [`Tokens`] are two; [`Config::admin`] serves metrics;
//! [`Server::with_listeners`] serves where somebody else listens. The feature `cli`, on by default, is the binary `sigver-server`
//! and its dependencies: embed the server with `default-features = false`.
//!
//! What it logs goes to the [`log`] facade: who came, left, was refused and why; never a key or a payload. The `tungstenite` crate
//! logs payloads at `trace` and clients' close texts at `debug`: keep its targets at `warn`, as the `sigver-server` binary does.

#![deny(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod accept;
mod access;
mod admin;
mod config;
mod conn;
mod counters;
mod http;
mod lifecycle;
mod memory;
mod relay;
mod server;
mod sync;
mod sys;
mod tuning;
mod write;

#[cfg(test)]
extern crate self as sigver_server;

pub use access::{
    Admission, Denied, Handshake,
    client_ip::{Network, ParseNetworkError},
    origins::{Origin, Origins, ParseOriginError},
    tokens::{Tokens, TokensError},
};
pub use config::Config;
#[cfg(any(test, fuzzing))]
pub use conn::handshake::read_head;
pub use http::page::Page;
pub use memory::MemoryBound;
pub use server::{BindError, Handle, RunError, Server};
pub use sys::connection_limit::ConnectionLimit;
