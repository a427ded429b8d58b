//! The STUN and TURN servers that clients get, and their credentials.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sigver_core::{IceServer, IceServers};
use thiserror::Error;

use crate::sys::random;

/// Hands out ICE servers. [`IceUrls`] implements it; an embedder can hand out those of a hosted TURN service.
///
/// It is called on the thread that relays all messages, once for each side of each pairing of `sigver.v1`. It must not block: fetch
/// credentials on a thread of your own, and return them here.
///
/// ```
/// use sigver_core::{IceServer, IceServers};
/// use sigver_server::{Config, IceProvider};
///
/// #[derive(Debug)]
/// struct Stun;
///
/// impl IceProvider for Stun {
///     fn ice_servers(&self) -> Option<IceServers> {
///         let urls = vec!["stun:stun.example.org".to_owned()];
///         let server = IceServer { urls, username: None, credential: None };
///         Some(IceServers { servers: vec![server], ttl: None })
///     }
/// }
///
/// let mut config = Config::default();
/// config.ice = Some(std::sync::Arc::new(Stun));
/// ```
pub trait IceProvider: fmt::Debug + Send + Sync {
    /// Returns the servers for one side of one pairing; `None` for none. Keep them below 2 KiB of JSON: the write buffers and the memory bound
    /// assume it.
    fn ice_servers(&self) -> Option<IceServers>;
}

/// STUN and TURN servers by URL. The credentials for TURN are made from a secret that the TURN servers have as well: the convention "TURN REST
/// API", which coturn calls `use-auth-secret`.
///
/// The user name is the time at which the credentials expire, in seconds since 1970, and 64 random bits. The password is the HMAC-SHA1 of the
/// user name with the secret, in base64.
///
/// ```no_run
/// use std::{sync::Arc, time::Duration};
/// use sigver_server::{Config, IceUrls};
///
/// let urls = IceUrls::new(vec!["stun:turn.example.org".parse()?])
///     .with_turn(vec!["turn:turn.example.org".parse()?], "/etc/sigver/turn-secret", Duration::from_secs(86_400))?;
/// let mut config = Config::default();
/// config.ice = Some(Arc::new(urls));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct IceUrls {
    without_credentials: Vec<IceUrl>,
    turn: Option<Turn>,
}

#[derive(Debug)]
struct Turn {
    urls: Vec<IceUrl>,
    path: PathBuf,
    secret: RwLock<Secret>,
    ttl: Duration,
}

/// Not shown.
struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The error of reading the secret that sigver shares with TURN servers.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TurnSecretError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file is empty.
    #[error("{path} has no secret")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl IceUrls {
    /// Creates a provider of servers that need no credentials.
    pub fn new(urls: Vec<IceUrl>) -> Self {
        Self {
            without_credentials: urls,
            turn: None,
        }
    }

    /// Adds servers whose credentials are valid for `ttl`, in whole seconds, and made from the secret in a file. One newline at its end is not
    /// part of the secret.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is empty.
    pub fn with_turn(
        mut self,
        urls: Vec<IceUrl>,
        secret_file: impl Into<PathBuf>,
        ttl: Duration,
    ) -> Result<Self, TurnSecretError> {
        let path = secret_file.into();
        let secret = RwLock::new(read(&path)?);
        self.turn = Some(Turn {
            urls,
            path,
            secret,
            ttl,
        });
        Ok(self)
    }

    /// Reads the secret again. Credentials of the previous one stay valid for as long as the TURN servers accept it.
    ///
    /// # Errors
    ///
    /// Those of [`with_turn`](Self::with_turn). The secret then stays as it was.
    pub fn reload(&self) -> Result<(), TurnSecretError> {
        if let Some(turn) = &self.turn {
            let secret = read(&turn.path)?;
            *turn.secret.write().unwrap_or_else(PoisonError::into_inner) = secret;
        }
        Ok(())
    }
}

impl IceProvider for IceUrls {
    fn ice_servers(&self) -> Option<IceServers> {
        let mut servers = Vec::new();
        if !self.without_credentials.is_empty() {
            servers.push(server(&self.without_credentials, None));
        }
        let mut ttl = None;
        // Without randomness, clients get the other servers.
        if let Some((turn, random)) = self.turn.as_ref().zip(random::u128()) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let expiry = now.as_secs().saturating_add(turn.ttl.as_secs());
            let secret = turn.secret.read().unwrap_or_else(PoisonError::into_inner);
            servers.push(server(&turn.urls, Some(credentials(&secret.0, expiry, random as u64))));
            ttl = Some(turn.ttl);
        }
        (!servers.is_empty()).then_some(IceServers { servers, ttl })
    }
}

fn server(urls: &[IceUrl], credentials: Option<(String, String)>) -> IceServer {
    let (username, credential) = credentials.unzip();
    IceServer {
        urls: urls.iter().map(|IceUrl(url)| url.clone()).collect(),
        username,
        credential,
    }
}

/// Returns the user name and the password that are valid until `expiry`, in seconds since 1970.
fn credentials(secret: &[u8], expiry: u64, random: u64) -> (String, String) {
    let username = format!("{expiry}:{random:016x}");
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret) else {
        return (username, String::new());
    };
    mac.update(username.as_bytes());
    let credential = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    (username, credential)
}

fn read(path: &Path) -> Result<Secret, TurnSecretError> {
    let mut secret = fs::read(path).map_err(|source| TurnSecretError::Read {
        path: path.to_owned(),
        source,
    })?;
    if secret.pop_if(|end| *end == b'\n').is_some() {
        secret.pop_if(|end| *end == b'\r');
    }
    if secret.is_empty() {
        return Err(TurnSecretError::Empty { path: path.to_owned() });
    }
    Ok(Secret(secret))
}

/// The URL of a STUN or TURN server: `stun:HOST`, `stuns:`, `turn:` or `turns:`, with an optional port and, for TURN, `?transport=udp` or
/// `?transport=tcp` (RFC 7064, RFC 7065).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IceUrl(String);

/// The error of parsing an [`IceUrl`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "expected the URL of a STUN or TURN server, as in stun:stun.example.org or turn:turn.example.org:3478?transport=udp"
)]
pub struct ParseIceUrlError;

impl IceUrl {
    /// Whether it is that of a TURN server, which needs credentials.
    pub fn is_turn(&self) -> bool {
        self.0.starts_with("turn")
    }
}

impl fmt::Display for IceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for IceUrl {
    type Err = ParseIceUrlError;

    fn from_str(text: &str) -> Result<Self, ParseIceUrlError> {
        let (scheme, rest) = text.split_once(':').ok_or(ParseIceUrlError)?;
        let (authority, query) = match rest.split_once('?') {
            Some((authority, query)) => (authority, Some(query)),
            None => (rest, None),
        };
        let query_is_valid = match scheme {
            "stun" | "stuns" => query.is_none(),
            "turn" | "turns" => matches!(query, None | Some("transport=udp" | "transport=tcp")),
            _ => false,
        };
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, after)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                (address, after.strip_prefix(':'))
            }
            Some(_) => return Err(ParseIceUrlError),
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let is_in_brackets = authority.starts_with('[');
        let ends_well = !is_in_brackets || port.is_some() || authority.ends_with(']');
        let is_host = |host: &str| {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        let port_is_valid = port.is_none_or(|port| {
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if query_is_valid && ends_well && port_is_valid && (is_in_brackets || is_host(host)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIceUrlError)
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Computed with `printf %s 1796083200:0123456789abcdef | openssl dgst -sha1 -hmac SECRET -binary | base64`.
    #[test]
    fn credentials_are_those_of_the_convention() {
        let (username, credential) = credentials(b"north star", 1_796_083_200, 0x0123_4567_89ab_cdef);
        assert_eq!(username, "1796083200:0123456789abcdef");
        assert_eq!(credential, "tDHOTVDp5lhOsjXNo6J1sBVdgR8=");
    }

    #[test]
    fn url_is_of_a_stun_or_turn_server() {
        for url in [
            "stun:a",
            "stuns:a.example.org:5349",
            "turn:192.0.2.1",
            "turn:a:3478?transport=udp",
            "turns:a:443?transport=tcp",
            "turn:[2001:db8::1]:3478",
            "stun:[::1]",
        ] {
            assert_eq!(url.parse(), Ok(IceUrl(url.to_owned())));
        }
        for text in [
            "",
            "stun",
            "stun:",
            "stun://a",
            "http:a",
            "STUN:a",
            "stun:a:0",
            "stun:a:65536",
            "stun:a:x",
            "stun:a:+1",
            "stun:a?transport=udp",
            "turn:a?transport=sctp",
            "turn:a b",
            "turn:[::1",
            "turn:[a]:1",
            "turn:[::1]x",
            "turn:::1",
            "turn:user@a",
            "turn:a\"",
        ] {
            assert_eq!(text.parse::<IceUrl>(), Err(ParseIceUrlError), "{text}");
        }
    }
}
