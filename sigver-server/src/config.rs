//! Owns what can be configured about a server, with its defaults. Never reads a flag or the environment: the binary does.

use std::{
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use sigver_core::Limits;

/// What a [`Server`](crate::Server) is made from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The addresses to listen on; port 0 takes any free port. Default: `[::]:8000`.
    ///
    /// The unspecified IPv6 address means every interface, IPv6 and IPv4; where there is no IPv6, IPv4 alone.
    pub listen: Vec<SocketAddr>,
    /// The limits of the core: message size, key size, nesting, joiners, role deadline.
    ///
    /// Its [`connections`](Limits::connections) is lowered to what the system can carry, since a connection is a thread.
    pub limits: Limits,
    /// How long a client may take to send its whole request head. Default: 5 seconds. Later: HTTP 408.
    pub handshake_timeout: Duration,
    /// The longest request head, in bytes. Default: 8,192. Longer: HTTP 431.
    pub head_bytes: u32,
    /// How many bytes wait in memory for a client that does not read. Default: 1 MiB, and what the kernel buffers (256 KiB).
    ///
    /// A client that lets more pile up is closed with 1013 [`TooSlow`](sigver_core::CloseReason::TooSlow).
    pub backlog_bytes: u32,
    /// How often a client is pinged. Default: 25 seconds. One that is due for a ping and has let two pass without a whole frame,
    /// pongs included, is closed with 1008 [`Silent`](sigver_core::CloseReason::Silent).
    pub keep_alive: Duration,
    /// How long a client that was sent a close frame may take to close its side, before the socket is cut. Default: 5 seconds.
    pub close_timeout: Duration,
    /// Files to serve to plain HTTP requests. Default: none. An upgrade request for the same path is a WebSocket all the same.
    pub pages: Vec<Page>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8000))],
            limits: Limits::default(),
            handshake_timeout: Duration::from_secs(5),
            head_bytes: 8 * 1024,
            backlog_bytes: 1024 * 1024,
            keep_alive: Duration::from_secs(25),
            close_timeout: Duration::from_secs(5),
            pages: Vec::new(),
        }
    }
}

/// A file that is served over plain HTTP, from memory.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// The path of its URL, such as `/`.
    pub path: &'static str,
    /// Its media type, such as `text/html; charset=utf-8`.
    pub content_type: &'static str,
    /// Its content.
    pub body: &'static str,
}
