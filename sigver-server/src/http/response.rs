//! HTTP responses: their bytes, and how one is sent so that the client receives it.

use std::{
    borrow::Cow,
    io::{self, Write},
    net::Shutdown,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::sys::stream::Stream;

/// An HTTP response after which the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    /// Status code and reason phrase.
    pub(crate) status: Cow<'static, str>,
    /// Complete header lines.
    headers: &'static str,
    content_type: Cow<'static, str>,
    body: Body,
    with_body: bool,
    /// What the log adds.
    pub(crate) reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Body {
    Static(&'static str),
    Text(String),
    Shared(Arc<[u8]>),
}

impl Body {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Static(text) => text.as_bytes(),
            Self::Text(text) => text.as_bytes(),
            Self::Shared(bytes) => bytes,
        }
    }
}

/// How long a client may take to close its side after a response, and how many bytes are read and discarded until then. Closing a socket
/// that has unread bytes resets the connection, and the response may be lost.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";

impl Response {
    const fn new(status: &'static str, headers: &'static str, body: &'static str) -> Self {
        Self {
            status: Cow::Borrowed(status),
            headers,
            content_type: Cow::Borrowed(TEXT),
            body: Body::Static(body),
            with_body: true,
            reason: None,
        }
    }

    pub(crate) const HEALTHY: Self = Self::new("200 OK", "Cache-Control: no-store\r\n", "ok\n");
    pub(crate) const BAD_REQUEST: Self = Self::new("400 Bad Request", "", "not an HTTP/1.1 request\n");
    pub(crate) const BAD_HOST: Self = Self::new("400 Bad Request", "", "Host is missing or repeated\n");
    pub(crate) const BAD_KEY: Self = Self::new(
        "400 Bad Request",
        "",
        "Sec-WebSocket-Key is missing, repeated, or not 16 bytes in base64\n",
    );
    pub(crate) const BAD_SUBPROTOCOL: Self = Self::new(
        "400 Bad Request",
        "",
        "Sec-WebSocket-Protocol is not a list of tokens\n",
    );
    pub(crate) const HAS_BODY: Self = Self::new("400 Bad Request", "", "a WebSocket handshake has no body\n");
    pub(crate) const NOT_FOUND: Self = Self::new(
        "404 Not Found",
        "",
        "nothing is here: this is a sigver signaling server, and wants a WebSocket\n",
    );
    pub(crate) const NO_PAGE: Self = Self::new("404 Not Found", "", "only /metrics is here\n");
    /// The response to OPTIONS, with which load balancers check that a server is there.
    pub(crate) const OPTIONS: Self = Self::new("200 OK", "Allow: GET, HEAD, OPTIONS\r\n", "");
    pub(crate) const METHOD: Self = Self::new(
        "405 Method Not Allowed",
        "Allow: GET, HEAD, OPTIONS\r\n",
        "only GET is understood here\n",
    );
    pub(crate) const HANDSHAKE_METHOD: Self = Self::new(
        "405 Method Not Allowed",
        "Allow: GET\r\n",
        "a WebSocket handshake is a GET\n",
    );
    pub(crate) const HEAD_TOO_SLOW: Self =
        Self::new("408 Request Timeout", "", "the request head did not arrive in time\n");
    pub(crate) const NO_UPGRADE: Self = Self::new(
        "426 Upgrade Required",
        "Upgrade: websocket\r\n",
        "this is a sigver signaling server: connect with WebSocket\n",
    );
    /// A handshake without its hop-by-hop headers: a proxy has removed them.
    pub(crate) const STRIPPED: Self = Self::new(
        "426 Upgrade Required",
        "Upgrade: websocket\r\n",
        "a WebSocket handshake without its Upgrade and Connection headers: is there a proxy that does not pass them on?\n",
    );
    pub(crate) const WRONG_VERSION: Self = Self::new(
        "426 Upgrade Required",
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        "only WebSocket version 13 is understood\n",
    );
    pub(crate) const HEAD_TOO_LARGE: Self = Self::new(
        "431 Request Header Fields Too Large",
        "",
        "the request head is too large\n",
    );
    /// The server accepts no further connection now.
    pub(crate) const UNAVAILABLE: Self = Self::new(
        "503 Service Unavailable",
        "Retry-After: 5\r\n",
        "too many connections, or shutting down\n",
    );
    pub(crate) const ENDING: Self = Self::new(
        "503 Service Unavailable",
        "Retry-After: 5\r\nCache-Control: no-store\r\n",
        "shutting down\n",
    );
    pub(crate) const HTTP_VERSION: Self = Self::new(
        "505 HTTP Version Not Supported",
        "",
        "a WebSocket handshake needs HTTP/1.1\n",
    );

    /// The metrics page.
    pub(crate) fn metrics(text: String) -> Self {
        Self {
            status: Cow::Borrowed("200 OK"),
            headers: "Cache-Control: no-store\r\n",
            content_type: Cow::Borrowed("application/openmetrics-text; version=1.0.0; charset=utf-8"),
            body: Body::Text(text),
            with_body: true,
            reason: None,
        }
    }

    pub(crate) fn page(content_type: &str, body: &Arc<[u8]>) -> Self {
        Self {
            status: Cow::Borrowed("200 OK"),
            headers: "Cache-Control: no-cache\r\n",
            content_type: content_type.to_owned().into(),
            body: Body::Shared(Arc::clone(body)),
            with_body: true,
            reason: None,
        }
    }

    /// The response to a client that is not admitted.
    pub(crate) fn denied(code: u16, text: &str, reason: Option<&str>) -> Self {
        let (phrase, headers) = match code {
            401 => ("Unauthorized", "WWW-Authenticate: Bearer\r\n"),
            403 => ("Forbidden", ""),
            404 => ("Not Found", ""),
            429 => ("Too Many Requests", "Retry-After: 5\r\n"),
            503 => ("Service Unavailable", "Retry-After: 5\r\n"),
            _ => ("Refused", ""),
        };
        Self {
            status: format!("{code} {phrase}").into(),
            headers,
            content_type: Cow::Borrowed(TEXT),
            body: Body::Text(format!("{text}\n")),
            with_body: true,
            reason: reason.map(str::to_owned),
        }
    }

    /// The status code.
    pub(crate) fn code(&self) -> u16 {
        let (code, _) = self.status.split_once(' ').unwrap_or((&self.status, ""));
        code.parse().unwrap_or_default()
    }

    /// The same response to a HEAD request.
    pub(crate) fn without_body(self) -> Self {
        Self {
            with_body: false,
            ..self
        }
    }

    /// Returns the length of the body in bytes, also of a response without it.
    pub(crate) fn body_len(&self) -> usize {
        self.body.as_bytes().len()
    }

    /// Returns the response's bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Self {
            status,
            headers,
            content_type,
            body,
            with_body,
            reason: _,
        } = self;
        let connection = if headers.starts_with("Upgrade:") {
            "close, Upgrade"
        } else {
            "close"
        };
        let body = body.as_bytes();
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\nConnection: {connection}\r\n{headers}X-Content-Type-Options: nosniff\r\n\
             Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        if *with_body {
            bytes.extend_from_slice(body);
        }
        bytes
    }

    /// Sends the response and closes the connection. Waits at most [`LINGER`] for a client that does not read it.
    ///
    /// # Errors
    ///
    /// The client has gone or does not read.
    pub(crate) fn send(&self, mut stream: &Stream) -> io::Result<()> {
        stream.set_write_timeout(Some(LINGER))?;
        stream.write_all(&self.to_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let started = Instant::now();
        let mut left = LINGER_BYTES;
        let mut sink = [0; 1024];
        while let Some(timeout) = remaining(started, LINGER) {
            match stream.read_within(&mut sink, timeout)? {
                0 => break,
                read => match left.checked_sub(read) {
                    Some(rest) => left = rest,
                    None => break,
                },
            }
        }
        Ok(())
    }
}

/// Returns what is left of `time` since `started`. `None` if nothing is left.
pub(crate) fn remaining(started: Instant, time: Duration) -> Option<Duration> {
    time.checked_sub(started.elapsed()).filter(|left| !left.is_zero())
}

/// The response that accepts a handshake (RFC 6455 section 4.2.2). `accept` is derived from its key.
pub(crate) fn switching_protocols(accept: &str, subprotocol: Option<&str>) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
    );
    if let Some(subprotocol) = subprotocol {
        head.push_str("Sec-WebSocket-Protocol: ");
        head.push_str(subprotocol);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}
