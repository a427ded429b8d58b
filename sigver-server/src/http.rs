//! Owns the HTTP of the port: reading a request head within its limits, telling a WebSocket handshake (RFC 6455 section 4.2) from
//! anything else, and the bytes of every answer. Never reads a body, keeps a connection alive, or speaks WebSocket.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

use httparse::{EMPTY_HEADER, Header, Status};

use sigver_core::Dialect;

use crate::{Config, Page};

/// What a client asked for.
pub(crate) enum Request {
    /// A legal WebSocket handshake, and what came behind its head.
    Upgrade(Upgrade, Vec<u8>),
    /// Anything else, with its answer.
    Plain(Answer),
}

/// What matters of a WebSocket handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upgrade {
    /// `Sec-WebSocket-Key`.
    pub(crate) key: String,
    /// The subprotocol to echo.
    pub(crate) subprotocol: Option<String>,
    /// What the client will speak.
    pub(crate) dialect: Dialect,
}

/// An HTTP answer after which the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Code and phrase.
    pub(crate) status: &'static str,
    /// Whole header lines.
    headers: &'static str,
    content_type: &'static str,
    body: &'static str,
    with_body: bool,
}

/// Headers that a request may have; nginx and browsers together send about 30.
const MAX_HEADERS: usize = 64;

/// How long a client may take to notice that it was answered, and how much of what it still sends is read meanwhile. Closing a
/// socket with unread bytes in it would destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";

impl Answer {
    const fn error(status: &'static str, headers: &'static str, body: &'static str) -> Self {
        Self {
            status,
            headers,
            content_type: TEXT,
            body,
            with_body: true,
        }
    }

    const BAD_REQUEST: Self = Self::error("400 Bad Request", "", "not an HTTP/1.1 request\n");
    const BAD_HOST: Self = Self::error("400 Bad Request", "", "Host is missing or repeated\n");
    const BAD_KEY: Self = Self::error(
        "400 Bad Request",
        "",
        "Sec-WebSocket-Key is missing, repeated, or not 16 bytes in base64\n",
    );
    const BAD_SUBPROTOCOL: Self = Self::error(
        "400 Bad Request",
        "",
        "Sec-WebSocket-Protocol is not a list of tokens\n",
    );
    const HAS_BODY: Self = Self::error("400 Bad Request", "", "a WebSocket handshake has no body\n");
    const METHOD: Self = Self::error(
        "405 Method Not Allowed",
        "Allow: GET, HEAD\r\n",
        "only GET is understood here\n",
    );
    const TOO_SLOW: Self = Self::error("408 Request Timeout", "", "the request head did not arrive in time\n");
    const NO_UPGRADE: Self = Self::error(
        "426 Upgrade Required",
        "Upgrade: websocket\r\n",
        "this is a sigver signaling server: connect with WebSocket\n",
    );
    const WRONG_VERSION: Self = Self::error(
        "426 Upgrade Required",
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
        "only WebSocket version 13 is understood\n",
    );
    const HEAD_TOO_LARGE: Self = Self::error(
        "431 Request Header Fields Too Large",
        "",
        "the request head is too large\n",
    );
    /// The server takes no further connection, now.
    pub(crate) const UNAVAILABLE: Self = Self::error(
        "503 Service Unavailable",
        "Retry-After: 5\r\n",
        "too many connections, or shutting down\n",
    );
    const HTTP_VERSION: Self = Self::error("505 HTTP Version Not Supported", "", "only HTTP/1.1 is understood\n");

    const fn page(page: &Page) -> Self {
        Self {
            status: "200 OK",
            headers: "Cache-Control: no-cache\r\n",
            content_type: page.content_type,
            body: page.body,
            with_body: true,
        }
    }

    /// The answer's bytes.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
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
        if with_body {
            bytes.extend_from_slice(body.as_bytes());
        }
        bytes
    }

    /// Sends the answer and closes the connection such that the answer arrives. A client that takes nothing for [`LINGER`] is given
    /// up.
    pub(crate) fn send(self, mut stream: &TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(LINGER))?;
        stream.write_all(&self.to_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        let deadline = Instant::now() + LINGER;
        let mut left = LINGER_BYTES;
        let mut sink = [0; 1024];
        while let Some(patience) = remaining(deadline) {
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

/// The answer that accepts a handshake; `accept` is derived from its key (RFC 6455 section 4.2.2).
pub(crate) fn switching_protocols(upgrade: &Upgrade, accept: &str) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
    );
    if let Some(subprotocol) = &upgrade.subprotocol {
        head.push_str("Sec-WebSocket-Protocol: ");
        head.push_str(subprotocol);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Reads one request head, within the time and size that `config` allows.
///
/// # Errors
///
/// The client is gone.
pub(crate) fn receive(mut stream: &TcpStream, config: &Config) -> io::Result<Request> {
    let deadline = Instant::now() + config.handshake_timeout;
    let limit = config.head_bytes as usize;
    let mut head = Vec::with_capacity(limit.min(1024));
    loop {
        let Some(patience) = remaining(deadline) else {
            return Ok(Request::Plain(Answer::TOO_SLOW));
        };
        stream.set_read_timeout(Some(patience))?;
        let known = head.len();
        head.resize((known + 1024).min(limit.max(1)), 0);
        let read = match stream.read(&mut head[known..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if timed_out(&error) => 0,
            Err(error) => return Err(error),
        };
        head.truncate(known + read);
        // A head that comes byte by byte is parsed when it begins, to meet nonsense early, and when it may be whole.
        let may_be_whole = head[known.saturating_sub(3)..]
            .windows(2)
            .any(|pair| pair == b"\n\n" || pair == b"\n\r");
        if known == 0 || may_be_whole || head.len() >= limit {
            match parse(&head, &config.pages) {
                Some(Parsed::Upgrade(upgrade, length)) => {
                    return Ok(Request::Upgrade(upgrade, head.split_off(length)));
                }
                Some(Parsed::Plain(answer)) => return Ok(Request::Plain(answer)),
                None if head.len() >= limit => return Ok(Request::Plain(Answer::HEAD_TOO_LARGE)),
                None => {}
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// A handshake whose head has this length.
    Upgrade(Upgrade, usize),
    Plain(Answer),
}

/// Reads a head from the beginning of `bytes`; `None` while it is not whole.
fn parse(bytes: &[u8], pages: &[Page]) -> Option<Parsed> {
    // On the heap: what a thread's stack has touched once it keeps for life.
    let mut headers = vec![EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => return Some(Parsed::Plain(Answer::HEAD_TOO_LARGE)),
        Err(_) => return Some(Parsed::Plain(Answer::BAD_REQUEST)),
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Some(Parsed::Plain(Answer::BAD_REQUEST));
    };
    let headers = Headers(request.headers);
    Some(if version != 1 {
        Parsed::Plain(Answer::HTTP_VERSION)
    } else if headers.only("Host").is_none() {
        // RFC 9112 section 3.2.
        Parsed::Plain(Answer::BAD_HOST)
    } else if headers.lists("Upgrade", "websocket") && headers.lists("Connection", "upgrade") {
        match handshake(method, &headers) {
            Ok(upgrade) => Parsed::Upgrade(upgrade, length),
            Err(answer) => Parsed::Plain(answer),
        }
    } else {
        Parsed::Plain(plain(method, target, pages))
    })
}

/// The answer to a request whose head is at the beginning of `bytes`, `None` while it is not whole; and of a legal handshake the head's
/// length and the client's dialect. Its key stands in the answer for what is derived from it. For the fuzz target `head` only.
#[doc(hidden)]
pub fn read_head(bytes: &[u8], pages: &[Page]) -> Option<(Vec<u8>, usize, Option<Dialect>)> {
    Some(match parse(bytes, pages)? {
        Parsed::Plain(answer) => (answer.to_bytes(), 0, None),
        Parsed::Upgrade(upgrade, length) => {
            let answer = switching_protocols(&upgrade, &upgrade.key);
            (answer, length, Some(upgrade.dialect))
        }
    })
}

/// Checks a request that asks for an upgrade, in the order of RFC 6455 section 4.2.1.
fn handshake(method: &str, headers: &Headers<'_>) -> Result<Upgrade, Answer> {
    if method != "GET" {
        return Err(Answer {
            headers: "Allow: GET\r\n",
            ..Answer::METHOD
        });
    }
    let has_body = headers.all("Content-Length").any(|length| length.trim_ascii() != b"0")
        || headers.all("Transfer-Encoding").next().is_some();
    if has_body {
        return Err(Answer::HAS_BODY);
    }
    if headers.only("Sec-WebSocket-Version") != Some(b"13") {
        return Err(Answer::WRONG_VERSION);
    }
    let key = headers
        .only("Sec-WebSocket-Key")
        .filter(|key| is_websocket_key(key))
        .ok_or(Answer::BAD_KEY)?;
    let offers: Vec<&[u8]> = headers.items("Sec-WebSocket-Protocol").collect();
    if !offers.iter().all(|offer| is_token(offer)) {
        return Err(Answer::BAD_SUBPROTOCOL);
    }
    // Tokens are ASCII.
    let offers = offers.iter().filter_map(|offer| std::str::from_utf8(offer).ok());
    let (dialect, echo) = Dialect::negotiate(offers);
    Ok(Upgrade {
        key: text(key),
        subprotocol: echo.map(str::to_owned),
        dialect,
    })
}

fn plain(method: &str, target: &str, pages: &[Page]) -> Answer {
    let path = target.split('?').next().unwrap_or(target);
    let answer = pages
        .iter()
        .find(|page| page.path == path)
        .map_or(Answer::NO_UPGRADE, Answer::page);
    match method {
        "GET" => answer,
        "HEAD" => Answer {
            with_body: false,
            ..answer
        },
        _ => Answer::METHOD,
    }
}

struct Headers<'a>(&'a [Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// The value of a header that must be there once.
    fn only(&self, name: &'static str) -> Option<&'a [u8]> {
        let mut values = self.all(name);
        let value = values.next()?.trim_ascii();
        values.next().is_none().then_some(value)
    }

    /// The items of a header that is a list, over all its lines.
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

/// 16 bytes in base64: 22 characters and two of padding.
fn is_websocket_key(key: &[u8]) -> bool {
    key.strip_suffix(b"==").is_some_and(|digits| {
        digits.len() == 22
            && digits
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    })
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &[u8]) -> bool {
    text.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// The text of what was checked to be ASCII.
fn text(ascii: &[u8]) -> String {
    String::from_utf8_lossy(ascii).into_owned()
}

/// The time left until `deadline`, if any: a socket takes no timeout of zero.
fn remaining(deadline: Instant) -> Option<Duration> {
    deadline
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
}

fn timed_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
