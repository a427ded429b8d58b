//! The configuration of a server, with defaults. The binary reads flags and the environment.

use std::{
    net::{Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use sigver_core::EndpointConfig;

use crate::{
    access::{Admission, client_ip::Network},
    http::{head::HeadLimits, page::Page},
};

/// What a [`Server`](crate::Server) is made from. Everything has a default; change what should be otherwise.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use sigver_server::{Config, ConnectionLimit, MemoryBound, Origin, Origins};
///
/// let mut config = Config::default();
/// config.listen = vec!["127.0.0.1:8000".parse()?];
/// config.trusted_proxies = vec!["127.0.0.1".parse()?];
/// config.endpoint.limits.joiners_per_key = 4;
/// config.endpoint.drain = Duration::from_secs(10);
/// let ours: Origin = "https://example.org".parse()?;
/// config.admission.push(Arc::new(Origins::from_iter([ours])));
/// let limit = ConnectionLimit::of(&config);
/// println!("up to {limit}; {}", MemoryBound::of(&config, limit.connections()));
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
    pub connections_per_ip: Option<NonZeroU32>,
    /// How many handshakes of one source may be unfinished. Default: [`u32::MAX`], no limit. One more gets HTTP 503.
    ///
    /// For clients that connect directly; a proxy's are its own affair. 20 is a start.
    pub handshakes_per_ip: Option<NonZeroU32>,
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
    /// The limits of a request head.
    pub(crate) fn head_limits(&self) -> HeadLimits {
        HeadLimits {
            bytes: self.head_bytes,
            timeout: self.handshake_timeout,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8000))],
            endpoint: EndpointConfig::default(),
            handshake_timeout: Duration::from_secs(5),
            head_bytes: 8 * 1024,
            connections_per_ip: None,
            handshakes_per_ip: None,
            admission: Vec::new(),
            trusted_proxies: Vec::new(),
            admin: Vec::new(),
            pages: Vec::new(),
        }
    }
}
