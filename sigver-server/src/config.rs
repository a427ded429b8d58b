//! The configuration of a server, with defaults. The binary reads flags and the environment.

use std::{
    net::{Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    sync::{Arc, mpsc::SyncSender},
    time::Duration,
};

use sigver_core::EndpointConfig;

use crate::{
    access::{Admission, client_ip::Network},
    events::ServerEvent,
    http::{head::HeadLimits, page::Page},
    ice::IceProvider,
    listen_addr::ListenAddr,
};

/// The configuration of a [`Server`](crate::Server). Every field has a default.
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
    /// The addresses to listen on; port 0 is any free port. Default: `[::]:8000`.
    ///
    /// The unspecified IPv6 address accepts IPv6 and IPv4 on every interface; on a system without IPv6, IPv4 only. The file of a Unix socket
    /// must not exist, unless it is a socket on which nobody listens. The server removes it at the end.
    pub listen: Vec<ListenAddr>,
    /// The permissions of the files of Unix sockets to [listen](Self::listen) on. Default: `0o660`, for the user and the group of the server.
    pub socket_mode: u32,
    /// The configuration of the core: limits of messages, keys and connections, keep-alive, rate limits, write buffers, close time-out,
    /// draining.
    ///
    /// [`connections`](sigver_core::Limits::connections) is lowered to what the system can carry ([`ConnectionLimit`](crate::ConnectionLimit)).
    /// [`backlog_total_bytes`](EndpointConfig::backlog_total_bytes) is by default a quarter of the memory of the machine or of the control
    /// group, whichever is less, or 1 GiB on systems without `/proc`. [`Server::bind`](crate::Server::bind) determines it. For no limit, use
    /// [`NonZeroU64::MAX`](std::num::NonZeroU64::MAX).
    pub endpoint: EndpointConfig,
    /// The time within which a client must send its request head. Default: 5 seconds. After it: HTTP 408.
    pub handshake_timeout: Duration,
    /// How long [`Handle::shutdown`](crate::Handle::shutdown) waits before it closes connections. Default: 0.
    ///
    /// Meanwhile everything is served, and `/ready` responds with 503, so that load balancers stop sending clients.
    pub pre_stop_delay: Duration,
    /// The largest request head, in bytes. Default: 16,384. A larger one: HTTP 431.
    pub head_bytes: u32,
    /// The most connections of one source: an IPv4 address, or an IPv6 network of 64 bits. Default: `None`, no limit. One over the limit
    /// gets HTTP 503.
    ///
    /// All clients behind a proxy have the proxy's address, unless it is one of [`trusted_proxies`](Self::trusted_proxies). Clients behind the
    /// NAT of an office or a mobile network share an address as well. 100 is a start.
    pub connections_per_ip: Option<NonZeroU32>,
    /// The most unfinished handshakes of one source. Default: `None`, no limit. One over the limit gets HTTP 503.
    ///
    /// Applies to clients that connect directly, not to trusted proxies. 20 is a start.
    pub handshakes_per_ip: Option<NonZeroU32>,
    /// Decides who may connect: a client must be admitted by all of these. Default: empty, which admits all clients.
    pub admission: Vec<Arc<dyn Admission>>,
    /// How long the [admissions](Self::admission) of one client may take together. Default: 10 seconds. After it: HTTP 503.
    pub admission_timeout: Duration,
    /// The STUN and TURN servers that clients of `sigver.v1` get when they are paired. Default: `None`.
    pub ice: Option<Arc<dyn IceProvider>>,
    /// The channel for what happens on the server. Default: `None`.
    ///
    /// The server never waits for the receiver. An event for which the channel has no room is lost: the receiver gets
    /// [`ServerEvent::Lost`] in its place as soon as there is room, and the metric `sigver_events_lost_total` counts it. Events that are lost while the server ends may not be reported. If the receiver is
    /// dropped, the server reports nothing more. The server drops its sender when [`Server::run`](crate::Server::run) returns, so that a loop over the
    /// receiver ends.
    ///
    /// ```
    /// use std::{sync::mpsc::sync_channel, thread};
    /// use sigver_server::{Config, Server, ServerEvent};
    ///
    /// let (sender, events) = sync_channel(1_000);
    /// let mut config = Config::default();
    /// config.listen = vec!["127.0.0.1:0".parse()?];
    /// config.events = Some(sender);
    /// let server = Server::bind(config)?;
    /// let handle = server.handle();
    /// thread::spawn(move || {
    ///     for event in events {
    ///         match event {
    ///             ServerEvent::Opened { connection, key } if key.as_str() == "forbidden" => drop(handle.close(connection)),
    ///             ServerEvent::Lost(n) => eprintln!("missed {n} events"),
    ///             _ => {}
    ///         }
    ///     }
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub events: Option<SyncSender<ServerEvent>>,
    /// The proxies whose `X-Forwarded-For` is trusted. Default: none.
    ///
    /// The header is read from the right while the address that wrote an entry is in these networks. The first other address is the
    /// client's.
    pub trusted_proxies: Vec<Network>,
    /// Addresses that serve `/metrics` in the OpenMetrics format, without access control. Default: none.
    pub admin: Vec<SocketAddr>,
    /// Files to serve over plain HTTP. Default: none. A WebSocket handshake for the path of a page is still accepted.
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
            listen: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8000)).into()],
            socket_mode: 0o660,
            endpoint: EndpointConfig::default(),
            handshake_timeout: Duration::from_secs(5),
            pre_stop_delay: Duration::ZERO,
            head_bytes: 16 * 1024,
            connections_per_ip: None,
            handshakes_per_ip: None,
            admission: Vec::new(),
            admission_timeout: Duration::from_secs(10),
            ice: None,
            events: None,
            trusted_proxies: Vec::new(),
            admin: Vec::new(),
            pages: Vec::new(),
        }
    }
}
