//! Owns the requests of the port: reading a head within its limits, and telling a WebSocket handshake (RFC 6455 section 4.2) from
//! anything else. Never reads a body, keeps a connection alive, or speaks WebSocket.

pub(crate) mod response;

use std::{
    io::{self, Read},
    net::{IpAddr, Ipv4Addr, TcpStream},
    time::Instant,
};

use httparse::{EMPTY_HEADER, Header, Status};

use sigver_core::Dialect;

use crate::{
    Config, Handshake, Page,
    access::client_ip,
    http::response::{Answer, remaining},
    server::Shared,
};

/// What a client asked for.
pub(crate) enum Request {
    /// A legal WebSocket handshake that is admitted, and what came behind its head.
    Upgrade(Upgrade, Vec<u8>),
    /// Anything else, with its answer.
    Answered(Answer),
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
    /// Where the client is, behind its proxies.
    pub(crate) client: IpAddr,
}

/// What begins a subprotocol that is no subprotocol, but brings a token.
pub(crate) const BEARER: &str = "sigver.bearer.";

/// Headers that a request may have; nginx and browsers together send about 30.
const MAX_HEADERS: usize = 64;

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
pub(crate) fn receive(stream: &TcpStream, peer: IpAddr, shared: &Shared) -> io::Result<Request> {
    let config = &shared.config;
    let parse = |head: &[u8]| parse(head, peer, config, shared.is_ending());
    Ok(match read_whole(stream, config, parse)? {
        Ok((Parsed::Upgrade(upgrade, length), mut head)) => Request::Upgrade(upgrade, head.split_off(length)),
        Ok((Parsed::Answered(answer), _)) | Err(answer) => Request::Answered(answer),
    })
}

/// Reads a request that can be nothing but a plain one; `find` answers to a path, if there is something.
///
/// # Errors
///
/// The client is gone.
pub(crate) fn receive_plain(
    stream: &TcpStream,
    config: &Config,
    find: impl Fn(&str) -> Option<Answer>,
) -> io::Result<Answer> {
    let parse = |head: &[u8]| {
        let mut headers = vec![EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        Some(match (request.parse(head), request.method, request.path) {
            (Ok(Status::Partial), ..) => return None,
            (Ok(Status::Complete(_)), Some(method @ ("GET" | "HEAD")), Some(target)) => {
                let path = target.split('?').next().unwrap_or(target);
                let answer = find(path).unwrap_or(Answer::NO_PAGE);
                if method == "HEAD" {
                    answer.without_body()
                } else {
                    answer
                }
            }
            (Ok(Status::Complete(_)), ..) => Answer::METHOD,
            (Err(_), ..) => Answer::BAD_REQUEST,
        })
    };
    Ok(read_whole(stream, config, parse)?.map_or_else(|refusal| refusal, |(answer, _)| answer))
}

/// Reads until `parse` makes something of what has come, which is returned with it; or the answer to a head that never is whole.
fn read_whole<T>(
    mut stream: &TcpStream,
    config: &Config,
    parse: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Result<(T, Vec<u8>), Answer>> {
    let began = Instant::now();
    let limit = config.head_bytes as usize;
    let mut head = Vec::with_capacity(limit.min(1024));
    loop {
        let Some(patience) = remaining(began, config.handshake_timeout) else {
            return Ok(Err(Answer::HEAD_TOO_SLOW));
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
            if let Some(parsed) = parse(&head) {
                return Ok(Ok((parsed, head)));
            }
            if head.len() >= limit {
                return Ok(Err(Answer::HEAD_TOO_LARGE));
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    /// An admitted handshake whose head has this length.
    Upgrade(Upgrade, usize),
    Answered(Answer),
}

/// Reads a head from the beginning of `bytes`; `None` while it is not whole.
fn parse(bytes: &[u8], peer: IpAddr, config: &Config, is_ending: bool) -> Option<Parsed> {
    // On the heap: what a thread's stack has touched once it keeps for life.
    let mut headers = vec![EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => return Some(Parsed::Answered(Answer::HEAD_TOO_LARGE)),
        Err(_) => return Some(Parsed::Answered(Answer::BAD_REQUEST)),
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Some(Parsed::Answered(Answer::BAD_REQUEST));
    };
    let headers = Headers(request.headers);
    Some(if version != 1 {
        Parsed::Answered(Answer::HTTP_VERSION)
    } else if headers.only("Host").is_none() {
        // RFC 9112 section 3.2.
        Parsed::Answered(Answer::BAD_HOST)
    } else if headers.lists("Upgrade", "websocket") && headers.lists("Connection", "upgrade") {
        match handshake(method, target, headers, peer, config) {
            Ok(upgrade) => Parsed::Upgrade(upgrade, length),
            Err(answer) => Parsed::Answered(answer),
        }
    } else {
        Parsed::Answered(plain(method, target, headers, &config.pages, is_ending))
    })
}

/// The answer to a request whose head is at the beginning of `bytes`, `None` while it is not whole; and of a legal handshake the head's
/// length and the client's dialect. Its key stands in the answer for what is derived from it. For the fuzz target `head` only.
#[doc(hidden)]
pub fn read_head(bytes: &[u8], pages: &[Page]) -> Option<(Vec<u8>, usize, Option<Dialect>)> {
    let config = Config {
        pages: pages.to_vec(),
        ..Config::default()
    };
    Some(match parse(bytes, Ipv4Addr::LOCALHOST.into(), &config, false)? {
        Parsed::Answered(answer) => (answer.to_bytes(), 0, None),
        Parsed::Upgrade(upgrade, length) => {
            let answer = switching_protocols(&upgrade, &upgrade.key);
            (answer, length, Some(upgrade.dialect))
        }
    })
}

/// Checks a request that asks for an upgrade, in the order of RFC 6455 section 4.2.1, and asks whether it is admitted.
fn handshake(
    method: &str,
    target: &str,
    headers: Headers<'_>,
    peer: IpAddr,
    config: &Config,
) -> Result<Upgrade, Answer> {
    if method != "GET" {
        return Err(Answer::HANDSHAKE_METHOD);
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
    let mut offers =
        Dialect::parse_offers(headers.all("Sec-WebSocket-Protocol")).map_err(|_| Answer::BAD_SUBPROTOCOL)?;
    let client = client_ip::client(peer, &config.trusted_proxies, headers.all("X-Forwarded-For"));
    let handshake = Handshake {
        client,
        target,
        headers,
    };
    for admission in &config.admission {
        admission.admit(&handshake).map_err(|denied| Answer::denied(&denied))?;
    }
    // A token is not echoed, whoever else sees the answer.
    offers.retain(|name| !name.starts_with(BEARER));
    let (dialect, echo) = Dialect::negotiate(offers);
    Ok(Upgrade {
        key: text(key),
        subprotocol: echo.map(str::to_owned),
        dialect,
        client,
    })
}

fn plain(method: &str, target: &str, headers: Headers<'_>, pages: &[Page], is_ending: bool) -> Answer {
    if !matches!(method, "GET" | "HEAD") {
        return Answer::METHOD;
    }
    let path = target.split('?').next().unwrap_or(target);
    let page = pages.iter().find(|page| page.path == path);
    let answer = match (page, path) {
        _ if headers.all("Sec-WebSocket-Key").next().is_some() => Answer::STRIPPED,
        (Some(page), _) => Answer::page(page),
        (None, "/ready") if is_ending => Answer::ENDING,
        (None, "/ready" | "/health") => Answer::HEALTHY,
        (None, "/") => Answer::NO_UPGRADE,
        (None, _) => Answer::NOT_FOUND,
    };
    if method == "HEAD" {
        answer.without_body()
    } else {
        answer
    }
}

/// The headers of a request.
#[derive(Clone, Copy)]
pub(crate) struct Headers<'a>(&'a [Header<'a>]);

impl<'a> Headers<'a> {
    pub(crate) fn all(self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a> {
        self.0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// The value of a header that must be there once.
    fn only(self, name: &'static str) -> Option<&'a [u8]> {
        let mut values = self.all(name);
        let value = values.next()?.trim_ascii();
        values.next().is_none().then_some(value)
    }

    /// The items of a header that is a list, over all its lines.
    fn items(self, name: &'static str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|item| !item.is_empty())
    }

    fn lists(self, name: &'static str, item: &str) -> bool {
        self.items(name).any(|one| one.eq_ignore_ascii_case(item.as_bytes()))
    }

    /// The subprotocols that are offered. Tokens are ASCII, and what is none is no subprotocol.
    pub(crate) fn subprotocols(self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.items("Sec-WebSocket-Protocol")
            .filter_map(|name| std::str::from_utf8(name).ok())
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

/// The text of what was checked to be ASCII.
fn text(ascii: &[u8]) -> String {
    String::from_utf8_lossy(ascii).into_owned()
}

fn timed_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
