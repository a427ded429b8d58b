//! The address that a connection comes from.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::access::client_ip;

/// The address that a connection comes from: that of the client, or of the proxy in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerAddr {
    /// An IPv4-mapped IPv6 address is stored as IPv4.
    Tcp(SocketAddr),
    Unix,
}

impl PeerAddr {
    pub(crate) fn tcp(addr: SocketAddr) -> Self {
        Self::Tcp(client_ip::canonical(addr))
    }

    /// Returns the IP address. That of a Unix socket is `127.0.0.1`: its other end is on this machine.
    pub(crate) fn ip(&self) -> IpAddr {
        match self {
            Self::Tcp(addr) => addr.ip(),
            Self::Unix => Ipv4Addr::LOCALHOST.into(),
        }
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix => f.write_str("unix socket"),
        }
    }
}
