//! Reads one request head within a limit of bytes and time.

use std::{
    io,
    time::{Duration, Instant},
};

use httparse::{EMPTY_HEADER, Status};

use crate::{
    http::{
        headers::Headers,
        response::{Response, remaining},
    },
    sys::stream::Stream,
};

/// The most headers of a request. nginx and browsers together send about 30.
const MAX_HEADERS: usize = 64;

/// How large a request head may be, and how long it may take to arrive.
#[derive(Clone, Copy)]
pub(crate) struct HeadLimits {
    pub(crate) bytes: u32,
    pub(crate) timeout: Duration,
}

/// A whole request head.
pub(crate) struct Head<'a> {
    pub(crate) method: &'a str,
    /// The path of the target, as it was sent.
    pub(crate) path: &'a str,
    /// What follows the first `?` of the target.
    pub(crate) query: Option<&'a str>,
    /// The minor version: 1 is HTTP/1.1.
    pub(crate) version: u8,
    pub(crate) headers: Headers<'a>,
}

/// Splits a target into its path and query. The absolute form (RFC 9112 section 3.2.2) is `SCHEME://AUTHORITY` before them; a URL without a
/// path has the path `/`.
fn split_target(target: &str) -> (&str, Option<&str>) {
    let (before, query) = match target.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (target, None),
    };
    let path = match before.split_once("://") {
        Some((scheme, rest)) if is_scheme(scheme) => rest.find('/').map_or("/", |start| &rest[start..]),
        _ => before,
    };
    (path, query)
}

/// Whether this is the scheme of a URL (RFC 3986 section 3.1).
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Parses the head at the beginning of `bytes` and passes it to `handle`. Returns the result and the length of the head, or `None` if the
/// head is incomplete.
pub(crate) fn parse<T>(
    bytes: &[u8],
    handle: impl FnOnce(&Head<'_>) -> Result<T, Response>,
) -> Option<Result<(T, usize), Response>> {
    // On the heap: a thread keeps every page of its stack that it has touched.
    let mut headers = vec![EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return None,
        Err(httparse::Error::TooManyHeaders) => return Some(Err(Response::HEAD_TOO_LARGE)),
        Err(_) => return Some(Err(Response::BAD_REQUEST)),
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Some(Err(Response::BAD_REQUEST));
    };
    let (path, query) = split_target(target);
    let head = Head {
        method,
        path,
        query,
        version,
        headers: Headers(request.headers),
    };
    Some(handle(&head).map(|handled| (handled, length)))
}

/// Reads a head and passes it to `handle`. Returns the result and the bytes after the head, or the response to a head that is wrong, too
/// large or too slow. After the time-out, what has arrived is still read: the process may have been suspended meanwhile.
///
/// # Errors
///
/// The client has closed the connection, or the socket fails.
pub(crate) fn read<T>(
    stream: &Stream,
    limits: HeadLimits,
    handle: impl Fn(&Head<'_>) -> Result<T, Response>,
) -> io::Result<Result<(T, Vec<u8>), Response>> {
    let started = Instant::now();
    let limit = limits.bytes as usize;
    let mut bytes = Vec::with_capacity(limit.min(1024));
    loop {
        let known = bytes.len();
        bytes.resize((known + 1024).min(limit.max(1)), 0);
        let timeout = remaining(started, limits.timeout);
        let read = match timeout {
            Some(timeout) => stream.read_within(&mut bytes[known..], timeout),
            None => stream.try_read(&mut bytes[known..]),
        };
        let read = match read {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match timeout {
                Some(_) => 0,
                None => return Ok(Err(Response::HEAD_TOO_SLOW)),
            },
            Err(error) => return Err(error),
        };
        bytes.truncate(known + read);
        if let Some(parsed) = parse_arrived(&bytes, known, limit, &handle) {
            return Ok(parsed.map(|(handled, length)| (handled, bytes.split_off(length))));
        }
    }
}

/// Parses a head of which more than the first `known` bytes has just arrived. `None` if more must arrive.
///
/// A head that arrives byte by byte is parsed twice: when it starts, to reject nonsense early, and when it may be complete.
pub(crate) fn parse_arrived<T>(
    bytes: &[u8],
    known: usize,
    limit: usize,
    handle: impl FnOnce(&Head<'_>) -> Result<T, Response>,
) -> Option<Result<(T, usize), Response>> {
    let is_full = bytes.len() >= limit;
    let may_be_complete = bytes[known.saturating_sub(3)..]
        .windows(2)
        .any(|pair| pair == b"\n\n" || pair == b"\n\r");
    if known > 0 && !may_be_complete && !is_full {
        return None;
    }
    parse(&bytes[..bytes.len().min(limit)], handle).or(is_full.then_some(Err(Response::HEAD_TOO_LARGE)))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        io::Write,
        net::{Ipv4Addr, TcpListener, TcpStream},
    };

    use super::*;
    use crate::sys::{poll, stream};

    /// Reads a head after its time-out, when these bytes have arrived. Returns its path and what follows it.
    fn read_late(bytes: &str) -> io::Result<Result<(String, Vec<u8>), Response>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        let (stream, _) = stream::accept(&listener)?;
        client.write_all(bytes.as_bytes())?;
        poll::wait(&mut [poll::readable(&stream)], None)?;
        let limits = HeadLimits {
            bytes: 16_384,
            timeout: Duration::ZERO,
        };
        read(&stream, limits, |head| Ok(head.path.to_owned()))
    }

    /// The process may have been suspended since the head arrived.
    #[test]
    fn head_that_has_arrived_is_read_after_its_timeout() -> io::Result<()> {
        let long = "x".repeat(5_000);
        let read = read_late(&format!("GET /a HTTP/1.1\r\nX: {long}\r\n\r\nrest"))?;
        assert_eq!(read, Ok(("/a".to_owned(), b"rest".to_vec())));
        for incomplete in ["G", &format!("GET /a HTTP/1.1\r\nX: {long}\r\n")] {
            assert_eq!(read_late(incomplete)?, Err(Response::HEAD_TOO_SLOW));
        }
        let read = read_late(&format!("GET /a HTTP/1.1\r\nX: {}", "x".repeat(20_000)))?;
        assert_eq!(read, Err(Response::HEAD_TOO_LARGE));
        Ok(())
    }

    #[test]
    fn target_in_every_form_has_a_path_and_a_query() {
        for (target, path, query) in [
            ("/", "/", None),
            ("/a/b?c?d", "/a/b", Some("c?d")),
            ("/a?", "/a", Some("")),
            ("/?u=http://x/y", "/", Some("u=http://x/y")),
            ("/a://b", "/a://b", None),
            ("//a/b", "//a/b", None),
            ("http://example.org", "/", None),
            ("http://example.org?a", "/", Some("a")),
            ("http://example.org/", "/", None),
            ("HTTP://example.org:80/a/b?c", "/a/b", Some("c")),
            ("wss://u@[::1]:1/a?b", "/a", Some("b")),
            ("web+x://a/b", "/b", None),
            ("*", "*", None),
            ("example.org:80", "example.org:80", None),
        ] {
            assert_eq!(split_target(target), (path, query), "{target}");
        }
    }
}
