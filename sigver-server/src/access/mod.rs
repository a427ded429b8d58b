//! Owns the question who may connect: what of a request is shown to those who decide, and what they may answer. Never decides:
//! [`Origins`](crate::Origins), [`Tokens`](crate::Tokens) and the embedder do.

pub(crate) mod client_ip;
pub(crate) mod origins;
pub(crate) mod per_ip;
pub(crate) mod tokens;

use std::{borrow::Cow, fmt, net::IpAddr};

use crate::http::headers::Headers;

/// Decides who may connect, by the request of the WebSocket handshake.
///
/// It is asked on the connection's own thread, so it may take its time, and look something up elsewhere: nobody else waits for it.
/// The client waits, and so does its place among [`Limits::connections`](sigver_core::Limits::connections). A panic ends that one
/// connection.
///
/// ```
/// use sigver_server::{Admission, Config, Denied, Handshake};
///
/// /// Takes clients at one path only.
/// #[derive(Debug)]
/// struct AtPath(&'static str);
///
/// impl Admission for AtPath {
///     fn admit(&self, handshake: &Handshake<'_>) -> Result<(), Denied> {
///         if handshake.path() == self.0 {
///             Ok(())
///         } else {
///             Err(Denied::new(404, "no signaling here"))
///         }
///     }
/// }
///
/// let mut config = Config::default();
/// config.admission.push(std::sync::Arc::new(AtPath("/signal")));
/// ```
pub trait Admission: fmt::Debug + Send + Sync {
    /// Decides about one handshake.
    ///
    /// # Errors
    ///
    /// The client is not admitted, and gets this answer.
    fn admit(&self, handshake: &Handshake<'_>) -> Result<(), Denied>;
}

/// The request of a legal WebSocket handshake (RFC 6455 section 4.1). `Debug` shows neither its query nor its headers, where secrets are.
pub struct Handshake<'a> {
    pub(crate) client: IpAddr,
    pub(crate) target: &'a str,
    pub(crate) headers: Headers<'a>,
}

impl<'a> Handshake<'a> {
    /// Where the client is: the other end of the connection, or what trusted proxies say
    /// ([`Config::trusted_proxies`](crate::Config::trusted_proxies)).
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// The path of the request, as it was sent.
    pub fn path(&self) -> &'a str {
        self.target.split_once('?').map_or(self.target, |(path, _)| path)
    }

    /// What follows the `?` of the request's target, as it was sent.
    pub fn query(&self) -> Option<&'a str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The values of every header of this name, whatever its case, in their order.
    pub fn headers(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.headers.all(name)
    }

    /// The subprotocols that the client offers, in its order.
    pub fn subprotocols(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.headers.subprotocols()
    }
}

impl fmt::Debug for Handshake<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("client", &self.client)
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

/// The answer to a client that is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {text}")]
pub struct Denied {
    status: u16,
    text: Cow<'static, str>,
}

impl Denied {
    /// An HTTP status from 400 to 599, and a line that says why. The client can read both, though a browser hides them from its page; the
    /// status is logged.
    ///
    /// Any other status would not end a handshake, and is sent as 403. With 401 goes a `WWW-Authenticate: Bearer`, with 429 and 503 a
    /// `Retry-After`.
    pub fn new(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: if (400..600).contains(&status) { status } else { 403 },
            text: text.into(),
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The line that says why.
    pub fn text(&self) -> &str {
        &self.text
    }
}
