//! Where a server listens.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use thiserror::Error;

/// What precedes the path of a Unix socket.
const UNIX: &str = "unix:";

/// An address to listen on: a TCP address, or the path of a Unix socket. As text: `127.0.0.1:8000`, `[::]:8000` or `unix:/run/sigver.sock`.
///
/// A Unix socket is for a reverse proxy on the same machine. The permissions of its file decide who may connect
/// ([`Config::socket_mode`](crate::Config::socket_mode)). Its clients have the address `127.0.0.1`, so a
/// [trusted proxy](crate::Config::trusted_proxies) of this address is one on either kind of socket.
///
/// ```
/// use sigver_server::ListenAddr;
///
/// let addrs: [ListenAddr; 2] = ["[::]:8000".parse()?, "unix:/run/sigver.sock".parse()?];
/// assert!(addrs[0].tcp().is_some());
/// assert_eq!(addrs[1].to_string(), "unix:/run/sigver.sock");
/// # Ok::<(), sigver_server::ParseListenAddrError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ListenAddr {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// The text is not an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected IP:PORT, as in 127.0.0.1:8000 or [::]:8000, or unix:PATH")]
pub struct ParseListenAddrError(());

impl ListenAddr {
    /// Returns the TCP address, if it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(addr) => Some(*addr),
            Self::Unix(_) => None,
        }
    }

    /// Parses `unix:PATH`. `None` if it is something else.
    pub(crate) fn parse_unix(text: &str) -> Option<Self> {
        let path = text.strip_prefix(UNIX).filter(|path| !path.is_empty())?;
        Some(Self::Unix(Path::new(path).into()))
    }
}

impl FromStr for ListenAddr {
    type Err = ParseListenAddrError;

    fn from_str(text: &str) -> Result<Self, ParseListenAddrError> {
        let tcp = || text.parse().ok().map(Self::Tcp);
        Self::parse_unix(text).or_else(tcp).ok_or(ParseListenAddrError(()))
    }
}

impl From<SocketAddr> for ListenAddr {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr)
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// As text.
impl fmt::Debug for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn address_is_ip_and_port_or_path() {
        for text in ["127.0.0.1:8000", "[::1]:0", "unix:/run/sigver.sock", "unix:relative"] {
            assert_eq!(
                text.parse::<ListenAddr>().map(|addr| addr.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in ["", "unix:", "8000", "localhost:8000", "/run/sigver.sock", "Unix:/run/a"] {
            assert!(text.parse::<ListenAddr>().is_err(), "{text:?}");
        }
    }
}
