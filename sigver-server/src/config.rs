//! Owns what can be configured about a server, with its defaults. Never reads a flag or the environment: the binary does.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use sigver_core::Limits;

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
/// config.limits.joiners_per_key = 4;
/// config.drain = Duration::from_secs(10);
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
    /// How many messages a client may send in a second, pings and pongs counted. Default: 1,000; [`u32::MAX`] for no limit.
    ///
    /// A second's worth may come at once. Beyond that the server does not read from the client for a while, which TCP tells it: it is
    /// slowed down, not closed, and nothing is lost.
    pub messages_per_second: u32,
    /// How many bytes a client may send in a second. Default: 4 MiB; [`u32::MAX`] for no limit. As
    /// [`messages_per_second`](Self::messages_per_second).
    pub bytes_per_second: u32,
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
    /// How often in a minute a source may ask for a key that it cannot have: join one that nobody has open, open one that is taken. Default:
    /// [`u32::MAX`], no limit.
    ///
    /// It stops the guessing of keys: beyond that, for the rest of the minute, every join from there looks like one of an unknown key,
    /// and every open like one of a taken key. 30 is a start, for keys that people type.
    pub guesses_per_ip: u32,
    /// Who may connect: everyone whom each of these admits. Default: empty, everyone.
    pub admission: Vec<Arc<dyn Admission>>,
    /// Proxies whose `X-Forwarded-For` is believed. Default: none.
    ///
    /// It is read from the right for as long as the proxies that wrote it are in these networks; the first address that is not is the
    /// client's.
    pub trusted_proxies: Vec<Network>,
    /// Over how long the closes of a [`Handle::shutdown`](crate::Handle::shutdown) are spread, so that the clients do not all come back in the
    /// same moment. Default: 5 seconds. Few connections need less: they are closed 10 milliseconds apart.
    pub drain: Duration,
    /// Addresses that serve `/metrics` in the form of OpenMetrics, to whoever can reach them. Default: none.
    pub admin: Vec<SocketAddr>,
    /// Files to serve to plain HTTP requests. Default: none. An upgrade request for the same path is a WebSocket all the same.
    pub pages: Vec<Page>,
}

impl Config {
    /// The most connections that a server of this configuration takes here and now: what the system can carry, or less if
    /// [`Limits::connections`] says so. Raises this process's soft limit on open files to the hard one.
    pub fn ceiling(&self) -> Ceiling {
        Ceiling::find(self.limits.connections)
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
            limits: Limits::default(),
            handshake_timeout: Duration::from_secs(5),
            head_bytes: 8 * 1024,
            backlog_bytes: 1024 * 1024,
            keep_alive: Duration::from_secs(25),
            close_timeout: Duration::from_secs(5),
            messages_per_second: 1_000,
            bytes_per_second: 4 * 1024 * 1024,
            connections_per_ip: u32::MAX,
            handshakes_per_ip: u32::MAX,
            guesses_per_ip: u32::MAX,
            admission: Vec::new(),
            trusted_proxies: Vec::new(),
            drain: Duration::from_secs(5),
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
