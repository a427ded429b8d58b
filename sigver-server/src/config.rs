//! Owns what can be configured about a server, with its defaults. Never reads a flag or the environment: the binary does.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use sigver_core::EndpointConfig;

use crate::{Admission, Ceiling, MemoryBound, Network};

/// What a [`Server`](crate::Server) is made from. Everything has a default; change what should be otherwise.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use sigver_server::{Config, Origin, Origins};
///
/// let mut config = Config::default();
/// config.listen = vec!["127.0.0.1:8000".parse()?];
/// config.trusted_proxies = vec!["127.0.0.1".parse()?];
/// config.endpoint.limits.joiners_per_key = 4;
/// config.endpoint.drain = Duration::from_secs(10);
/// let ours: Origin = "https://example.org".parse()?;
/// config.admission.push(Arc::new(Origins::from_iter([ours])));
/// println!("up to {}; {}", config.ceiling(), config.memory_bound());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The addresses to listen on; port 0 takes any free port. Default: `[::]:8000`.
    ///
    /// The unspecified IPv6 address means every interface, IPv6 and IPv4; where there is no IPv6, IPv4 alone.
    pub listen: Vec<SocketAddr>,
    /// What the core decides: limits of messages, keys and connections, keep-alive, rate limits, write buffers, close time-out, draining.
    ///
    /// Its [`connections`](sigver_core::Limits::connections) is lowered to what the system can carry, because a connection is a thread.
    pub endpoint: EndpointConfig,
    /// How long a client may take to send its whole request head. Default: 5 seconds. Later: HTTP 408.
    pub handshake_timeout: Duration,
    /// The longest request head, in bytes. Default: 8,192. Longer: HTTP 431.
    pub head_bytes: u32,
    /// How many connections a source may have: an IPv4 address, or an IPv6 network of 64 bits. Default: [`u32::MAX`], no limit. One more
    /// gets HTTP 503.
    ///
    /// Behind a proxy everyone comes from its address, unless it is one of [`trusted_proxies`](Self::trusted_proxies); behind the address
    /// translation of an office or a mobile network many do. 100 is a start.
    pub connections_per_ip: u32,
    /// How many handshakes of one source may be unfinished. Default: [`u32::MAX`], no limit. One more gets HTTP 503.
    ///
    /// For clients that connect directly; a proxy's are its own affair. 20 is a start.
    pub handshakes_per_ip: u32,
    /// Who may connect: everyone whom each of these admits. Default: empty, everyone.
    pub admission: Vec<Arc<dyn Admission>>,
    /// Proxies whose `X-Forwarded-For` is believed. Default: none.
    ///
    /// It is read from the right for as long as the proxies that wrote it are in these networks; the first address that is not is the
    /// client's.
    pub trusted_proxies: Vec<Network>,
    /// Addresses that serve `/metrics` in the form of OpenMetrics, to whoever can reach them. Default: none.
    pub admin: Vec<SocketAddr>,
    /// Files to serve to plain HTTP requests. Default: none. An upgrade request for the same path is a WebSocket all the same.
    pub pages: Vec<Page>,
}

impl Config {
    /// The most connections that a server of this configuration takes here and now: what the system can carry, or less if
    /// [`Limits::connections`](sigver_core::Limits::connections) says so. Raises this process's soft limit on open files to the hard one.
    pub fn ceiling(&self) -> Ceiling {
        Ceiling::find(self.endpoint.limits.connections)
    }

    /// The most memory that it takes, with as many connections.
    pub fn memory_bound(&self) -> MemoryBound {
        MemoryBound::of(self, self.ceiling().connections())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8000))],
            endpoint: EndpointConfig::default(),
            handshake_timeout: Duration::from_secs(5),
            head_bytes: 8 * 1024,
            connections_per_ip: u32::MAX,
            handshakes_per_ip: u32::MAX,
            admission: Vec::new(),
            trusted_proxies: Vec::new(),
            admin: Vec::new(),
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
