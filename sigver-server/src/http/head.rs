//! Reads one request head within a limit of bytes and time.

use std::{
    io::{self, Read},
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
    pub(crate) target: &'a str,
    /// The minor version: 1 is HTTP/1.1.
    pub(crate) version: u8,
    pub(crate) headers: Headers<'a>,
}

impl<'a> Head<'a> {
    /// The path of the target, without its query.
    pub(crate) fn path(&self) -> &'a str {
        self.target.split('?').next().unwrap_or(self.target)
    }
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
    let head = Head {
        method,
        target,
        version,
        headers: Headers(request.headers),
    };
    Some(handle(&head).map(|handled| (handled, length)))
}

/// Reads a head and passes it to `handle`. Returns the result and the bytes after the head, or the response to a head that is wrong, too
/// large or too slow.
///
/// # Errors
///
/// The client has closed the connection, or the socket fails.
pub(crate) fn read<T>(
    mut stream: &Stream,
    limits: HeadLimits,
    handle: impl Fn(&Head<'_>) -> Result<T, Response>,
) -> io::Result<Result<(T, Vec<u8>), Response>> {
    let started = Instant::now();
    let limit = limits.bytes as usize;
    let mut bytes = Vec::with_capacity(limit.min(1024));
    loop {
        let Some(timeout) = remaining(started, limits.timeout) else {
            return Ok(Err(Response::HEAD_TOO_SLOW));
        };
        stream.set_read_timeout(Some(timeout))?;
        let known = bytes.len();
        bytes.resize((known + 1024).min(limit.max(1)), 0);
        let read = match stream.read(&mut bytes[known..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if has_timed_out(&error) => 0,
            Err(error) => return Err(error),
        };
        bytes.truncate(known + read);
        // A head that arrives byte by byte is parsed twice: when it starts, to reject nonsense early, and when it may be complete.
        let may_be_complete = bytes[known.saturating_sub(3)..]
            .windows(2)
            .any(|pair| pair == b"\n\n" || pair == b"\n\r");
        if known == 0 || may_be_complete || bytes.len() >= limit {
            match parse(&bytes, &handle) {
                Some(Ok((handled, length))) => return Ok(Ok((handled, bytes.split_off(length)))),
                Some(Err(response)) => return Ok(Err(response)),
                None if bytes.len() >= limit => return Ok(Err(Response::HEAD_TOO_LARGE)),
                None => {}
            }
        }
    }
}

fn has_timed_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
