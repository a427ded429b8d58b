//! Owns the listening sockets and the accepting: a connection over the ceiling is answered 503 before a thread is spent on it.
//! Never reads a request.

use std::{
    fmt, io, mem,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::{Arc, mpsc::SyncSender},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::RecvFlags,
};
use sigver_core::Source;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{
    access::client_ip,
    admin,
    conn::peer::Peer,
    conn::{self, Arrival},
    relay::Event,
    server::{Shared, Stage},
    sys::worker_pool::{STACK, Workers},
};

/// Connections that the kernel completes before they are accepted. It lowers this to its own limit (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// What the kernel buffers for a client that does not read; it doubles this. Left alone, it may grow to 4 MiB.
pub(crate) const SEND_BUFFER: usize = 128 * 1024;

/// What the kernel buffers of what a client sends; it doubles this. Left alone, it may grow to 6 MiB.
pub(crate) const RECEIVE_BUFFER: usize = 64 * 1024;

/// How long accepting pauses when the process has run out of descriptors, threads or memory.
const PAUSE: Duration = Duration::from_millis(50);

/// How long it must not have run out of them again until that is over.
const CALM: Duration = Duration::from_secs(1);

/// Refused connections that are held until the client has seen its answer, and for how long.
const LINGERING: usize = 32;
const LINGER: Duration = Duration::from_secs(1);

/// Requests for the metrics page that are answered at the same time. More are not answered.
const SCRAPES: usize = 4;

/// Listens on `addr`. The unspecified IPv6 address takes IPv4 as well, and is the unspecified IPv4 address where there is no IPv6.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    match listen(addr) {
        Err(error) if addr.ip().is_unspecified() && addr.is_ipv6() && has_no_ipv6(&error) => {
            listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())))
        }
        bound => bound,
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    let listener = socket.into();
    prepare(&listener)?;
    Ok(listener)
}

/// Makes a listener, and what is accepted from it, what the server wants. Whoever hands over a connection in its place, as a service
/// manager may, is told so.
pub(crate) fn prepare(listener: &TcpListener) -> io::Result<()> {
    #[cfg(not(target_vendor = "apple"))]
    if !rustix::net::sockopt::socket_acceptconn(listener)? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a socket that was given does not listen (systemd: Accept=no is what it takes)",
        ));
    }
    let socket = SockRef::from(listener);
    // Accepted sockets inherit these.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_tcp_nodelay(true)?;
    listener.set_nonblocking(true)
}

fn has_no_ipv6(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

/// Accepts until every connection has been told that the server ends. While it drains, a client still gets an HTTP answer, unless
/// another server will accept it.
pub(crate) fn run(listeners: &[TcpListener], admin: &[TcpListener], shared: &Arc<Shared>, events: &SyncSender<Event>) {
    let workers = Workers::new({
        let shared = Arc::clone(shared);
        move |arrival| conn::run(arrival, &shared)
    });
    let mut acceptor = Acceptor {
        shared,
        events,
        workers: &workers,
        serial: 0,
        scrapes: Arc::default(),
        is_paused: false,
        exhausted: None,
        refused: Vec::new(),
    };
    let mut stage = Stage::Serving;
    while stage < Stage::Closed {
        acceptor.wait(listeners, admin);
        let before = mem::replace(&mut stage, shared.stage());
        if stage != before {
            // A full channel keeps the relay awake as well.
            let _ = events.try_send(Event::Wake);
        }
        for listener in listeners {
            acceptor.accept_all(listener);
        }
        for listener in admin {
            acceptor.accept_scrapes(listener);
        }
        acceptor.recover();
    }
    workers.end();
}

struct Acceptor<'a> {
    shared: &'a Arc<Shared>,
    events: &'a SyncSender<Event>,
    workers: &'a Arc<Workers<Arrival>>,
    serial: u64,
    /// One more reference for each request that is being answered on the metrics page's addresses.
    scrapes: Arc<()>,
    /// Whether nobody is accepted for the length of a [`PAUSE`].
    is_paused: bool,
    /// When descriptors, threads or memory last ran out, while that is not over. The log knows.
    exhausted: Option<Instant>,
    /// Connections that were answered 503, and until when each is held.
    refused: Vec<(Instant, Arc<Peer>)>,
}

impl Acceptor<'_> {
    /// Sleeps until there is something to accept, a refused client to let go, or a reason to stop.
    fn wait(&mut self, listeners: &[TcpListener], admin: &[TcpListener]) {
        let is_accepting = self.shared.is_accepting() && !self.is_paused;
        let clients = if is_accepting { listeners } else { &[] };
        let admin = if self.is_paused { &[] } else { admin };
        let mut fds: Vec<PollFd<'_>> = clients
            .iter()
            .chain(admin)
            .map(|listener| PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN))
            .collect();
        fds.push(PollFd::new(self.shared.waker.bell(), PollFlags::IN));
        fds.extend(self.refused.iter().map(|(_, peer)| PollFd::new(peer, PollFlags::IN)));
        let pause = self.is_paused.then_some(PAUSE);
        let calm = self.exhausted.map(|since| CALM.saturating_sub(since.elapsed()));
        let release = self
            .refused
            .first()
            .map(|(until, _)| until.saturating_duration_since(Instant::now()));
        let timeout = pause
            .into_iter()
            .chain(calm)
            .chain(release)
            .min()
            .and_then(|timeout| timeout.try_into().ok());
        // Whatever an error says of the waiting, looking at everyone is always right.
        let _ = poll(&mut fds, timeout.as_ref());
        self.shared.waker.acknowledge();
        self.is_paused = false;
        self.release();
    }

    /// Accepts what waits, but no more than a backlog at a time.
    fn accept_all(&mut self, listener: &TcpListener) {
        for _ in 0..BACKLOG {
            if !self.shared.is_accepting() {
                return;
            }
            let Some((stream, addr)) = self.accept(listener) else {
                return;
            };
            self.take(stream, addr);
        }
    }

    /// Answers those who want the metrics page, each on a thread of its own, which lives for seconds at most.
    fn accept_scrapes(&mut self, listener: &TcpListener) {
        for _ in 0..BACKLOG {
            let Some((stream, _)) = self.accept(listener) else {
                return;
            };
            if Arc::strong_count(&self.scrapes) > SCRAPES {
                continue;
            }
            let (shared, scrape) = (Arc::clone(self.shared), Arc::clone(&self.scrapes));
            let thread = thread::Builder::new()
                .name("sigver-admin".into())
                .stack_size(STACK)
                .spawn(move || {
                    let _scrape = scrape;
                    if let Err(error) = admin::serve(&stream, &shared) {
                        log::debug!("the metrics page was not taken: {error}");
                    }
                });
            if let Err(error) = thread {
                self.pause("start a thread for the metrics page", &error);
            }
        }
    }

    /// Accepts the next that waits, if one does and can be had.
    #[expect(clippy::wildcard_enum_match_arm, reason = "std's kinds of errors are many")]
    fn accept(&mut self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
        loop {
            let error = match listener.accept() {
                Ok(accepted) => return Some(accepted),
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::WouldBlock => return None,
                // The client was gone before it was accepted.
                io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
                _ => {
                    self.pause("accept connections", &error);
                    return None;
                }
            }
        }
    }

    /// Out of descriptors, threads or memory. The listener stays readable, so trying again at once would only burn time; and the log
    /// needs to hear of it once, also while they come and go one by one.
    fn pause(&mut self, what: &str, error: &io::Error) {
        self.is_paused = true;
        if self.exhausted.replace(Instant::now()).is_none() {
            log::error!("cannot {what}: {error}");
        }
    }

    /// Notices, once everything was tried, that there has been enough of it for a while.
    fn recover(&mut self) {
        if self.exhausted.is_some_and(|since| since.elapsed() >= CALM) {
            self.exhausted = None;
            log::info!("accepting again");
        }
    }

    fn take(&mut self, stream: TcpStream, addr: SocketAddr) {
        let shared = self.shared;
        let peer = Arc::new(Peer::new(self.serial, addr, stream));
        self.serial += 1;
        if shared.registry.len() >= shared.ceiling.connections as usize {
            return self.refuse(peer, &"too many connections");
        }
        // A trusted proxy has as many as it likes: its clients' shares are taken when they are known.
        let is_proxy = || client_ip::any_contains(&shared.config.trusted_proxies, addr.ip());
        let share = if shared.shares.are_limited() && !is_proxy() {
            match shared.shares.take(Source::from(addr.ip())) {
                Err(too_many) => return self.refuse(peer, &too_many),
                Ok(share) => Some(share),
            }
        } else {
            None
        };
        let arrival = Arrival {
            peer: Arc::clone(&peer),
            events: self.events.clone(),
            entry: shared.registry.enter(&peer),
            share,
        };
        if let Err(error) = self.workers.run(arrival) {
            self.pause("start a thread for a connection", &error);
            self.refuse(peer, &"no thread for it");
        }
    }

    /// Answers 503 without a thread, and holds the connection until the client has had time to read it.
    fn refuse(&mut self, peer: Arc<Peer>, why: &dyn fmt::Display) {
        // The answer fits the empty buffer of a new socket; a client that is gone needs none.
        let _ = self.shared.turn_away(&peer, why);
        if self.refused.len() < LINGERING {
            self.refused.push((Instant::now() + LINGER, peer));
        }
    }

    /// Lets go of refused connections that have ended, or whose time is over.
    fn release(&mut self) {
        let now = Instant::now();
        let mut sink = [0; 4096];
        self.refused.retain(|(until, peer)| {
            *until > now
                && match rustix::net::recv(peer, &mut sink, RecvFlags::DONTWAIT) {
                    Ok((read, _)) => read > 0,
                    Err(error) => error == Errno::WOULDBLOCK,
                }
        });
    }
}

#[cfg(all(test, not(loom), target_os = "linux"))]
mod tests {
    use socket2::SockRef;

    use super::*;

    /// What the stated bound on memory counts with.
    #[test]
    fn the_kernel_buffers_no_more_than_it_was_told() -> io::Result<()> {
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let _client = TcpStream::connect(listener.local_addr()?)?;
        let accepted = loop {
            match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
                accepted => break accepted?.0,
            }
        };
        let accepted = SockRef::from(&accepted);
        assert_eq!(accepted.send_buffer_size()?, 2 * SEND_BUFFER);
        assert_eq!(accepted.recv_buffer_size()?, 2 * RECEIVE_BUFFER);
        Ok(())
    }
}
