//! The sigver signaling server for WebRTC as a library: sockets and threads around [`sigver_core`].
//!
//! Each connection has a thread with a blocking WebSocket. All of them send events into one bounded channel to the relay thread, which owns the
//! [`Endpoint`](sigver_core::Endpoint). The relay writes without blocking. A flusher thread writes what the kernel does not accept at once.
//!
//! ```no_run
//! use sigver_server::{Config, Server};
//!
//! let mut config = Config::default();
//! config.listen = vec!["127.0.0.1:0".parse()?];
//! let server = Server::bind(config)?;
//! println!("listening on {}", server.local_addrs()[0]);
//! let handle = server.handle(); // handle.shutdown(), from any thread, ends run()
//! server.run()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - An [`Admission`] decides who may connect. [`Origins`], [`Tokens`] and `JwtKeys` (with the feature `jwt`) are some; [`AnyOf`] combines them.
//! - [`Config::events`] reports who connects, opens, joins and leaves. [`Handle`] lists and closes connections, kicks joiners and frees keys.
//! - [`Config::admin`] serves metrics on a port, and [`Handle::metrics`] returns them as text.
//! - [`Server::with_listeners`] serves on existing listeners.
//!
//! The library installs no signal handler, panic hook or logger. [`Server::bind`] and [`ConnectionLimit::of`] raise the soft limit on open files
//! of the process to the hard limit. With glibc, a server returns free memory of the process's heap to the system after a peak.
//!
//! Embed the server with `default-features = false`: the feature `cli` is for the binary `sigver-server` only. The feature `jwt` adds `JwtKeys`,
//! which admits clients by JSON Web Token.
//!
//! # Logging
//!
//! The library logs to the [`log`] facade: connections, their ends, rejections and their reasons, but no keys and no payloads. The crate
//! `tungstenite` logs payloads at `trace` and close texts of clients at `debug`: limit its target to `warn`, as the binary does.

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
mod events;
mod http;
mod ice;
mod lifecycle;
mod listen_addr;
mod memory;
mod overflow;
mod relay;
mod server;
mod sync;
mod sys;
mod tuning;
mod write;

#[cfg(test)]
extern crate self as sigver_server;

#[cfg(feature = "jwt")]
pub use access::jwt::{JwtKeys, JwtKeysError};
pub use access::{
    Admission, Denied, Handshake,
    any_of::AnyOf,
    client_ip::{Network, ParseNetworkError},
    origins::{Origin, Origins, ParseOriginError},
    permit::{Permission, Permit},
    tokens::{Tokens, TokensError},
};
pub use config::Config;
#[cfg(any(test, fuzzing))]
pub use conn::handshake::read_head;
pub use events::{ConnectionId, ConnectionInfo, ServerEvent};
pub use http::page::Page;
pub use ice::{IceProvider, IceUrl, IceUrls, ParseIceUrlError, TurnSecretError};
pub use listen_addr::{ListenAddr, ParseListenAddrError};
pub use memory::MemoryBound;
pub use server::{BindError, Handle, RunError, Server};
pub use sys::connection_limit::ConnectionLimit;
