//! Admission by origin. Only browsers send an origin.

use std::{fmt, str::FromStr};

use thiserror::Error;

use crate::access::{Admission, Denied, Handshake};

/// Admits pages of these origins (RFC 6454), and all clients that send no origin.
///
/// Browsers send the origin of a page in the `Origin` header, and pages cannot change it. The list keeps other sites from using the server
/// through their visitors' browsers. Programs can send any origin or none: use [`Tokens`](crate::Tokens) against them. A page of another
/// origin gets HTTP 403.
///
/// ```
/// let origins = ["https://example.org", "https://*.example.org"].map(|text| text.parse());
/// let origins = origins.into_iter().collect::<Result<sigver_server::Origins, _>>()?;
/// # Ok::<(), sigver_server::ParseOriginError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<Origin>);

/// An origin, or all subdomains of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(Pattern);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    /// Exactly this text.
    Exact(String),
    /// An origin that begins with the scheme and ends with a dot, the host and the port, with something in between.
    Subdomains { scheme: String, rest: String },
}

/// The error of parsing an [`Origin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseOriginError {
    /// The text has no `://`, or has a part that no origin has: a path, a user, white space.
    #[error("an origin is SCHEME://HOST or SCHEME://HOST:PORT, without a path, or null")]
    Form,
    /// A `*` is not in the place of all subdomains.
    #[error("a * stands for all subdomains, as in https://*.example.org, and nowhere else")]
    Wildcard,
}

impl FromStr for Origin {
    type Err = ParseOriginError;

    /// Parses `https://example.org`, `http://localhost:3000`, `https://*.example.org` (every subdomain, but not `example.org` itself), or
    /// `null` (pages from files and sandboxed frames).
    fn from_str(text: &str) -> Result<Self, ParseOriginError> {
        let text = text.to_ascii_lowercase();
        if text == "null" {
            return Ok(Self(Pattern::Exact(text)));
        }
        let (scheme, authority) = text.split_once("://").ok_or(ParseOriginError::Form)?;
        // Browsers omit the default port.
        let authority = match (scheme, authority.rsplit_once(':')) {
            ("http", Some((host, "80"))) | ("https", Some((host, "443"))) => host,
            _ => authority,
        };
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        let (is_wild, host) = match authority.strip_prefix("*.") {
            Some(host) => (true, host),
            None => (false, authority),
        };
        if host.contains('*') || scheme.contains('*') {
            return Err(ParseOriginError::Wildcard);
        }
        if scheme.is_empty() || !scheme.bytes().all(is_scheme) || host.is_empty() || !host.bytes().all(is_host) {
            return Err(ParseOriginError::Form);
        }
        Ok(Self(if is_wild {
            Pattern::Subdomains {
                scheme: format!("{scheme}://"),
                rest: format!(".{host}"),
            }
        } else {
            Pattern::Exact(format!("{scheme}://{authority}"))
        }))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Pattern::Exact(text) => f.write_str(text),
            Pattern::Subdomains { scheme, rest } => write!(f, "{scheme}*{rest}"),
        }
    }
}

impl Origin {
    /// Whether this is the origin, or a wildcard that matches it.
    fn matches(&self, origin: &str) -> bool {
        match &self.0 {
            Pattern::Exact(text) => text == origin,
            Pattern::Subdomains { scheme, rest } => origin
                .strip_prefix(scheme.as_str())
                .and_then(|host| host.strip_suffix(rest.as_str()))
                .is_some_and(|subdomain| !subdomain.is_empty()),
        }
    }
}

impl FromIterator<Origin> for Origins {
    fn from_iter<I: IntoIterator<Item = Origin>>(origins: I) -> Self {
        Self(origins.into_iter().collect())
    }
}

impl Admission for Origins {
    fn admit(&self, handshake: &Handshake<'_>) -> Result<(), Denied> {
        let mut named = handshake.headers("Origin");
        let is_admitted = match (named.next(), named.next()) {
            (None, _) => true,
            (Some(origin), None) => {
                let origin = String::from_utf8_lossy(origin.trim_ascii()).to_ascii_lowercase();
                self.0.iter().any(|allowed| allowed.matches(&origin))
            }
            (Some(_), Some(_)) => false,
        };
        if is_admitted {
            Ok(())
        } else {
            Err(Denied::new(403, "pages of this origin may not connect"))
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_origin_covers_itself_and_a_wildcard_its_subdomains() {
        for (allowed, origin, is_covered) in [
            ("https://example.org", "https://example.org", true),
            ("HTTPS://Example.ORG", "https://example.org", true),
            ("https://example.org:443", "https://example.org", true),
            ("http://localhost:3000", "http://localhost:3000", true),
            ("http://[::1]:80", "http://[::1]", true),
            ("null", "null", true),
            ("https://*.example.org", "https://a.example.org", true),
            ("https://*.example.org", "https://a.b.example.org", true),
            ("https://*.example.org:8443", "https://a.example.org:8443", true),
            ("https://example.org", "http://example.org", false),
            ("https://example.org", "https://example.org:8443", false),
            ("https://example.org", "https://example.org.evil.net", false),
            ("https://example.org", "https://evil-example.org", false),
            ("https://example.org", "null", false),
            ("https://*.example.org", "https://example.org", false),
            ("https://*.example.org", "https://.example.org", false),
            ("https://*.example.org", "https://evilexample.org", false),
            ("https://*.example.org", "http://a.example.org", false),
            ("https://*.example.org", "https://a.example.org:8443", false),
            ("https://*.example.org", "https://a.example.org.evil.net", false),
        ] {
            let pattern: Origin = allowed.parse().expect("an origin");
            assert_eq!(pattern.matches(origin), is_covered, "{allowed} and {origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_with_the_reason() {
        for text in [
            "",
            "example.org",
            "https://",
            "://a",
            "https://a/",
            "https://a b",
            "https://u@a",
            "a b://c",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(ParseOriginError::Form), "{text:?}");
        }
        for text in ["https://*", "*://a", "https://a.*", "https://*a.b", "https://*.*.a"] {
            assert_eq!(text.parse::<Origin>(), Err(ParseOriginError::Wildcard), "{text:?}");
        }
    }

    #[test]
    fn an_origin_is_shown_as_it_is_read() -> Result<(), ParseOriginError> {
        for text in ["https://example.org", "https://*.example.org:8443", "null"] {
            assert_eq!(text.parse::<Origin>()?.to_string(), text);
        }
        Ok(())
    }
}
