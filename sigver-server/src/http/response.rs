//! Owns the HTTP answers of the port: their bytes, and sending one such that it arrives. Never reads a request.

use std::{
    borrow::Cow,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use crate::{Denied, Page};

/// An HTTP answer after which the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Code and phrase.
    pub(crate) status: Cow<'static, str>,
    /// Whole header lines.
    headers: &'static str,
    content_type: &'static str,
    body: Cow<'static, str>,
    with_body: bool,
}

/// How long a client may take to notice that it was answered, and how much of what it still sends is read meanwhile. Closing a
/// socket with unread bytes in it would destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";

impl Answer {
    const fn new(status: &'static str, headers: &'static str, body: &'static str) -> Self {
        Self {
            status: Cow::Borrowed(status),
            headers,
            content_type: TEXT,
            body: Cow::Borrowed(body),
            with_body: true,
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
    pub(crate) const METHOD: Self = Self::new(
        "405 Method Not Allowed",
        "Allow: GET, HEAD\r\n",
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
    /// A handshake without its hop-by-hop headers: what a proxy leaves of one when nobody has told it otherwise.
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
    /// The server takes no further connection, now.
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
    pub(crate) const HTTP_VERSION: Self =
        Self::new("505 HTTP Version Not Supported", "", "only HTTP/1.1 is understood\n");

    /// The metrics page.
    pub(crate) fn metrics(text: String) -> Self {
        Self {
            status: Cow::Borrowed("200 OK"),
            headers: "Cache-Control: no-store\r\n",
            content_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
            body: text.into(),
            with_body: true,
        }
    }

    pub(crate) const fn page(page: &Page) -> Self {
        Self {
            status: Cow::Borrowed("200 OK"),
            headers: "Cache-Control: no-cache\r\n",
            content_type: page.content_type,
            body: Cow::Borrowed(page.body),
            with_body: true,
        }
    }

    /// What a client is told that is not admitted.
    pub(crate) fn denied(denied: &Denied) -> Self {
        let code = denied.status();
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
            content_type: TEXT,
            body: format!("{}\n", denied.text()).into(),
            with_body: true,
        }
    }

    /// The code of its status, unless it is one of success.
    pub(crate) fn refused(&self) -> Option<u16> {
        let (code, _) = self.status.split_once(' ')?;
        code.parse().ok().filter(|code| !matches!(code, 200..300))
    }

    /// The same answer to a HEAD request.
    pub(crate) fn without_body(self) -> Self {
        Self {
            with_body: false,
            ..self
        }
    }

    /// The answer's bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Self {
            status,
            headers,
            content_type,
            body,
            with_body,
        } = self;
        let connection = if headers.starts_with("Upgrade:") {
            "close, Upgrade"
        } else {
            "close"
        };
        let mut bytes = format!(
            "HTTP/1.1 {status}\r\nConnection: {connection}\r\n{headers}X-Content-Type-Options: nosniff\r\n\
             Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        if *with_body {
            bytes.extend_from_slice(body.as_bytes());
        }
        bytes
    }

    /// Sends the answer and closes the connection such that the answer arrives. A client that takes nothing for [`LINGER`] is given
    /// up.
    pub(crate) fn send(&self, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(LINGER))?;
        stream.write_all(&self.to_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let began = Instant::now();
        let mut left = LINGER_BYTES;
        let mut sink = [0; 1024];
        while let Some(patience) = remaining(began, LINGER) {
            stream.set_read_timeout(Some(patience))?;
            match stream.read(&mut sink)? {
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

/// What is left of `time` since it `began`, if anything: a socket takes no timeout of zero.
pub(crate) fn remaining(began: Instant, time: Duration) -> Option<Duration> {
    time.checked_sub(began.elapsed()).filter(|left| !left.is_zero())
}
