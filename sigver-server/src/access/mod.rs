//! Who may connect: the [`Admission`] trait and what it decides by. [`Origins`](crate::Origins), [`Tokens`](crate::Tokens) and others
//! implement it.

pub(crate) mod admissions;
pub(crate) mod any_of;
pub(crate) mod bearer;
pub(crate) mod client_ip;
#[cfg(feature = "jwt")]
pub(crate) mod jwt;
pub(crate) mod origins;
pub(crate) mod per_ip;
pub(crate) mod permit;
pub(crate) mod tokens;

use std::{borrow::Cow, fmt, net::IpAddr};

use crate::{access::permit::Permit, http::headers::Headers};

/// Decides whether a client may connect, by the request of its WebSocket handshake, and what it may do.
///
/// It is called on the connection's own thread, so it may block, for example on a look-up in a database: no other client waits. After
/// [`Config::admission_timeout`](crate::Config::admission_timeout), the client gets HTTP 503, but it counts as a connection until the call
/// returns: use a time-out. A panic ends that connection only. [`Server::run`](crate::Server::run) does not wait for a call that blocks, so a
/// call may outlive the server.
///
/// ```
/// use sigver_server::{Admission, Config, Denied, Handshake, Permit};
///
/// /// Admits clients at one path only.
/// #[derive(Debug)]
/// struct AtPath(&'static str);
///
/// impl Admission for AtPath {
///     fn admit(&self, handshake: &Handshake<'_>) -> Result<Permit, Denied> {
///         if handshake.path() == self.0 {
///             Ok(Permit::default())
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
    /// Admits or denies a client.
    ///
    /// # Errors
    ///
    /// The HTTP response to a client that is denied.
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Permit, Denied>;
}

/// The request of a valid WebSocket handshake (RFC 6455 section 4.1). `Debug` shows neither query nor headers, because they may have secrets.
pub struct Handshake<'a> {
    pub(crate) client: IpAddr,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: Headers<'a>,
}

impl<'a> Handshake<'a> {
    /// Returns the address of the client, behind [trusted proxies](crate::Config::trusted_proxies).
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// Returns the path of the request as it was sent. If the target is a URL, its path: `/` if it has none.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// Returns the query of the request as it was sent, without the `?`.
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// Returns the values of every header with this name, in order. Case does not matter.
    pub fn headers(&self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.headers.all(name)
    }

    /// Returns the offered subprotocols, in order.
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

/// The HTTP response to a client that is denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {text}")]
pub struct Denied {
    status: u16,
    text: Cow<'static, str>,
    reason: Option<Cow<'static, str>>,
}

impl Denied {
    /// Creates a response from an HTTP status between 400 and 599 and a line that gives the reason. The status is logged. Browsers hide both
    /// from the page.
    ///
    /// Another status is sent as 403. A response with 401 has `WWW-Authenticate: Bearer`, one with 429 or 503 has `Retry-After`.
    pub fn new(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: if (400..600).contains(&status) { status } else { 403 },
            text: text.into(),
            reason: None,
        }
    }

    /// Adds a reason for the log, which is not sent to the client. It must not have secrets.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the line that gives the reason.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the reason for the log.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}
