//! The WebSocket handshake (RFC 6455 section 4.2) and the HTTP responses that reject other requests, for the examples without an HTTP library.

use httparse::{EMPTY_HEADER, Header, Status};
use sigver_core::Dialect;
use tungstenite::handshake::derive_accept_key;

/// The first bytes from a client.
pub(crate) enum Head {
    /// The beginning of a request head.
    Partial,
    /// A valid handshake in the first `length` bytes, and the response that accepts it.
    Upgrade {
        length: usize,
        dialect: Dialect,
        response: Vec<u8>,
    },
    /// Anything else.
    Refused(Refusal),
}

/// An HTTP response that rejects a request. The connection is closed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    BadRequest,
    BadMethod,
    TooSlow,
    NoUpgrade,
    WrongVersion,
    TooLarge,
    Unavailable,
    HttpVersion,
}

/// The longest request head.
const HEAD_BYTES: usize = 8 * 1024;

/// The most headers of a request. Browsers and proxies together send about 30.
const MAX_HEADERS: usize = 64;

impl Refusal {
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let (status, headers) = match self {
            Self::BadRequest => ("400 Bad Request", "Connection: close\r\n"),
            Self::BadMethod => ("405 Method Not Allowed", "Connection: close\r\nAllow: GET\r\n"),
            Self::TooSlow => ("408 Request Timeout", "Connection: close\r\n"),
            Self::NoUpgrade => (
                "426 Upgrade Required",
                "Connection: close, Upgrade\r\nUpgrade: websocket\r\n",
            ),
            Self::WrongVersion => (
                "426 Upgrade Required",
                "Connection: close, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            ),
            Self::TooLarge => ("431 Request Header Fields Too Large", "Connection: close\r\n"),
            Self::Unavailable => ("503 Service Unavailable", "Connection: close\r\nRetry-After: 5\r\n"),
            Self::HttpVersion => ("505 HTTP Version Not Supported", "Connection: close\r\n"),
        };
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\n\r\n").into_bytes()
    }
}

/// Reads the request head at the front of `bytes`. The first `known` bytes were passed before.
pub(crate) fn read(bytes: &[u8], known: usize) -> Head {
    let full = bytes.len() >= HEAD_BYTES;
    // A head that arrives byte by byte is parsed when it begins, to reject invalid ones early, and when it may be complete.
    let may_be_whole = bytes[known.saturating_sub(3)..]
        .windows(2)
        .any(|pair| pair == b"\n\n" || pair == b"\n\r");
    if known > 0 && !may_be_whole && !full {
        return Head::Partial;
    }
    match parse(&bytes[..bytes.len().min(HEAD_BYTES)]) {
        Ok(Head::Partial) if full => Head::Refused(Refusal::TooLarge),
        Ok(head) => head,
        Err(refusal) => Head::Refused(refusal),
    }
}

fn parse(bytes: &[u8]) -> Result<Head, Refusal> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(Head::Partial),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Err(_) => return Err(Refusal::BadRequest),
    };
    if request.version != Some(1) {
        return Err(Refusal::HttpVersion);
    }
    let headers = Headers(request.headers);
    // RFC 9112 section 3.2.
    if headers.only("Host").is_none() {
        return Err(Refusal::BadRequest);
    }
    if request.method != Some("GET") {
        return Err(Refusal::BadMethod);
    }
    if !headers.lists("Upgrade", "websocket") || !headers.lists("Connection", "upgrade") {
        return Err(Refusal::NoUpgrade);
    }
    let (dialect, response) = accept(&headers)?;
    Ok(Head::Upgrade {
        length,
        dialect,
        response,
    })
}

/// Checks a request for an upgrade and returns the response that accepts it.
fn accept(headers: &Headers<'_>) -> Result<(Dialect, Vec<u8>), Refusal> {
    let has_body = headers.all("Content-Length").any(|length| length.trim_ascii() != b"0")
        || headers.all("Transfer-Encoding").next().is_some();
    if has_body {
        return Err(Refusal::BadRequest);
    }
    if headers.only("Sec-WebSocket-Version") != Some(b"13") {
        return Err(Refusal::WrongVersion);
    }
    let key = headers
        .only("Sec-WebSocket-Key")
        .filter(|key| is_websocket_key(key))
        .ok_or(Refusal::BadRequest)?;
    let mut response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n",
        derive_accept_key(key)
    )
    .into_bytes();

    let offers = Dialect::parse_offers(headers.all("Sec-WebSocket-Protocol")).map_err(|_| Refusal::BadRequest)?;
    let (dialect, echo) = Dialect::negotiate(offers);
    if let Some(echo) = echo {
        response.extend([b"Sec-WebSocket-Protocol: ", echo.as_bytes(), b"\r\n"].concat());
    }
    response.extend(b"\r\n");
    Ok((dialect, response))
}

struct Headers<'a>(&'a [Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// Returns the value of a header that occurs exactly once.
    fn only(&self, name: &'static str) -> Option<&'a [u8]> {
        let mut values = self.all(name);
        let value = values.next()?.trim_ascii();
        values.next().is_none().then_some(value)
    }

    /// Returns the items of a header that is a list, from all its lines.
    fn items(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|item| !item.is_empty())
    }

    fn lists(&self, name: &'static str, item: &str) -> bool {
        self.items(name).any(|one| one.eq_ignore_ascii_case(item.as_bytes()))
    }
}

/// Returns whether a key is 16 bytes in base64: 22 characters and two of padding.
fn is_websocket_key(key: &[u8]) -> bool {
    key.strip_suffix(b"==").is_some_and(|digits| {
        digits.len() == 22
            && digits
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    })
}
