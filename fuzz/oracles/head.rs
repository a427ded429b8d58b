//! An independent reading of request heads by RFC 9112 and RFC 6455 section 4.2, compared with the server's.

use sigver_core::Dialect;
use sigver_server::{Page, read_head};

/// Path, media type and content of each page.
const PAGES: [(&str, &str, &str); 2] = [
    ("/", "text/html; charset=utf-8", "<p>tea</p>"),
    ("/a.js", "text/javascript", ""),
];

fn pages() -> Vec<Page> {
    let page = |(path, content_type, body): (&str, &str, &str)| Page::new(path, content_type, body.as_bytes());
    PAGES.map(page).into()
}

/// The most headers of a request.
const MOST_HEADERS: usize = 64;

/// Checks the server's response to any bytes: a handshake is accepted exactly if it is valid, the response has only the server's own texts
/// and an offered subprotocol, and bytes that arrive one by one get the same response as all at once.
///
/// # Panics
///
/// The server responds differently.
pub(crate) fn check(bytes: &[u8]) {
    let pages = pages();
    let read = read_head(bytes, &pages);
    let head = Head::read(bytes);
    match (&read, &head) {
        (None, None) => {}
        (None, Some(_)) => panic!("the head is whole, and not answered"),
        // What cannot be the beginning of a request need not be whole.
        (Some((answer, ..)), None) => assert!(is_early(answer), "the head is not whole, and answered"),
        (Some((answer, length, dialect)), Some(head)) => {
            let expected = head.answer();
            let is_odd = !head.is_clean() && is_early(answer);
            assert!(expected.is(answer) || is_odd, "{expected:?}");
            let expected = if is_odd { None } else { expected.dialect() };
            assert_eq!(*dialect, expected);
            assert_eq!(*length, if expected.is_some() { head.length } else { 0 });
        }
    }
    if let Some((answer, _, dialect)) = &read {
        check_form(answer, dialect.is_some());
    }
    let mut beginnings = (0..bytes.len()).map(|length| read_head(&bytes[..length], &pages));
    let early = beginnings.find(Option::is_some);
    assert!(
        early.is_none() || early == Some(read),
        "another answer when it comes in pieces"
    );
}

/// Whether this is a rejection that is sent before the head is complete.
fn is_early(answer: &[u8]) -> bool {
    NOT_HTTP.is(answer) || TOO_LARGE.is(answer)
}

/// Checks what every response has.
fn check_form(answer: &[u8], is_upgrade: bool) {
    let answer = core::str::from_utf8(answer).expect("an answer is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    assert!(!head.replace("\r\n", "").contains(char::is_control), "{head:?}");
    let mut headers: Vec<(&str, &str)> = Vec::new();
    for line in head.split("\r\n").skip(1) {
        let (name, value) = line.split_once(": ").expect("a header has a colon");
        assert!(headers.iter().all(|(other, _)| *other != name), "{name} twice");
        headers.push((name, value));
    }
    let value = |name| {
        headers
            .iter()
            .find(|(other, _)| *other == name)
            .map(|(_, value)| *value)
    };
    let known: &[&str] = if is_upgrade {
        &[
            "Upgrade",
            "Connection",
            "Sec-WebSocket-Accept",
            "Sec-WebSocket-Protocol",
        ]
    } else {
        let length = value("Content-Length").and_then(|length| length.parse().ok());
        assert!(body.is_empty() || length == Some(body.len()), "{answer}");
        assert!(value("Connection").is_some_and(|value| value.starts_with("close")));
        &[
            "Connection",
            "Allow",
            "Upgrade",
            "Sec-WebSocket-Version",
            "Cache-Control",
            "X-Content-Type-Options",
            "Content-Type",
            "Content-Length",
        ]
    };
    assert!(headers.iter().all(|(name, _)| known.contains(name)), "{head:?}");
}

/// The expected response.
#[derive(Debug)]
enum Expected<'a> {
    /// A handshake with this key, and the subprotocol to echo.
    Upgrade(&'a str, Option<&'a str>),
    /// The status and the body.
    Plain(&'static str, &'static str),
}

const NOT_HTTP: Expected<'_> = Expected::Plain("400 Bad Request", "not an HTTP/1.1 request\n");
const TOO_LARGE: Expected<'_> =
    Expected::Plain("431 Request Header Fields Too Large", "the request head is too large\n");

impl Expected<'_> {
    fn is(&self, answer: &[u8]) -> bool {
        let Ok(answer) = core::str::from_utf8(answer) else {
            return false;
        };
        match self {
            Self::Upgrade(key, echo) => {
                let echo = echo.map(|echo| format!("Sec-WebSocket-Protocol: {echo}\r\n"));
                let echo = echo.unwrap_or_default();
                answer
                    == format!(
                        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Accept: {key}\r\n{echo}\r\n"
                    )
            }
            Self::Plain(status, body) => {
                answer.starts_with(&format!("HTTP/1.1 {status}\r\n")) && answer.ends_with(&format!("\r\n\r\n{body}"))
            }
        }
    }

    fn dialect(&self) -> Option<Dialect> {
        match self {
            Self::Upgrade(_, Some("sigver.v1")) => Some(Dialect::V1),
            Self::Upgrade(..) => Some(Dialect::Plain),
            Self::Plain(..) => None,
        }
    }
}

/// The lines of a request head, each without its end.
struct Head<'a> {
    request: &'a [u8],
    headers: Vec<&'a [u8]>,
    length: usize,
}

impl<'a> Head<'a> {
    /// A head ends with its first empty line after the request line.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut length = 0;
        let mut lines = Vec::new();
        loop {
            let end = bytes[length..].iter().position(|byte| *byte == b'\n')?;
            let line = &bytes[length..length + end];
            length += end + 1;
            match line.strip_suffix(b"\r").unwrap_or(line) {
                b"" if lines.is_empty() => {}
                b"" => break,
                line => lines.push(line),
            }
        }
        let headers = lines.split_off(1);
        Some(Self {
            request: lines[0],
            headers,
            length,
        })
    }

    /// Whether every line is valid by the RFC. Other lines are rejected, or parsed as here.
    fn is_clean(&self) -> bool {
        let is_header = |line: &&[u8]| {
            let (name, value) = header(line);
            !name.is_empty() && is_token(name) && value.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control())
        };
        let words: Vec<&[u8]> = self.request.split(|byte| *byte == b' ').collect();
        let is_request = match words[..] {
            [method, target, version] => {
                let is_target = !target.is_empty() && target.iter().all(u8::is_ascii_graphic);
                let is_version = [b"HTTP/1.1", b"HTTP/1.0"].iter().any(|known| *known == version);
                !method.is_empty() && is_token(method) && is_target && is_version
            }
            _ => false,
        };
        is_request && self.headers.len() <= MOST_HEADERS && self.headers.iter().all(is_header)
    }

    fn answer(&self) -> Expected<'a> {
        let refused = Expected::Plain;
        let mut words = self.request.split(|byte| *byte == b' ');
        let (method, target) = (words.next(), words.next().unwrap_or_default());
        let is_old = self.request.ends_with(b" HTTP/1.0");
        match self.values("Host").count() {
            1 => {}
            0 if is_old => {}
            _ => return refused("400 Bad Request", "Host is missing or repeated\n"),
        }
        let is_upgrade = self.has_item("Upgrade", "websocket") && self.has_item("Connection", "upgrade");
        if is_upgrade && is_old {
            return refused(
                "505 HTTP Version Not Supported",
                "a WebSocket handshake needs HTTP/1.1\n",
            );
        }
        if is_upgrade {
            return match method {
                Some(b"GET") => self.handshake(),
                _ => refused("405 Method Not Allowed", "a WebSocket handshake is a GET\n"),
            };
        }
        let path = path_of(target);
        let page = PAGES.iter().find(|(page, ..)| page.as_bytes() == path);
        let is_stripped = self.values("Sec-WebSocket-Key").count() > 0;
        let (status, body) = match (page, path) {
            _ if is_stripped => ("426 Upgrade Required", STRIPPED),
            (Some((_, _, body)), _) => ("200 OK", *body),
            (None, b"/health" | b"/ready") => ("200 OK", "ok\n"),
            (None, _) => ("404 Not Found", NOTHING),
        };
        match method {
            Some(b"GET") => refused(status, body),
            Some(b"HEAD") => refused(status, ""),
            Some(b"OPTIONS") => refused("200 OK", ""),
            _ => refused("405 Method Not Allowed", "only GET is understood here\n"),
        }
    }

    fn handshake(&self) -> Expected<'a> {
        let refused = Expected::Plain;
        let has_length = self.values("Content-Length").any(|value| value != b"0");
        if has_length || self.values("Transfer-Encoding").count() > 0 {
            return refused("400 Bad Request", "a WebSocket handshake has no body\n");
        }
        let versions: Vec<&[u8]> = self.values("Sec-WebSocket-Version").collect();
        if versions != [b"13"] {
            return refused("426 Upgrade Required", "only WebSocket version 13 is understood\n");
        }
        let keys: Vec<&[u8]> = self.values("Sec-WebSocket-Key").collect();
        let [Ok(key)] = keys.into_iter().map(core::str::from_utf8).collect::<Vec<_>>()[..] else {
            return refused("400 Bad Request", BAD_KEY);
        };
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
        if key.len() != 24 || !key.ends_with("==") || !key.bytes().take(22).all(is_base64) {
            return refused("400 Bad Request", BAD_KEY);
        }
        let mut offers = Vec::new();
        for offer in self.items("Sec-WebSocket-Protocol") {
            match core::str::from_utf8(offer) {
                Ok(offer) if is_token(offer.as_bytes()) => offers.push(offer),
                _ => return refused("400 Bad Request", "Sec-WebSocket-Protocol is not a list of tokens\n"),
            }
        }
        offers.retain(|offer| !offer.starts_with("sigver.bearer."));
        let known = offers
            .iter()
            .find(|offer| ["sigver.v1", "sigver.plain"].contains(offer));
        Expected::Upgrade(key, known.or(offers.first()).copied())
    }

    /// Returns the values of all headers with this name.
    fn values(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        let headers = self.headers.iter().map(|line| header(line));
        headers
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value.trim_ascii())
    }

    fn items(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        self.values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|item| !item.is_empty())
    }

    fn has_item(&self, name: &'static str, wanted: &str) -> bool {
        self.items(name)
            .any(|item| item.eq_ignore_ascii_case(wanted.as_bytes()))
    }
}

const STRIPPED: &str =
    "a WebSocket handshake without its Upgrade and Connection headers: is there a proxy that does not pass them on?\n";

const NOTHING: &str = "nothing is here: this is a sigver signaling server, and wants a WebSocket\n";

const BAD_KEY: &str = "Sec-WebSocket-Key is missing, repeated, or not 16 bytes in base64\n";

/// Returns the path of a target, which may be a URL.
fn path_of(target: &[u8]) -> &[u8] {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    let Some(colon) = path.iter().position(|byte| *byte == b':') else {
        return path;
    };
    let (scheme, rest) = path.split_at(colon);
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(byte));
    match rest.strip_prefix(b"://") {
        Some(rest) if is_scheme => match rest.iter().position(|byte| *byte == b'/') {
            Some(slash) => &rest[slash..],
            None => b"/",
        },
        _ => path,
    }
}

/// Returns the name and the value of a header line; no name if there is no colon.
fn header(line: &[u8]) -> (&[u8], &[u8]) {
    match line.iter().position(|byte| *byte == b':') {
        Some(colon) => (&line[..colon], &line[colon + 1..]),
        None => (b"", line),
    }
}

fn is_token(text: &[u8]) -> bool {
    text.iter()
        .all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte))
}
