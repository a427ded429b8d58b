//! Admission by origin. Only browsers send an origin.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use thiserror::Error;

use crate::access::{Admission, Denied, Handshake, permit::Permit};

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
    /// Exactly this origin, as [`normalize`] returns it.
    Exact(String),
    /// An origin that begins with the scheme and ends with a dot, the host and the port, with something in between.
    Subdomains { scheme: String, rest: String },
}

/// The error of parsing an [`Origin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseOriginError {
    /// The text has no `://`, or has a part that no origin has: a path, a user, white space.
    #[error("expected SCHEME://HOST, SCHEME://HOST:PORT or null, without a path, as in https://example.org")]
    Form,
    /// A `*` is not in the place of all subdomains.
    #[error("a * stands for all subdomains, as in https://*.example.org, and nowhere else")]
    Wildcard,
    /// The host has letters that are not ASCII. Browsers send the ASCII form.
    #[error("expected the ASCII form of the host, as in https://xn--bcher-kva.example")]
    International,
}

impl FromStr for Origin {
    type Err = ParseOriginError;

    /// Parses `https://example.org`, `http://localhost:3000`, `https://*.example.org` (every subdomain, but not `example.org` itself), or
    /// `null` (pages from sandboxed frames and, in most browsers, files).
    ///
    /// Letter case, white space around it, a default port and a slash at the end make no difference.
    fn from_str(text: &str) -> Result<Self, ParseOriginError> {
        let text = text.trim().to_ascii_lowercase();
        let Some((scheme, host)) = text.split_once("://*.") else {
            return match normalize(&text) {
                Some(origin) => Ok(Self(Pattern::Exact(origin))),
                None if text.contains('*') => Err(ParseOriginError::Wildcard),
                None if !text.is_ascii() => Err(ParseOriginError::International),
                None => Err(ParseOriginError::Form),
            };
        };
        if host.contains('*') || scheme.contains('*') {
            return Err(ParseOriginError::Wildcard);
        }
        let origin: Self = format!("{scheme}://{host}").parse()?;
        let Pattern::Exact(origin) = &origin.0 else {
            return Err(ParseOriginError::Wildcard);
        };
        match origin.split_once("://") {
            Some((scheme, host)) if !host.is_empty() && !host.starts_with('[') => Ok(Self(Pattern::Subdomains {
                scheme: format!("{scheme}://"),
                rest: format!(".{host}"),
            })),
            _ => Err(ParseOriginError::Form),
        }
    }
}

/// Returns the one form of an origin that is compared: lower case, no default port, IPv6 addresses in their shortest form, no slash at the
/// end. `None` if this is not an origin (RFC 6454, RFC 3986 section 3.2).
fn normalize(origin: &str) -> Option<String> {
    let origin = origin.to_ascii_lowercase();
    // Some web views send the latter for files.
    if ["null", "file://"].contains(&origin.as_str()) {
        return Some(origin);
    }
    let (scheme, authority) = origin.split_once("://")?;
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    // The colon of a port follows the brackets of an IPv6 address.
    let host_length = authority.find(']').map_or(0, |end| end + 1);
    let (host, port) = match authority[host_length..].find(':') {
        Some(colon) => (&authority[..host_length + colon], &authority[host_length + colon + 1..]),
        None => (authority, ""),
    };
    let host = match host.strip_prefix('[') {
        Some(address) => format!("[{}]", address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
        None => host.to_owned(),
    };
    let is_host = host.starts_with('[') || (!host.is_empty() && host.bytes().all(is_host_byte));
    if !is_scheme || !is_host || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let port = match port {
        "" => None,
        port => Some(port.parse::<u16>().ok()?),
    };
    Some(match (scheme, port) {
        (_, None) | ("http" | "ws", Some(80)) | ("https" | "wss", Some(443)) => format!("{scheme}://{host}"),
        (_, Some(port)) => format!("{scheme}://{host}:{port}"),
    })
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
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
    /// Whether this is the origin, or a wildcard that matches it. The origin is normalized.
    fn matches(&self, origin: &str) -> bool {
        match &self.0 {
            Pattern::Exact(text) => text == origin,
            Pattern::Subdomains { scheme, rest } => origin
                .strip_prefix(scheme.as_str())
                .and_then(|host| host.strip_suffix(rest.as_str()))
                .is_some_and(|subdomain| !subdomain.is_empty() && subdomain.bytes().all(is_host_byte)),
        }
    }
}

impl FromIterator<Origin> for Origins {
    fn from_iter<I: IntoIterator<Item = Origin>>(origins: I) -> Self {
        Self(origins.into_iter().collect())
    }
}

impl Admission for Origins {
    fn admit(&self, handshake: &Handshake<'_>) -> Result<Permit, Denied> {
        let mut named = handshake.headers("Origin");
        let is_admitted = match (named.next(), named.next()) {
            (None, _) => true,
            (Some(origin), None) => {
                let origin = std::str::from_utf8(origin.trim_ascii()).ok().and_then(normalize);
                origin.is_some_and(|origin| self.0.iter().any(|allowed| allowed.matches(&origin)))
            }
            (Some(_), Some(_)) => false,
        };
        if is_admitted {
            Ok(Permit::default())
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
            ("file://", "file://", true),
            ("https://example.org/", "https://example.org", true),
            (" https://example.org ", "https://EXAMPLE.org:443", true),
            ("https://example.org:0443", "https://example.org:", true),
            ("http://[::1]:3000", "http://[0:0::0001]:3000", true),
            ("https://XN--BCHER-KVA.example", "https://xn--bcher-kva.example", true),
            ("capacitor://localhost", "capacitor://localhost", true),
            ("chrome-extension://abc", "chrome-extension://abc", true),
            ("https://*.example.org:443/", "https://a.example.org", true),
            ("https://example.org:444", "https://example.org:443", false),
            ("https://example.org", "https://example.org.", false),
            ("https://example.org", "https://example.org/a", false),
            ("https://*.example.org", "https://evil.com/.example.org", false),
            ("https://*.example.org", "https://evil.com?.example.org", false),
            ("https://*.example.org", "https://evil.com#.example.org", false),
            ("https://*.example.org", "https://evil.com\\.example.org", false),
            ("https://*.example.org", "https://a@b.example.org", false),
            ("https://*.example.org", "https://evil.com:1.example.org", false),
            ("https://*.example.org", "https://[::1].example.org", false),
            ("https://*.example.org", "https://a b.example.org", false),
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
            let origin = normalize(origin);
            let is_matched = origin.as_deref().is_some_and(|origin| pattern.matches(origin));
            assert_eq!(is_matched, is_covered, "{allowed} and {origin:?}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_with_the_reason() {
        for text in [
            "",
            "example.org",
            "https://",
            "://a",
            "https://a//",
            "https://a/b",
            "https://a?",
            "https://a:65536",
            "https://a:b",
            "https://[::1",
            "https://[1.2.3.4]",
            "https://::1",
            "1a://b",
            "https://*.",
            "https://*.[::1]",
            "https://a b",
            "https://u@a",
            "a b://c",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(ParseOriginError::Form), "{text:?}");
        }
        for text in ["https://b\u{fc}cher.example", "https://*.b\u{fc}cher.example"] {
            assert_eq!(text.parse::<Origin>(), Err(ParseOriginError::International), "{text:?}");
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
