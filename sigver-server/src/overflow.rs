//! Connections over a limit. They get no thread: the accept loop reads their request, rejects a WebSocket handshake with HTTP 503, and responds
//! to any other request as usual, so that a full server still answers health probes.
//!
//! At most [`MAX_OVERFLOW`] connections wait here. One more takes the place of the oldest of the source that has most, so that a health probe keeps
//! its place while another address knocks.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use sigver_core::Source;

use crate::{
    access::client_ip,
    config::Config,
    conn::{peer::Peer, request_line::RequestLine},
    counters::Counters,
    http::{
        head::{self, Head},
        page,
        request::Request,
        response::Response,
    },
    lifecycle::Lifecycle,
    sys::poll::{self, PollFd},
    tuning::{MAX_OVERFLOW, SEND_BUFFER},
};

/// How long a connection may take to send its request, and how long it then stays open for the client to read the response.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The bytes that are discarded after a response. A client that sends more is disconnected.
const DISCARD_BYTES: usize = 64 * 1024;

/// The connections over a limit.
pub(crate) struct Overflow {
    config: Arc<Config>,
    counters: Arc<Counters>,
    lifecycle: Arc<Lifecycle>,
    /// The oldest first.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    peer: Arc<Peer>,
    until: Instant,
    state: State,
}

enum State {
    /// The beginning of a request, and the limit that the connection is over.
    Reading(Vec<u8>, String),
    /// The response was sent; so many more bytes are discarded.
    Answered(usize),
}

impl Waiting {
    /// Returns how much of an unanswered request has been read.
    fn request_bytes(&self) -> Option<usize> {
        match &self.state {
            State::Reading(bytes, _) => Some(bytes.len()),
            State::Answered(_) => None,
        }
    }
}

/// What becomes of a request.
enum Outcome {
    /// A handshake, which is rejected.
    Rejected,
    Answered(Response, Option<RequestLine>),
}

impl Overflow {
    pub(crate) fn new(config: &Arc<Config>, counters: &Arc<Counters>, lifecycle: &Arc<Lifecycle>) -> Self {
        Self {
            config: Arc::clone(config),
            counters: Arc::clone(counters),
            lifecycle: Arc::clone(lifecycle),
            waiting: VecDeque::new(),
        }
    }

    /// Takes a connection that is over a limit.
    pub(crate) fn push(&mut self, peer: Arc<Peer>, why: String) {
        peer.limit_delivery();
        if self.waiting.len() >= MAX_OVERFLOW {
            if let Some(first) = self.remove_first() {
                // Its request may have arrived meanwhile.
                if let Some(unanswered) = self.advance_late(first) {
                    self.expire(unanswered);
                }
            }
        }
        let timeout = self.config.handshake_timeout.min(TIMEOUT);
        let waiting = Waiting {
            peer,
            until: Instant::now() + timeout,
            state: State::Reading(Vec::new(), why),
        };
        let waiting = self.advance(waiting);
        self.waiting.extend(waiting);
    }

    /// Removes the oldest connection of the source that has most.
    fn remove_first(&mut self) -> Option<Waiting> {
        let source = |waiting: &Waiting| Source::from(waiting.peer.addr.ip());
        let sources: Vec<Source> = self.waiting.iter().map(source).collect();
        let count = |index: &usize| sources.iter().filter(|source| **source == sources[*index]).count();
        // The last of equals, which is the oldest.
        let index = (0..sources.len()).rev().max_by_key(count)?;
        self.waiting.remove(index)
    }

    /// Returns what the accept loop polls.
    pub(crate) fn poll_fds(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.waiting.iter().map(|waiting| poll::readable(&waiting.peer))
    }

    /// Returns when the next connection runs out of time.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.waiting.iter().map(|waiting| waiting.until).min()
    }

    /// Reads what has arrived, and closes what has ended or run out of time.
    pub(crate) fn run(&mut self) {
        let now = Instant::now();
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else { break };
            let waiting = if waiting.until <= now {
                self.advance_late(waiting)
            } else {
                self.advance(waiting)
            };
            match waiting {
                Some(waiting) if waiting.until <= now => self.expire(waiting),
                waiting => self.waiting.extend(waiting),
            }
        }
    }

    /// Reads all that has arrived of a request whose time is over: the process may have been suspended meanwhile. Returns the connection
    /// unless it has ended.
    fn advance_late(&self, mut waiting: Waiting) -> Option<Waiting> {
        loop {
            let known = waiting.request_bytes();
            waiting = self.advance(waiting)?;
            if waiting.request_bytes() == known {
                return Some(waiting);
            }
        }
    }

    /// Reads what has arrived. Returns the connection unless it has ended.
    fn advance(&self, mut waiting: Waiting) -> Option<Waiting> {
        let mut chunk = [0; 4096];
        let read = match waiting.peer.stream.try_read(&mut chunk) {
            Ok(0) => return None,
            Ok(read) => &chunk[..read],
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Some(waiting);
            }
            Err(_) => return None,
        };
        match &mut waiting.state {
            State::Reading(bytes, why) => {
                let known = bytes.len();
                bytes.extend_from_slice(read);
                let Some(outcome) = self.respond(&waiting.peer, bytes, known) else {
                    return Some(waiting);
                };
                // The response fits into the empty buffer of a new socket; a client that has left needs none.
                match outcome {
                    Outcome::Rejected => {
                        let _ = waiting.peer.reject(&self.counters, why);
                    }
                    Outcome::Answered(response, line) => {
                        self.counters.record_response(response.code());
                        let _ = waiting.peer.finish(&response.to_bytes());
                        waiting.peer.log_response(&response, line.as_ref());
                    }
                }
                waiting.until = Instant::now() + TIMEOUT;
                waiting.state = State::Answered(DISCARD_BYTES);
            }
            State::Answered(left) => *left = left.checked_sub(read.len())?,
        }
        Some(waiting)
    }

    /// Decides on a request, of which more than the first `known` bytes has just arrived, unless its head is incomplete.
    fn respond(&self, peer: &Peer, bytes: &[u8], known: usize) -> Option<Outcome> {
        let limit = self.config.head_bytes as usize;
        let decide = |head: &Head<'_>| {
            let forwarded_for = head.headers.all("X-Forwarded-For");
            peer.set_client(client_ip::client(
                peer.addr.ip(),
                &self.config.trusted_proxies,
                forwarded_for,
            ));
            let pages = &self.config.pages;
            let response = match Request::of(head) {
                Ok(Request::Upgrade(_)) => return Ok(Outcome::Rejected),
                Ok(Request::Plain) => page::respond(head, pages, self.lifecycle.is_ready()),
                Err(response) => response,
            };
            // A page that may not fit into the buffer of the socket would need a thread. The kernel doubles its size, so the head fits.
            let response = if response.body_len() <= SEND_BUFFER {
                response
            } else {
                Response::UNAVAILABLE
            };
            Ok(Outcome::Answered(response, Some(RequestLine::of(head, pages))))
        };
        Some(match head::parse_arrived(bytes, known, limit, decide)? {
            Ok((outcome, _)) => outcome,
            Err(response) => Outcome::Answered(response, None),
        })
    }

    /// Rejects a connection that has sent no request in time, and closes it.
    fn expire(&self, waiting: Waiting) {
        if let State::Reading(_, why) = &waiting.state {
            let _ = waiting.peer.reject(&self.counters, why);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    };

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::sys::{pipe::Pipe, stream};

    #[test]
    fn knocking_address_takes_no_place_of_another() -> io::Result<()> {
        let lifecycle = Arc::new(Lifecycle::new(Pipe::new()?, false));
        let mut overflow = Overflow::new(&Arc::default(), &Arc::default(), &lifecycle);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut clients = Vec::new();
        let mut knock = |overflow: &mut Overflow, from: [u8; 4]| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            client.bind(&SocketAddr::from((from, 0)).into())?;
            client.connect(&listener.local_addr()?.into())?;
            let (stream, addr) = stream::accept(&listener)?;
            let peer = Arc::new(Peer::new(0, addr, stream, Duration::from_secs(5)));
            overflow.push(Arc::clone(&peer), "full".into());
            clients.push(client);
            io::Result::Ok(peer)
        };
        let probe = knock(&mut overflow, [127, 0, 0, 1])?;
        let mut knocking = Vec::new();
        for _ in 0..2 * MAX_OVERFLOW {
            knocking.push(knock(&mut overflow, [127, 0, 0, 2])?);
        }
        let is_waiting = |peer: &Arc<Peer>| overflow.waiting.iter().any(|waiting| Arc::ptr_eq(&waiting.peer, peer));
        assert_eq!(overflow.waiting.len(), MAX_OVERFLOW);
        assert!(is_waiting(&probe));
        let (gone, waiting) = knocking.split_at(knocking.len() - (MAX_OVERFLOW - 1));
        assert!(gone.iter().all(|peer| !is_waiting(peer)) && waiting.iter().all(is_waiting));
        Ok(())
    }

    /// The process may have been suspended since the request arrived.
    #[test]
    fn request_that_has_arrived_is_answered_after_its_timeout() -> io::Result<()> {
        let config = Arc::new(Config {
            handshake_timeout: Duration::ZERO,
            ..Config::default()
        });
        let lifecycle = Arc::new(Lifecycle::new(Pipe::new()?, false));
        let mut overflow = Overflow::new(&config, &Arc::default(), &lifecycle);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        for (end, status) in [("\r\n\r\n", "200 OK"), ("", "503 Service Unavailable")] {
            let mut client = TcpStream::connect(listener.local_addr()?)?;
            let (stream, addr) = stream::accept(&listener)?;
            let long = "x".repeat(12_000);
            let request = format!("GET /health HTTP/1.1\r\nHost: x\r\nX: {long}{end}");
            client.write_all(request.as_bytes())?;
            poll::wait(&mut [poll::readable(&stream)], None)?;
            overflow.push(
                Arc::new(Peer::new(0, addr, stream, Duration::from_secs(5))),
                "full".into(),
            );
            overflow.run();
            let mut answer = [0; 64];
            let read = client.read(&mut answer)?;
            let answer = String::from_utf8_lossy(&answer[..read]);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        }
        Ok(())
    }
}
